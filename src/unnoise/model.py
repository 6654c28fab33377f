"""A model: what training makes, what a folder holds, what one samples from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .asked import Asked, Checked, Label, Words, checked, plain_scale
from .denoisers.base import Condition
from .editing.img2img import begun, grid_of, plain_edit
from .errors import BadOption, ModelFolderError
from .guidance.base import Guidance, guidances
from .guidance.classifier_free import ClassifierFreeGuidance
from .options import build
from .placement import precision_of
from .randomness import BlendedNoise, NoiseSource
from .replaying import asked_again
from .request import Blend, find_tuned, plain_blend, plain_grid, plain_label, plain_prompts, plain_regions, whole_number
from .samplers.base import Sampler, samplers
from .samplers.brownian import BrownianNoise
from .samplers.grids import GridSpec, explicit
from .samples import CONDITIONS, Samples, check_recipe
from .sampling import Preview, SamplingSettings, previews, untouched
from .shipped import READY
from .steering import replaced_help
from .stored_model import StoredModel


class Model(StoredModel):
    """A denoiser with all that is needed to sample from it; see `StoredModel` for what it holds and how it is made."""

    def condition(self, label: Label, n: int, prompt: Words = None) -> Condition | None:
        """The condition of n samples.

        Args:
            label: One for all, or n of them; None asks for nothing.
            n: How many.
            prompt: Words, the same.

        Raises:
            BadOption: The model knows no such label or no words, or their number is not n.
        """
        return self.asked({"n": n, "label": plain_label(label), "prompt": prompt}).condition()

    def asked(self, request: Mapping[str, Any]) -> Asked:
        """What `settle` settled, as conditions; the encoder reads prompts here.

        Raises:
            BadOption: Something that this model does not know is asked for.
        """
        return Asked(self._checked(request), self.blueprint.text, self.denoiser)

    def check(self, request: Mapping[str, Any]) -> None:
        """Refuses labels and prompts of what `settle` settled that this model does not know, before the encoder reads any.

        Raises:
            BadOption: There are some.
        """
        self._checked(request)

    def _checked(self, request: Mapping[str, Any]) -> Checked:
        spec = self.spec
        if not spec.class_names and "guidance" in request:  # then the labels are those of the classifier that guides
            spec = replace(spec, class_names=self._helps.labels(guidances.build(request["guidance"])))
        told = (request.get(name) for name in CONDITIONS)
        return checked(spec, self.blueprint.text, self.denoiser, request["n"], *told)

    def previews(
        self,
        n: int = 1,
        *,
        label: Label = None,
        prompt: Words = None,
        negative_prompt: Words = None,
        boxes: Any = None,
        map: Any = None,
        sampler: str | Mapping[str, Any] | Sampler | None = None,
        steps: int | None = None,
        guidance: float | Mapping[str, Any] | Guidance | None = None,
        embedded_guidance: float | None = None,
        grid: GridSpec | None = None,
        seed: int = 0,
        first: int = 0,
        blend: Mapping[str, Any] | Blend | None = None,
        image: Any = None,
        strength: float | None = None,
    ) -> Iterator[Preview]:
        """Samples step by step; arguments and errors as in `sample`, all in one batch.

        Yields:
            Where the samples begin as step 0, then every step.
        """
        request = self.settle(
            n, label=label, prompt=prompt, negative_prompt=negative_prompt, boxes=boxes, map=map, sampler=sampler, steps=steps,
            guidance=guidance, embedded_guidance=embedded_guidance, grid=grid, seed=seed, first=first, blend=blend, image=image,
            strength=strength,
        )  # fmt: skip
        asked, first = self.asked(request), request["first"]
        yield from self._run(request, asked.condition(), asked.negative(), range(first, first + asked.n))

    def sample(
        self,
        n: int = 1,
        *,
        label: Label = None,
        prompt: Words = None,
        negative_prompt: Words = None,
        boxes: Any = None,
        map: Any = None,
        sampler: str | Mapping[str, Any] | Sampler | None = None,
        steps: int | None = None,
        guidance: float | Mapping[str, Any] | Guidance | None = None,
        embedded_guidance: float | None = None,
        grid: GridSpec | None = None,
        seed: int = 0,
        first: int = 0,
        blend: Mapping[str, Any] | Blend | None = None,
        image: Any = None,
        strength: float | None = None,
        batch_size: int | None = None,
        keep_frames: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        """Makes samples. What is not said is as the model's own settings say.

        Args:
            n: How many.
            label: A class by name or number: one for all, or one for each.
            prompt: Words, for all or for each, for models that learned some; `(red:1.3)` counts more, `(red:0.7)` less.
            negative_prompt: Words to push away from, where guidance pushes; the same.
            boxes: What stands where, for models that learned boxes: "cat 0.1 0.2 0.5 0.6; ...", or (name, left, top, right,
                bottom) of each, as shares of the picture; or a list of such texts, one for each sample.
            map: A label map, for models that learned such: a file, a picture, or an array of class numbers; or a list of them.
            sampler: A name, `{name: ..., option: value}`, or a sampler; "tuned" for what `unnoise tune` has found.
            steps: From noise to data, at least 1; with "tuned", the network calls that it was tuned for; as many as there are
                where `grid` gives the times themselves.
            guidance: The scale (1 is the plain conditional model), or a guidance rule.
            embedded_guidance: The scale that a network is told into which guidance was distilled, 1 by default; FLUX.1 dev is
                mostly told 3.5. It takes one call; `guidance` takes two, and both are told it.
            grid: At which times: by name, as {name: ..., option: value}, or the times themselves, also as "1,0.5,0".
            seed: Sample k of a seed is the same in any batch.
            first: Index of the first sample.
            blend: With what other noise that of every sample is mixed: `{seed: ..., share: ..., shift: ...}`, see `Blend`.
            image: What samples begin from instead of noise: a file, a picture, or an array of uint8; turned upright, resized and
                cut to the model's size as pictures of data sets are. Of models of points and arrays, numbers of their own shape,
                or a .npy or .npz. Or a list of these, one for each sample.
            strength: How much of that is made anew: the time in [0, 1] to which it is noised, and from which all `steps` are made;
                0 gives it back as it is, 1 begins as noise does (see `editing.img2img`). 0.6 by default.
            batch_size: Samples at a time; None chooses by their size.
            keep_frames: Whether to keep a preview of every step.
            progress: Told how many steps are made, over all batches, and how many there are.

        Raises:
            BadOption: Something that this model cannot do is asked for.
            UnknownName: There is no such sampler, grid or label.
        """
        request = self.settle(
            n, label=label, prompt=prompt, negative_prompt=negative_prompt, boxes=boxes, map=map, sampler=sampler, steps=steps,
            guidance=guidance, embedded_guidance=embedded_guidance, grid=grid, seed=seed, first=first, blend=blend, image=image,
            strength=strength,
        )  # fmt: skip

        def tell(preview: Preview, batch: int, batches: int) -> None:
            if progress is not None:
                progress(batch * preview.steps + preview.step, batches * preview.steps)

        return self.make(request, batch_size=batch_size, keep_frames=keep_frames, watch=tell)

    def make(
        self,
        request: Mapping[str, Any],
        *,
        batch_size: int | None = None,
        keep_frames: bool = False,
        watch: Callable[[Preview, int, int], None] | None = None,
        through: Callable[[nn.Module], nn.Module] | None = None,
    ) -> Samples:
        """The samples of a request that `settle` settled.

        Args:
            request: What `settle` gave.
            batch_size: As in `sample`.
            keep_frames: As in `sample`.
            watch: Told every step, with where samples begin as step 0 of each batch, the number of the batch, and how many there
                are; what it raises ends the work.
            through: Makes what stands for a network in this work, the model's and one that helps to guide it; see
                `Denoiser.through`.

        Raises:
            BadOption: The request asks for a label or words that the model does not know.
            SamplingDiverged: What came out of a step is no longer a number.
        """
        n, first = request["n"], request["first"]
        size = self.batch_size(n) if batch_size is None else whole_number("batch_size", batch_size, 1)
        request = {**request, "batch_size": size, "frames": keep_frames}
        asked = self.asked(request)
        ends: list[Tensor] = []
        frames: list[list[Tensor]] = []
        num_batches = math.ceil(n / size)
        for batch in range(num_batches):
            low, high = batch * size, min((batch + 1) * size, n)
            told = asked.condition(low, high), asked.negative(low, high)
            kept = []
            for preview in self._run(request, *told, range(first + low, first + high), through):
                last = preview
                if keep_frames:
                    kept.append(self.finish(preview.x))
                if watch is not None:
                    watch(preview, batch, num_batches)
            ends.append(self.finish(last.x))
            frames.append(kept)
        whole = tuple(torch.cat(parts) for parts in zip(*frames, strict=True)) if keep_frames else ()
        return Samples(torch.cat(ends), self.spec, request, whole, tuple(asked.notes))

    def batch_size(self, n: int) -> int:
        """How many of n samples are made at a time where nothing else is said."""
        # On a processor large batches leave its caches, which costs twice the time and gigabytes of memory.
        values = 2**16 if next(self.denoiser.parameters()).device.type == "cpu" else 2**21
        return max(1, min(n, values // math.prod(self.spec.shape)))

    def settle(
        self,
        n: int = 1,
        *,
        label: Label = None,
        prompt: Words = None,
        negative_prompt: Words = None,
        boxes: Any = None,
        map: Any = None,
        sampler: str | Mapping[str, Any] | Sampler | None = None,
        steps: int | None = None,
        guidance: float | Mapping[str, Any] | Guidance | None = None,
        embedded_guidance: float | None = None,
        grid: GridSpec | None = None,
        seed: int = 0,
        first: int = 0,
        blend: Mapping[str, Any] | Blend | None = None,
        image: Any = None,
        strength: float | None = None,
    ) -> dict[str, Any]:
        """What is asked for, checked and complete, as plain values: the recipe of the samples that `sample` would make.

        Arguments and errors as in `sample`.
        """
        from . import __version__

        n, first = whole_number("n", n, 1), whole_number("first", first, 0)
        if first + n > 2**63:
            raise BadOption(f"first: the last sample must have a number below 2^63, got {first} for the first")
        own = self.sampling
        if sampler == "tuned" or (isinstance(sampler, Mapping) and sampler.get("name") == "tuned"):
            if image is not None:
                raise BadOption("sampler tuned: it has times for the whole way from noise: edit with another sampler")
            sampler, steps, grid = find_tuned(self.tuned, self.hash, self.path, sampler, steps, grid)
        if isinstance(guidance, Real) or guidance is None:
            scale = own.guidance if guidance is None else float(guidance)
            guidance = build(ClassifierFreeGuidance, {"scale": scale}, "guidance")
        rule, stepper = (
            guidances.build(guidance, "guidance"),
            samplers.build(own.sampler if sampler is None else sampler, "sampler"),
        )
        times = plain_grid(own.grid if grid is None else grid)
        known = len(explicit(times)) - 1 if isinstance(times, list) else own.steps
        count = known if steps is None else whole_number("steps", steps, 1)
        build(SamplingSettings, {"steps": count})
        edit = plain_edit(image, strength, times, self.spec, n)
        stepper.check(self.denoiser, self._grid({"grid": times, "steps": count, **edit}))
        return {
            "unnoise": __version__,
            "model": {"path": self.path, "hash": self.hash, **({"loras": self.loras} if self.loras else {})},
            "n": n,
            "first": first,
            "label": plain_label(label),
            **plain_prompts(prompt, negative_prompt),
            **plain_regions(boxes, map),
            **plain_scale(embedded_guidance),
            **edit,
            "sampler": samplers.describe(stepper),
            "steps": count,
            "grid": times,
            "guidance": guidances.describe(self._helps.pinned(rule)),
            "seed": whole_number("seed", seed),
            **plain_blend(blend, first),
            **({"precision": "bf16"} if precision_of(self.denoiser) == "bf16" else {}),
        }

    def _run(
        self,
        request: Mapping[str, Any],
        cond: Condition | None,
        negative: Condition | None,
        indices: range,
        through: Callable[[nn.Module], nn.Module] | None = None,
    ) -> Iterator[Preview]:
        codec, x_0 = self.blueprint.codec, None
        given = begun(request, indices, self.spec)
        if given is not None:
            different, rows = given
            if request["strength"] == 0:
                return iter([untouched(different[rows])])
            x_0 = codec.encode(different)[rows]
        rule = self._helps.armed(guidances.build(request["guidance"]))
        denoiser = self.denoiser
        if through is not None:
            denoiser, rule = denoiser.through(through), rule.changing(lambda held: held.through(through))
        shape, sampler = codec.shape(self.spec.shape), samplers.build(request["sampler"])
        grid, noise = self._grid(request), self.noise(request, indices)
        return previews(denoiser, rule, sampler, grid, noise, shape, codec.decode, cond, negative, x_0)

    def noise(self, request: Mapping[str, Any], indices: Sequence[int]) -> NoiseSource:
        """Where the noise of some samples comes from.

        Args:
            request: What `settle` settled.
            indices: Of the samples.
        """
        own = BrownianNoise(request["seed"], indices, self.denoiser.schedule)
        if request.get("blend") is None:
            return own
        blend = build(Blend, request["blend"], "blend")
        others = [index + blend.shift for index in indices]
        return BlendedNoise(own, BrownianNoise(blend.seed, others, self.denoiser.schedule), blend.share)

    def _grid(self, request: Mapping[str, Any]) -> Tensor:
        return grid_of(request, self.denoiser.schedule, self.denoiser.sigma_data)

    def finish(self, x: Tensor) -> Tensor:
        """Decoded samples as the data set would hold them: images of uint8 in [0, 255], anything else of float32."""
        return x.cpu().round().clamp(0, 255).to(torch.uint8) if self.spec.kind == "image" else x.cpu().float()

    def replay(self, recipe: Mapping[str, Any], guide: str | None = None) -> Samples:
        """Makes samples again from the recipe of a file.

        Args:
            recipe: Of the file.
            guide: Where the model stands now that guided this one; as the file says by default.

        Returns:
            The samples, with this very recipe, wherever the models stand now.

        Raises:
            ModelFolderError: The recipe is that of another model.
            DataError: The recipe is not whole.
            BadOption: The recipe asks for something that cannot be.
        """
        check_recipe(recipe)
        if recipe["model"]["hash"] != self.hash:
            raise ModelFolderError(
                f"the file was made by another model (hash {str(recipe['model']['hash'])[:12]}, this one is "
                f"{self.hash[:12]}): give the right one with --model"
            )
        if recipe.get("precision", "fp32") != precision_of(self.denoiser):
            return self.on(next(self.denoiser.parameters()).device, recipe.get("precision", "fp32")).replay(
                recipe, guide
            )
        asked, at = asked_again(recipe)
        if guide is not None:
            asked["guidance"] = replaced_help(asked["guidance"], guide)
        made = self.sample(**asked)
        return replace(made, tensor=made.tensor if at is None else made.tensor[at : at + 1], recipe=dict(recipe))


def load(path: str | Path = READY) -> Model:
    """The model in a folder, or the one that comes with unnoise; see `Model.load`."""
    return Model.load(path)
