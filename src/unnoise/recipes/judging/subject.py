"""What is judged: a model, sampled in a stated way, or samples that stand in a folder or file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...conditioning.text.conditioning import check_prompt
from ...data.base import Dataset, Progress, Spec
from ...data.open import source_of
from ...errors import BadOption, DataError
from ...evaluation.features.base import Extractor
from ...guidance.base import guidances
from ...guidance.classifier_free import ClassifierFreeGuidance
from ...model import Model
from ...model_folder import MODEL_FILE
from ...options import Checked, option
from ...placement import precision_of
from ...randomness import permutations
from ...samplers.base import samplers
from ...shipped import folder_of
from ..places.base import Job
from .captions_asked import CaptionsAsked, captioned
from .real import as_labels_of, refuse_other_shape

GOLDEN = 0.6180339887498949
DATA, NONE = "data", "none"


@dataclass(frozen=True)
class Request(Checked):
    """How a model is sampled to be judged; what is not said is as the model's own settings say."""

    sampler: str | dict[str, Any] | None = option(None, help="how to step")
    steps: int | None = option(None, help="from noise to data", low=1)
    grid: str | dict[str, Any] | None = option(None, help="at which times")
    guidance: float | None = option(None, help="guidance scale", low=0.0, high=1000.0)
    embedded_guidance: float | None = option(
        None, help="the scale told to a model that guidance was distilled into", low=0.0, high=1000.0
    )
    label: str | None = option(
        None, help="`data`: as often as in the real data; `none`; or one class for all", one_of=None
    )
    prompt: str | None = option(
        None,
        help="`data`: captions of the real data; `none`; or words for all; captions where there are some by default",
    )
    seed: int = option(0, help="of the noise, and of which captions are asked for", low=0)


class Subject(ABC):
    """Samples by number: the same number is the same sample, whoever asks for it and in which order."""

    name: str
    """For tables: what a person would call it."""
    spec: Spec
    """What one sample is."""
    most: int | None
    """How many samples there are; None for as many as wanted."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the samples depend on, as plain values; equal values mean equal samples."""

    @abstractmethod
    def samples(self, first: int, count: int, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """Samples first ... first + count - 1 in the units of the data, shape (count, *spec.shape)."""

    @abstractmethod
    def labels(self, count: int) -> Tensor | None:
        """What the first samples show or were asked for, by the real data's numbers, shape (count,); None without labels."""

    notes: tuple[str, ...] = ()


class FileSubject(Subject):
    """Samples that stand in a folder or file, shuffled: where only some are looked at, those do not stand for one end of it.

    Args:
        path: Where.
        real: What one real sample is.
        size: Side that images are brought to; 0 leaves them as they are.
        progress: Told while they are read.

    Raises:
        DataError: They cannot be read, or cannot be compared with the real data.
    """

    def __init__(self, path: str, real: Spec, size: int = 0, progress: Progress | None = None) -> None:
        data = _with_channels_of(path, real, size).load(progress).part()
        if not len(data):
            raise DataError(f"{path} holds no samples")
        refuse_other_shape(f"the samples in {path}", data.spec, real)
        self.data: Dataset = data
        self.order = torch.from_numpy(permutations(0, len(data), 0, 1)[0].copy())
        self.path, self.spec, self.name, self.most = path, data.spec, Path(path).name, len(data)
        self._labels: Tensor | None = None
        notes = [f"not read: {line}" for line in data.skipped[:5]]
        if len(data.skipped) > 5:
            notes.append(f"not read: {len(data.skipped) - 5} more of {path}")
        if data.labels is not None and real.class_names:
            try:
                self._labels = as_labels_of(data.spec.class_names, data.labels, real)
            except DataError as error:
                notes.append(f"labels left out: {error}")
        self.notes = tuple(notes)

    def describe(self) -> dict[str, Any]:
        """See `Subject.describe`."""
        return {"files": str(self.path), "hash": self.data.fingerprint()}

    def samples(self, first: int, count: int, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """See `Subject.samples`."""
        return self.data.x[self.order[first : first + count]]

    def labels(self, count: int) -> Tensor | None:
        """See `Subject.labels`."""
        return None if self._labels is None else self._labels[self.order[:count]]


def _with_channels_of(path: str, real: Spec, size: int) -> Any:
    options: dict[str, Any] = {"size": size} if size else {}
    if Path(path).is_dir() and real.kind == "image":
        options["channels"] = real.shape[0]  # grey pictures are often saved in colour, and the other way round
    try:
        return source_of(path, **options)
    except BadOption:
        return source_of(path)


@dataclass(frozen=True)
class MakeAndLook(Job):
    """Samples of a model, and what an extractor sees in them; a part is made as one call of `Subject.samples` makes it.

    Args:
        model: The model.
        asked: How it is sampled: sampler, steps, grid, guidance, seed.
        names: The label of every sample; None where none is asked for.
        prompts: The same of the words.
        extractor: Looks at them.
    """

    model: Model
    asked: Mapping[str, Any]
    names: Sequence[str] | None
    prompts: Sequence[str] | None
    extractor: Extractor

    def on(self, device: str) -> MakeAndLook:
        """See `Job.on`."""
        return replace(self, model=self.model.on(device, precision_of(self.model.denoiser)))

    def __call__(self, part: range, progress: Callable[[int, int], None] | None = None) -> tuple[Tensor, Tensor]:
        """Samples of shape (len(part), *shape), and their features; see `Job`."""
        label, prompt = (each if each is None else each[part.start : part.stop] for each in (self.names, self.prompts))
        how = {"label": label, "prompt": prompt, **self.asked}
        x = self.model.sample(len(part), first=part.start, progress=progress, **how).tensor
        return x, self.extractor(x)


class ModelSubject(Subject):
    """What a model makes.

    Args:
        model: The model.
        request: How it is sampled.
        real: The real data, whose labels are asked for.
        captions: Data whose captions are asked for; the real data's by default.

    Raises:
        DataError: Its samples cannot be compared with the real data.
        BadOption: It cannot be sampled so.
    """

    most = None

    def __init__(self, model: Model, request: Request, real: Dataset, captions: Dataset | None = None) -> None:
        refuse_other_shape("what the model makes", model.spec, real.spec)
        self.model, self.request, self.spec, self.real, self.captions = model, request, model.spec, real, captions
        own = model.sampling
        self.name = Path(model.path or "model").name
        self._sampler = samplers.describe(own.sampler) if request.sampler is None else request.sampler
        self._texts = self._captions_asked()
        self._asked = self._labels_asked()
        scale = own.guidance if request.guidance is None else request.guidance
        self._guidance = guidances.describe(ClassifierFreeGuidance(scale=scale))
        if not self.asks and request.guidance is not None and request.guidance != 1:
            self.notes = ("guidance does nothing where no label and no prompt is asked for",)
        probe = model.settle(1, label=self._names(0, 1), prompt=self.prompts(0, 1), **self._how())
        model.check(probe)
        said = "sampler", "steps", "grid", "guidance", "embedded_guidance", "seed"
        self.settled = {key: probe[key] for key in said if key in probe}

    @property
    def asks(self) -> bool:
        """Whether the samples are asked for by anything, so that guidance can push."""
        return self._asked is not None or self._texts is not None

    def _captions_asked(self) -> CaptionsAsked | str | None:
        prompt, data = self.request.prompt, captioned(self.captions, self.real)
        if self.model.blueprint.text is None:
            if prompt not in (None, NONE):
                raise BadOption("prompt: this model was trained without words: leave --prompt out")
            return None
        if prompt is None:
            return None if data is None else CaptionsAsked(data, self.request.seed)
        if prompt == DATA:
            return CaptionsAsked(data if data is not None else self.real, self.request.seed)
        if prompt == NONE:
            return None
        check_prompt("prompt", prompt)
        return prompt

    def prompts(self, first: int, count: int) -> list[str] | None:
        """What samples first ... first + count - 1 are asked for in words; None where nothing is."""
        if isinstance(self._texts, CaptionsAsked):
            return self._texts.texts(first, count)
        return None if self._texts is None else [self._texts] * count

    def _labels_asked(self) -> str | None:
        label, names = self.request.label, self.model.spec.class_names
        if label is None:
            label = (
                DATA
                if names and self.real.labels is not None and set(names) <= set(self.real.spec.class_names)
                else NONE
            )
        if label == NONE:
            return None
        if label == DATA:
            if not names or self.real.labels is None:
                raise BadOption("label: the model or the real data has no labels: leave --label out")
            unknown = [name for name in names if name not in self.real.spec.class_names]
            if unknown:
                known = ", ".join(self.real.spec.class_names[:8])
                raise BadOption(
                    f"label: the model's label {unknown[0]!r} is none of the real data's ({known}): give --label none"
                )
            return DATA
        self.model.condition(label, 1)
        return label

    def _names(self, first: int, count: int) -> list[str] | None:
        """The label of every sample, by the model's names: as often as in the data, whatever the number of samples."""
        if self._asked is None:
            return None
        if self._asked != DATA:
            names = self.model.spec.class_names
            wanted = self._asked if self._asked in names else names[int(self._asked)]
            return [wanted] * count
        assert self.real.labels is not None
        if isinstance(self._texts, CaptionsAsked) and (own := self._texts.labels(first, count)) is not None:
            return own  # that of the very sample whose caption is asked for
        names = self.real.spec.class_names
        known = torch.tensor([name in self.model.spec.class_names for name in names])
        shares = torch.bincount(self.real.labels, minlength=len(names)).double() * known
        edges = (shares / shares.sum()).cumsum(0)
        # Multiples of the golden ratio fill [0, 1] evenly, any number of them.
        u = (torch.arange(first, first + count, dtype=torch.float64) * GOLDEN + 0.5) % 1.0
        return [names[int(i)] for i in torch.searchsorted(edges, u).clamp(max=len(names) - 1)]

    def _how(self) -> dict[str, Any]:
        r = self.request
        return {
            "sampler": self._sampler, "steps": r.steps, "grid": r.grid, "guidance": self._guidance,
            "embedded_guidance": r.embedded_guidance, "seed": r.seed,
        }  # fmt: skip

    def job(self, n: int, extractor: Extractor) -> MakeAndLook:
        """The making of the first n samples, as work that can be done elsewhere.

        Args:
            n: How many.
            extractor: Looks at each.
        """
        return MakeAndLook(self.model, self._how(), self._names(0, n), self.prompts(0, n), extractor)

    def describe(self) -> dict[str, Any]:
        """See `Subject.describe`."""
        asked: dict[str, Any] = {
            "model": self.model.path,
            "hash": self.model.hash,
            "label": self._asked,
            **self.settled,
        }
        if isinstance(self._texts, CaptionsAsked):
            asked["captions"] = self._texts.fingerprint()
        elif self._texts is not None:
            asked["prompt"] = self._texts
        if precision_of(self.model.denoiser) != "fp32":
            asked["precision"] = precision_of(self.model.denoiser)
        if self._asked == DATA:
            assert self.real.labels is not None
            asked["label counts"] = torch.bincount(self.real.labels, minlength=self.real.spec.num_classes).tolist()
        return asked

    def samples(self, first: int, count: int, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """See `Subject.samples`."""
        how = {"label": self._names(first, count), "prompt": self.prompts(first, count), **self._how()}
        return self.model.sample(count, first=first, progress=progress, **how).tensor

    def labels(self, count: int) -> Tensor | None:
        """See `Subject.labels`; None too where the real data does not know the label."""
        names = self._names(0, count)
        known: Mapping[str, int] = {name: i for i, name in enumerate(self.real.spec.class_names)}
        if names is None or not set(names) <= set(known):
            return None
        return torch.tensor([known[name] for name in names])


def is_model(path: str | Path) -> bool:
    """Whether a model stands at a path: a model folder, or the run folder around it."""
    folder = folder_of(path)
    return any((folder / place).is_file() for place in (MODEL_FILE, f"model/{MODEL_FILE}", "recipe.yaml"))
