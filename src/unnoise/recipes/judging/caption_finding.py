"""Whether words reach a model: does it tell the right caption of a picture from others, and do its samples match their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...conditioning.text.network import TextNetwork
from ...data.base import Dataset, Progress
from ...errors import BadOption, DataError
from ...evaluation.retrieval import Found, found_at, match_score, ranks_of, retrieval
from ...model import Model
from ...objectives.mse import preconditioned
from ...precision import Precision
from ...process.forward import add_noise
from ...randomness import address, normal_like, uniform
from ...training.captions import lines
from ..towers import Towers, open_towers, read_in_part
from .captions_asked import captioned
from .real import RealData
from .run import find_subject
from .subject import ModelSubject

AMONG = 16
"""Captions that a model chooses among."""
MOST_PICTURES = 64
NOISE = (0.5, 1.0, 2.0, 4.0)
"""How strong the noise is, beside the data, at which the loss is taken: where words matter, and some of a picture is to be seen."""


@dataclass(frozen=True)
class Matches:
    """How CLIP finds pictures and texts to match.

    Args:
        score: CLIP score with the ends of its 95 % interval.
        found: How pictures find their texts; None of fewer than two different texts.
    """

    score: tuple[float, float, float]
    found: Found | None

    def told(self) -> str:
        """In a line."""
        score, low, high = self.score
        there = "" if self.found is None else f", {told(self.found)}"
        return f"CLIP score {score:.1f} ({low:.1f} to {high:.1f}){there}"

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        score = dict(zip(("value", "low", "high"), self.score, strict=True))
        return {"score": score, "found": None if self.found is None else plain(self.found)}


@dataclass(frozen=True)
class WordsFound:
    """Whether a model's words reach it.

    Args:
        by_loss: How real pictures find their own caption by the model's loss under it; None where there are too few captions.
        made: How samples match their prompts by CLIP; None without CLIP.
        real: How real pictures match their captions by it.
        notes: What a person should know.
    """

    by_loss: Found | None
    made: Matches | None = None
    real: Matches | None = None
    notes: tuple[str, ...] = ()

    @property
    def heard(self) -> bool:
        """Whether captions are told apart better than by chance, as far as is known."""
        return self.by_loss is None or self.by_loss.first.low > self.by_loss.chance

    remedy = (
        "Its words do not reach it yet: it does not tell a picture's own caption from others. Train longer, or give it an "
        "encoder that knows words already (conditioning.text.path)."
    )

    def lines(self) -> list[tuple[str, str]]:
        """What was found, each with a name."""
        found = [] if self.by_loss is None else [("picture -> caption by the loss", told(self.by_loss))]
        for name, each in (("sample -> prompt", self.made), ("real picture -> caption", self.real)):
            if each is not None:
                found.append((f"{name} by CLIP", each.told()))
        return found

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "by loss": None if self.by_loss is None else plain(self.by_loss),
            "made": None if self.made is None else self.made.plain(),
            "real": None if self.real is None else self.real.plain(),
            "notes": list(self.notes),
        }


def told(found: Found) -> str:
    """In a line."""
    first = found.first
    interval = f"{first.value:.1%} ({first.low:.1%} to {first.high:.1%})"
    return f"{interval} first of {found.among} (chance {found.chance:.1%}), mean place {found.rank:.1f}"


def plain(found: Found) -> dict[str, Any]:
    """As JSON holds it."""
    first = found.first
    share = {"value": first.value, "low": first.low, "high": first.high}
    return {"first": share, "rank": found.rank, "among": found.among}


def words_of_model(
    subject: ModelSubject, real: RealData, made: Tensor, clip: Towers | None, seed: int, progress: Progress | None
) -> WordsFound | None:
    """Whether the words of a model that is judged reach it; None of a model that knows none, or of data without captions.

    Args:
        subject: The model, and what it is asked for.
        real: The data; what was held out is taken where it has captions.
        made: The samples.
        clip: Two towers that say what matches; None for the model's own loss alone.
        seed: Of the noise under which the loss is taken.
        progress: Told how many pictures are done.
    """
    data = captioned(real.held_out, real.reference)
    text = subject.model.blueprint.text
    if text is None or data is None:
        return None
    by_loss = found_by_loss(subject.model, data, seed, progress)
    pictures, captions = _pairs(data)
    cut = text.too_long(captions, "the encoder of the model")
    notes = [f"captions: {cut}, and what comes after is not judged: shorten such captions"] if cut else []
    if clip is None:
        return WordsFound(by_loss, notes=tuple(notes))
    prompts = subject.prompts(0, len(made))
    notes += read_in_part(clip, captions)
    if prompts is not None and (others := sorted(set(prompts) - set(captions))):
        notes += read_in_part(clip, others, "prompts")
    found = None if prompts is None else matches(clip, made, prompts)
    return WordsFound(by_loss, found, matches(clip, pictures, captions), tuple(notes))


def judge_words(
    what: str | Path,
    *,
    clip: str | Path | None = None,
    data: str | None = None,
    n: int = 200,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
    **request: Any,
) -> WordsFound:
    """Whether words reach a model: it is shown captioned pictures, and where CLIP is there to look, asked for their captions.

    Args:
        what: A model of pictures that knows words, or the run around it.
        clip: A run of kind clip, its folder, or the folder of a CLIP that others trained.
        data: Captioned pictures; by default those that the run held out.
        n: Samples that CLIP looks at.
        seed: Of the noise.
        device: What the model is sampled on.
        precision: In which numbers.
        progress: Told what is being done.
        **request: How it is sampled: sampler, steps, guidance, prompt.

    Raises:
        ModelFolderError: There is no model, or no CLIP.
        BadOption: The model knows no words.
        DataError: There are no captions.
    """
    towers = None if clip is None else open_towers(clip)
    asked = {"seed": seed, **request}
    subject, real = find_subject(what, asked, data=data, progress=progress, device=device, precision=precision)
    if not isinstance(subject, ModelSubject) or subject.model.blueprint.text is None:
        raise BadOption(f"{what} knows no words: give a run of kind clip, or a model that learned captions")
    if data is not None:  # and not what the run held out
        real = replace(real, held_out=None)
        subject = ModelSubject(subject.model, subject.request, real.reference)
    made = torch.zeros(0) if towers is None else subject.samples(0, n)
    found = words_of_model(subject, real, made, towers, seed, progress)
    if found is None:
        raise DataError(f"{data or what}: the pictures have no captions to be found")
    return found


def matches(clip: Towers, pictures: Tensor, texts: Sequence[str]) -> Matches:
    """How pictures match texts.

    Args:
        clip: Two towers.
        pictures: Shape (n, C, H, W), uint8.
        texts: n of them; the first picture of each text stands in the search.
    """
    seen, read = clip.look(pictures), clip.read(texts)
    kept = _first_of_each(texts)
    found = retrieval(seen[kept], read[kept]) if len(kept) > 1 else None
    return Matches(match_score(seen, read), found)


@torch.no_grad()
def found_by_loss(model: Model, data: Dataset, seed: int = 0, progress: Progress | None = None) -> Found | None:
    """How often a picture's own caption is, of some, the one under which the model's loss is least.

    Every caption is held against the same noise.

    References:
        Your Diffusion Model is Secretly a Zero-Shot Classifier (Li et al., 2023), Algorithm 1, https://arxiv.org/abs/2303.16203

    Args:
        model: That knows words.
        data: Pictures with captions.
        seed: Of the noise, and of which pictures.
        progress: Told how many pictures are done.

    Returns:
        None where there are not two different captions.
    """
    text = model.blueprint.text
    network = preconditioned(model.denoiser).network
    assert text is not None
    assert isinstance(network, TextNetwork)
    order = np.argsort(uniform(address(seed, "pictures of captions"), range(len(data)))[:, 0], kind="stable")
    some = data.take(torch.from_numpy(order[: 4 * MOST_PICTURES].copy()))
    pictures, captions = _pairs(some)
    among = min(AMONG, len(set(captions)))
    if among < 2:
        return None
    place: list[Tensor] = []
    blocks = _of_different(captions, among)[: MOST_PICTURES // among]
    for number, block in enumerate(blocks):
        ids = text.ids([captions[int(i)] for i in block])
        states = network.states(ids.to(next(network.parameters()).device))
        z = model.blueprint.codec.encode(pictures[block])
        scores = torch.stack([-_losses(model, z[k], states, seed, number * among + k) for k in range(among)])
        place.append(ranks_of(scores))
        if progress is not None:
            progress("captions", (number + 1) * among, len(blocks) * among)
    return found_at(torch.cat(place), among)


def _losses(model: Model, z: Tensor, states: dict[str, Tensor], seed: int, number: int) -> Tensor:
    """The squared error about one picture under each caption, shape (captions,), float64, with the same noise under all.

    Args:
        model: Whose.
        z: In the space of the model, shape (C, ...).
        states: What the encoder made of the captions.
        seed: Of the noise.
        number: Of the picture.
    """
    count, denoiser = len(states["context"]), model.denoiser
    noisy = torch.tensor(NOISE, dtype=torch.float64) * denoiser.sigma_data
    t = denoiser.schedule.time_of(-2 * noisy.log())  # where sigma is so many times alpha
    positions = range(number * len(NOISE), (number + 1) * len(NOISE))
    eps = normal_like(address(seed, "noise of captions"), positions, z.expand(len(NOISE), *z.shape))
    x_t = add_noise(z.expand_as(eps), eps, denoiser.schedule, t)
    device, losses = states["context"].device, []
    for x, at in zip(x_t.to(device), t, strict=True):
        found = denoiser(x.expand(count, *x.shape), at, states)
        errors = (found.double() - z.to(device)).square().flatten(1).mean(1)
        losses.append(errors / errors.mean())  # every noise counts alike
    return torch.stack(losses).mean(0).cpu()


def _pairs(data: Dataset) -> tuple[Tensor, list[str]]:
    """Pictures, and of the captions of each the first."""
    assert data.texts is not None
    return data.x, [lines(text)[0] for text in data.texts]


def _of_different(texts: Sequence[str], among: int) -> list[Tensor]:
    """Places of so many texts each, of which no two are the same."""
    seen: dict[str, int] = {}
    rounds: list[list[int]] = []  # the first of each text, the second, and so on
    for i, text in enumerate(texts):
        turn = seen[text] = seen.get(text, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(i)
    return [torch.tensor(each[i : i + among]) for each in rounds for i in range(0, len(each) - among + 1, among)]


def _first_of_each(texts: Sequence[str]) -> Tensor:
    """The place of the first of each different text, in rising order."""
    first = {text: i for i, text in reversed(list(enumerate(texts)))}
    return torch.tensor(sorted(first.values()), dtype=torch.int64)
