"""A model: what training makes, what a folder holds, what one samples from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .blueprint import Blueprint
from .conditioning.label import LabelConditioning
from .data.base import Spec
from .denoisers.base import Condition, Denoiser
from .errors import BadOption, ModelFolderError, UnnoiseError
from .guidance.base import Guidance, Guided, guidances
from .guidance.classifier_free import ClassifierFreeGuidance
from .model_folder import MODEL_FILE, encode, read_folder, write_folder
from .objectives.mse import preconditioned
from .options import Checked, build, option, plain
from .randomness import NoiseSource
from .samplers.base import Sampler, samplers, trajectory
from .samplers.dpmpp_2m import DPMSolverPPSampler
from .samplers.grids import make_grid
from .samples import Samples
from .training.checkpoint import newest_whole


@dataclass(frozen=True)
class SamplingSettings(Checked):
    """How a model is sampled when nothing else is said."""

    sampler: Sampler = option(DPMSolverPPSampler(), help="how to step", one_of=samplers)
    steps: int = option(20, help="steps from noise to data", low=1, high=100_000)
    grid: str = option("uniform", help="at which times: see `unnoise list grids`")
    guidance: float = option(1.0, help="guidance scale; 1 is the plain conditional model", low=0.0, high=1000.0)


@dataclass(frozen=True)
class Preview:
    """One step of a run, in the units of the data.

    Args:
        step: How many steps are made, from 1 on.
        steps: How many there are.
        t: Where x now is.
        x: The noisy samples.
        denoised: The estimate of the clean samples.
    """

    step: int
    steps: int
    t: float
    x: Tensor
    denoised: Tensor


class Model:
    """A denoiser with all that is needed to sample from it.

    Args:
        blueprint: What it is made of.
        denoiser: The trained denoiser.
        sampling: How it is sampled when nothing else is said.
        trained: How it came to be, as plain values.
        path: The folder that it was loaded from.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        denoiser: Denoiser,
        sampling: SamplingSettings | None = None,
        trained: Mapping[str, Any] | None = None,
        path: str | None = None,
    ) -> None:
        self.blueprint = blueprint
        self.denoiser = denoiser.eval()
        self.sampling = SamplingSettings() if sampling is None else sampling
        self.trained = dict(trained or {})
        self.path = path
        self.notes: list[str] = []
        self._hash: str | None = None

    @property
    def spec(self) -> Spec:
        """What one sample is."""
        return self.blueprint.spec

    @property
    def hash(self) -> str:
        """SHA-256 of the description and the weights, 64 hexadecimal digits."""
        if self._hash is None:
            self._hash = hashlib.sha256(encode(self._values(), self._weights())[0].encode()).hexdigest()
        return self._hash

    def parameters(self) -> int:
        """The number of weights."""
        return sum(p.numel() for p in self.denoiser.parameters())

    def _values(self) -> dict[str, Any]:
        return {**self.blueprint.describe(), "sampling": plain(self.sampling), "trained": self.trained}

    def _weights(self) -> dict[str, Tensor]:
        network = preconditioned(self.denoiser).network
        assert network is not None
        return network.state_dict()

    def save(self, path: str | Path) -> Path:
        """Writes the model's folder; a model that stands there is replaced at once and whole.

        Raises:
            OSError: The folder cannot be written; a model that stands there stays.
        """
        write_folder(Path(path), self._values(), self._weights())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """The model in a folder: one that `save` wrote, or the run folder around it.

        Where the model of a run is damaged, it is made again from the run's newest whole checkpoint, and a note says so.

        Raises:
            ModelFolderError: There is no model, or it is damaged or of another format.
        """
        folder = Path(path)
        inner = folder / "model"
        if (folder / MODEL_FILE).is_file() or not (inner.is_dir() or (folder / "checkpoints").is_dir()):
            return _assemble(*read_folder(folder), str(path))
        try:
            return _assemble(*read_folder(inner), str(path))
        except ModelFolderError as error:
            found, damaged = newest_whole(folder / "checkpoints")
            if found is None:
                raise
            tensors, step, facts = found
            weights = {name.removeprefix("ema/"): value for name, value in tensors.items() if name.startswith("ema/")}
            model = _assemble(facts["model"], weights, str(path))  # type: ignore[arg-type]
            model.notes += [str(error), *damaged, f"the model was made again from the checkpoint of step {step}"]
            return model

    def condition(self, label: str | int | Sequence[str | int | None] | None, n: int) -> Condition | None:
        """The condition of n samples.

        Args:
            label: One for all, or n of them; None asks for nothing.
            n: How many.

        Raises:
            BadOption: The model knows no such label, or their number is not n.
        """
        if label is None:
            return None
        conditioning = LabelConditioning(self.spec.class_names)
        if isinstance(label, (str, int)):
            label = [label] * n
        if len(label) != n:
            raise BadOption(f"label: expected one, or one for each of {n} samples, got {len(label)}")
        return conditioning.condition(label)

    def previews(
        self,
        n: int = 1,
        *,
        label: str | int | Sequence[str | int | None] | None = None,
        sampler: str | Mapping[str, Any] | Sampler | None = None,
        steps: int | None = None,
        guidance: float | Mapping[str, Any] | Guidance | None = None,
        grid: str | None = None,
        seed: int = 0,
        first: int = 0,
    ) -> Iterator[Preview]:
        """Samples step by step; arguments and errors as in `sample`, all in one batch.

        Yields:
            The starting noise as step 0, then every step.
        """
        request = self._request(n, label, sampler, steps, guidance, grid, seed, first)
        yield from self._run(request, self.condition(label, n), range(first, first + n))

    def sample(
        self,
        n: int = 1,
        *,
        label: str | int | Sequence[str | int | None] | None = None,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        sampler: str | Mapping[str, Any] | Sampler | None = None,
        steps: int | None = None,
        guidance: float | Mapping[str, Any] | Guidance | None = None,
        grid: str | None = None,
        seed: int = 0,
        first: int = 0,
        batch_size: int | None = None,
        keep_frames: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        """Makes samples. What is not said is as the model's own settings say.

        Args:
            n: How many.
            label: A class by name or number: one for all, or one for each.
            prompt: Words; only for models that were trained with them.
            negative_prompt: Words to push away from.
            sampler: A name, `{name: ..., option: value}`, or a sampler.
            steps: From noise to data, at least 1.
            guidance: The scale (1 is the plain conditional model), or a guidance rule.
            grid: At which times, by name.
            seed: Sample k of a seed is the same in any batch.
            first: Index of the first sample.
            batch_size: Samples at a time; None chooses by their size.
            keep_frames: Whether to keep a preview of every step.
            progress: Told how many network calls are made, and how many there are.

        Raises:
            BadOption: Something that this model cannot do is asked for.
            UnknownName: There is no such sampler, grid or label.
        """
        if prompt is not None or negative_prompt is not None:
            raise BadOption("prompt: this model was trained without words; ask by label, or for nothing")
        request = self._request(n, label, sampler, steps, guidance, grid, seed, first)
        size = self._batch_size(n) if batch_size is None else batch_size
        if size < 1:
            raise BadOption(f"batch_size: must be at least 1, got {size}")
        request |= {"batch_size": size, "frames": keep_frames}
        cond = self.condition(label, n)
        ends: list[Tensor] = []
        frames: list[list[Tensor]] = []
        num_batches = math.ceil(n / size)
        for batch in range(num_batches):
            low, high = batch * size, min((batch + 1) * size, n)
            part = None if cond is None else {name: value[low:high] for name, value in cond.items()}
            kept = []
            for preview in self._run(request, part, range(first + low, first + high)):
                last = preview
                if keep_frames:
                    kept.append(self._finish(preview.x))
                if progress is not None:
                    progress(batch * preview.steps + preview.step, num_batches * preview.steps)
            ends.append(self._finish(last.x))
            frames.append(kept)
        whole = tuple(torch.cat(parts) for parts in zip(*frames, strict=True)) if keep_frames else ()
        return Samples(torch.cat(ends), self.spec, request, whole)

    def _batch_size(self, n: int) -> int:
        return max(1, min(n, 2**21 // math.prod(self.spec.shape)))

    def _request(
        self,
        n: int,
        label: str | int | Sequence[str | int | None] | None,
        sampler: str | Mapping[str, Any] | Sampler | None,
        steps: int | None,
        guidance: float | Mapping[str, Any] | Guidance | None,
        grid: str | None,
        seed: int,
        first: int,
    ) -> dict[str, Any]:
        """What is asked for, checked and complete, as plain values: the recipe of the samples."""
        from . import __version__

        if n < 1:
            raise BadOption(f"n: must be at least 1, got {n}")
        own = self.sampling
        if isinstance(guidance, (int, float)) or guidance is None:
            guidance = build(
                ClassifierFreeGuidance, {"scale": own.guidance if guidance is None else guidance}, "guidance"
            )
        rule, stepper = (
            guidances.build(guidance, "guidance"),
            samplers.build(own.sampler if sampler is None else sampler, "sampler"),
        )
        count, name = own.steps if steps is None else steps, own.grid if grid is None else grid
        make_grid(name, count, self.denoiser.schedule)
        return {
            "unnoise": __version__,
            "model": {"path": self.path, "hash": self.hash},
            "n": n,
            "first": first,
            "label": list(label) if isinstance(label, Sequence) and not isinstance(label, str) else label,
            "sampler": samplers.describe(stepper),
            "steps": count,
            "grid": name,
            "guidance": guidances.describe(rule),
            "seed": seed,
        }

    def _run(self, request: Mapping[str, Any], cond: Condition | None, indices: range) -> Iterator[Preview]:
        sampler, rule = samplers.build(request["sampler"]), guidances.build(request["guidance"])
        grid = make_grid(request["grid"], request["steps"], self.denoiser.schedule)
        noise = NoiseSource(request["seed"], indices)
        device = next(self.denoiser.parameters()).device
        start = noise.start(self.blueprint.codec.shape(self.spec.shape)).to(device)
        x = float(self.denoiser.schedule.sigma(grid[0])) * start
        if cond is not None:
            cond = {name: value.to(device) for name, value in cond.items()}
        steps = len(grid) - 1
        decode = self.blueprint.codec.decode
        yield Preview(0, steps, float(grid[0]), decode(x), decode(torch.zeros_like(x)))
        for k, stepped in enumerate(trajectory(sampler, Guided(self.denoiser, rule), x, grid, cond=cond, noise=noise)):
            yield Preview(k + 1, steps, float(grid[k + 1]), decode(stepped.x), decode(stepped.denoised))

    def _finish(self, x: Tensor) -> Tensor:
        """Decoded samples as the data set would hold them."""
        return x.cpu().round().clamp(0, 255).to(torch.uint8) if self.spec.kind == "image" else x.cpu().float()

    def replay(self, recipe: Mapping[str, Any]) -> Samples:
        """Makes samples again from the recipe of a file.

        Raises:
            ModelFolderError: The recipe is that of another model.
        """
        if recipe["model"]["hash"] != self.hash:
            raise ModelFolderError(
                f"the file was made by another model (hash {recipe['model']['hash'][:12]}, this one is {self.hash[:12]}): "
                "give the right one with --model"
            )
        first, n, size, index = recipe["first"], recipe["n"], recipe["batch_size"], recipe.get("index")
        label = recipe["label"]
        keep = {key: recipe[key] for key in ("sampler", "steps", "grid", "guidance", "seed")}
        if index is None:
            return self.sample(
                n, label=label, first=first, batch_size=size, keep_frames=bool(recipe.get("frames")), **keep
            )
        # One sample of a folder: its whole batch is made, since a batch of another size may round otherwise.
        low = (index - first) // size * size
        high = min(low + size, n)
        part = label[low:high] if isinstance(label, list) else label
        batch = self.sample(high - low, label=part, first=first + low, batch_size=size, **keep)
        at = index - first - low
        return replace(batch, tensor=batch.tensor[at : at + 1], recipe=dict(recipe))


def load(path: str | Path) -> Model:
    """The model in a folder; see `Model.load`."""
    return Model.load(path)


def _assemble(values: Mapping[str, Any], weights: Mapping[str, Tensor], name: str) -> Model:
    try:
        blueprint = Blueprint.of(values)
        denoiser = blueprint.build()
        sampling = build(SamplingSettings, values["sampling"], "sampling")
        network = preconditioned(denoiser).network
        assert network is not None
        network.load_state_dict(dict(weights))
    except (UnnoiseError, RuntimeError, KeyError) as error:
        raise ModelFolderError(f"the model at {name} cannot be built: {str(error).splitlines()[0]}") from None
    return Model(blueprint, denoiser, sampling, values.get("trained"), name)
