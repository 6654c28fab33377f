"""What a person asks of a model, as conditions for its network: labels and prompts, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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

    There is one prompt and one negative prompt for each sample, or none at all where nobody asks by words.
    """

    n: int
    labels: Condition | None
    planes: Tensor | None
    wanted: list[str | None]
    unwanted: list[str | None]


class Asked:
    """The conditions of n samples. What the encoder makes of prompts is worked out once, here.

    Args:
        found: What is asked for, checked.
        text: How the model understands words; None where it does not.
        denoiser: Holds the encoder.
    """

    def __init__(self, found: Checked, text: TextConditioning | None, denoiser: Denoiser) -> None:
        self.n, self.labels, self.planes, wanted, unwanted = found
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
        return {**labels, **words, **planes} or None

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

    Raises:
        BadOption: The model knows no such label, box or map, or no words, a prompt is empty, or there is not one of each for every
            sample.
    """
    labels = None if label is None else LabelConditioning(spec.class_names).condition(_each("label", label, n))
    network = preconditioned(denoiser).network
    planes = asked_planes(network, _each("boxes", boxes, n), _each("map", map, n), spec.shape)
    if prompt is None and negative is None:
        return Checked(n, labels, planes, [], [])
    if text is None:
        raise BadOption("prompt: this model was trained without words; ask by label, or for nothing")
    wanted, unwanted = _each("prompt", prompt, n), _each("negative_prompt", negative, n)
    for name, prompts in (("prompt", wanted), ("negative_prompt", unwanted)):
        for each in dict.fromkeys(prompts):
            check_prompt(name, each)
    return Checked(n, labels, planes, wanted, unwanted)


def _each(name: str, asked: Any, n: int) -> list[Any]:
    if asked is None or isinstance(asked, (str, int)):
        return [asked] * n
    if len(asked) != n:
        raise BadOption(f"{name}: expected one, or one for each of {n} samples, got {len(asked)}")
    return list(asked)
