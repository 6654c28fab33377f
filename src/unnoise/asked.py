"""What a person asks of a model, as conditions for its network: labels and prompts, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .conditioning.asking import asked_planes
from .conditioning.label import LabelConditioning
from .conditioning.regions import PLANES
from .conditioning.text.conditioning import PromptStates, TextConditioning, check_prompt
from .conditioning.text.network import TextNetwork
from .data.base import Spec
from .denoisers.base import Condition, Denoiser
from .errors import BadOption
from .objectives.mse import preconditioned

Label = str | int | Sequence[str | int | None] | None
Words = str | Sequence[str | None] | None


class Checked(NamedTuple):
    """What is asked for of n samples, checked, before any encoder reads it: numbers of labels, what stands where, and prompts.

    There is one prompt and one negative prompt for each sample, or none at all where nobody asks by words. The scale is that of a
    guidance that was distilled into the network; None leaves it at 1.
    """

    n: int
    labels: Condition | None
    planes: Tensor | None
    wanted: list[str | None]
    unwanted: list[str | None]
    scale: float | None = None


class Asked:
    """The conditions of n samples. What the encoder makes of prompts is worked out once, here.

    Args:
        found: What is asked for, checked.
        text: How the model understands words; None where it does not.
        denoiser: Holds the encoder.
    """

    def __init__(self, found: Checked, text: TextConditioning | None, denoiser: Denoiser) -> None:
        self.n, self.labels, self.planes, wanted, unwanted, self.scale = found
        self.words: PromptStates | None = None
        self.against: PromptStates | None = None
        self.notes: list[str] = []
        self._denoiser = denoiser
        if not wanted:
            return
        network = preconditioned(denoiser).network
        assert isinstance(network, TextNetwork)
        assert text is not None
        self.notes = text.notes([*wanted, *unwanted])
        self.words, self.against = (PromptStates(text, network, each) for each in (wanted, unwanted))

    def condition(self, first: int = 0, last: int | None = None) -> Condition | None:
        """What the samples first ... last - 1 are asked to be; None for nothing."""
        last = self.n if last is None else last
        labels = {} if self.labels is None else {name: value[first:last] for name, value in self.labels.items()}
        words = {} if self.words is None else self.words.rows(first, last)
        planes = {} if self.planes is None else {PLANES: self.planes[first:last]}
        scale = {} if self.scale is None else {"guidance": torch.full((last - first,), self.scale)}
        return {**labels, **words, **planes, **scale} or None

    def negative(self, first: int = 0, last: int | None = None) -> Condition | None:
        """What they are pushed away from; None for the null condition of the network."""
        if self.against is None:
            return None
        last = self.n if last is None else last
        null = self._denoiser.null_condition(last - first)
        return {**null, **self.against.rows(first, last)}


def checked(
    spec: Spec,
    text: TextConditioning | None,
    denoiser: Denoiser,
    n: int,
    label: Label = None,
    prompt: Words = None,
    negative: Words = None,
    boxes: Words = None,
    map: Words = None,
    scale: float | None = None,
) -> Checked:
    """What is asked for of n samples, checked.

    Args:
        spec: Gives the names of the labels.
        text: How the model understands words; None where it does not.
        denoiser: Holds the network, which knows whether it takes boxes or maps.
        n: How many samples.
        label: One for all, or n of them; None asks for nothing.
        prompt: The same.
        negative: Prompts to push away from, the same; the empty text where there are none.
        boxes: What stands where, as text; the same.
        map: Label maps as text; the same.
        scale: Of a guidance that was distilled into the network.

    Raises:
        BadOption: The model knows no such label, box or map, or no words, a prompt is empty, or there is not one of each for every
            sample; or no guidance was distilled into it.
    """
    labels = None if label is None else LabelConditioning(spec.class_names).condition(_each("label", label, n))
    network = preconditioned(denoiser).network
    planes = asked_planes(network, _each("boxes", boxes, n), _each("map", map, n), spec.shape)
    if scale is not None and "guidance" not in getattr(network, "condition_keys", ()):
        raise BadOption(
            "embedded_guidance: no guidance was distilled into this model, whose network is told no scale; leave it out, or "
            "give `guidance`, which steers any model"
        )
    if prompt is None and negative is None:
        return Checked(n, labels, planes, [], [], scale)
    if text is None:
        raise BadOption("prompt: this model was trained without words; ask by label, or for nothing")
    wanted, unwanted = _each("prompt", prompt, n), _each("negative_prompt", negative, n)
    for name, prompts in (("prompt", wanted), ("negative_prompt", unwanted)):
        for each in dict.fromkeys(prompts):
            check_prompt(name, each)
    return Checked(n, labels, planes, wanted, unwanted, scale)


def plain_scale(scale: Any) -> dict[str, float]:
    """The scale of a distilled guidance that was given, as a plain value by name; nothing where there is none.

    Raises:
        BadOption: It is no number, or below 0.
    """
    if scale is None:
        return {}
    if not isinstance(scale, Real) or not 0 <= float(scale) < math.inf:
        raise BadOption(f"embedded_guidance: expected a number of at least 0, got {scale!r}")
    return {"embedded_guidance": float(scale)}


def _each(name: str, asked: Any, n: int) -> list[Any]:
    if asked is None or isinstance(asked, (str, int)):
        return [asked] * n
    if len(asked) != n:
        raise BadOption(f"{name}: expected one, or one for each of {n} samples, got {len(asked)}")
    return list(asked)
