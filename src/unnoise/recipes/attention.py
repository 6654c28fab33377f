"""A picture of what each word of a prompt did to a sample."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from ..conditioning.text.places import word_places
from ..errors import BadOption
from ..model import Model
from ..nn.watching import AttentionWatch
from ..objectives.mse import preconditioned
from ..pictures.looks import word_maps


def attention_picture(model: Model, prompt: str, **request: Any) -> Image.Image:
    """One sample, and for each word of its prompt the places that read it while the sample was made.

    Args:
        model: Of pictures, that takes prompts and looks at them by cross-attention.
        prompt: What is asked for.
        **request: As in `Model.sample`: sampler, steps, guidance, seed and so on.

    Raises:
        BadOption: The model takes no words, or makes no pictures.
        IncompatibleParts: Its network has no cross-attention.
    """
    text, network = model.blueprint.text, preconditioned(model.denoiser).network
    if text is None or network is None:
        raise BadOption("prompt: this model was trained without words, so that there is no attention to them")
    if model.spec.kind != "image":
        raise BadOption(f"attention is drawn over pictures, and this model makes {model.spec.kind}")
    size = model.blueprint.codec.shape(model.spec.shape)[1:]
    with AttentionWatch(network, size) as watch:
        made = model.sample(1, prompt=prompt, **request)
    words = [(word, places) for word, places in word_places(text, prompt) if places]
    maps = torch.stack([watch.maps[0, list(places)].sum(0) for _, places in words])
    return word_maps(made.images()[0], maps.cpu().numpy(), [word for word, _ in words], title=prompt)
