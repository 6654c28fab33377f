"""One request under way: what is known of it, how to watch it, and how to end it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter, time
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import Cancelled, TookTooLong
from ..model import Model
from ..process.base import scales
from ..samples import Samples
from ..sampling import Preview
from .request import Request
from .results import Results, Steps

State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDS: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Look:
    """A step of a batch, decoded.

    Args:
        step: How many steps of the batch are made.
        steps: How many it has.
        t: Where the samples are.
        noisy: Images as uint8 of shape (n, C, H, W), in the range that can be seen, see `View`; anything else as float32.
        denoised: What they are estimated to be without noise, same shape.
    """

    step: int
    steps: int
    t: float
    noisy: Tensor
    denoised: Tensor


class View:
    """Steps of a model as people look at them.

    Args:
        model: Whose steps they are.
    """

    def __init__(self, model: Model) -> None:
        self.finish = model.finish
        self._image, self._schedule = model.spec.kind == "image", model.denoiser.schedule

    def scale(self, preview: Preview) -> float:
        """What noisy images are divided by, lest they are black and white: the root of alpha^2 + sigma^2 where that is above 1."""
        spread = math.hypot(*scales(self._schedule, preview.t)) if self._image else 1.0
        return spread if spread > 1.001 else 1.0  # a schedule that preserves variance is exact only to rounding

    def noisy(self, preview: Preview) -> Tensor:
        """The noisy samples, in the units of the data."""
        scale = self.scale(preview)
        return self.finish(preview.x if scale == 1 else preview.decode(preview.z / scale))

    def denoised(self, preview: Preview) -> Tensor:
        """The estimates of the clean ones, in the units of the data."""
        return self.finish(preview.denoised)


class Job:
    """A request that an engine has accepted.

    Args:
        number: Which; a text that stands in paths and addresses.
        request: What is asked for.
        recipe: The same, settled.
        results: Where it will be kept.
        timeout: Seconds from now until it is given up.
    """

    def __init__(
        self, number: str, request: Request, recipe: Mapping[str, Any], results: Results, timeout: float
    ) -> None:
        self.id, self.request, self.recipe, self.results = number, request, dict(recipe), results
        self.state: State = "waiting"
        self.error: BaseException | None = None
        """Why it did not end well."""
        self.version = 0
        """Grows with everything that happens."""
        self.step = self.steps = self.calls = 0
        self.made_at, self.deadline = time(), perf_counter() + timeout
        self.timeout = timeout
        self.position: Callable[[], int] = lambda: 0
        self.began: float | None = None
        self.seconds = 0.0
        self.bare_seconds = 0.0
        """Of these, those in which the samples were made, without waiting for the model, and without keeping them."""
        self._accepted = perf_counter()
        self.at_end: Callable[[State], None] = lambda state: None
        self._unwanted = self._ending = False
        self._changed = threading.Condition()
        self._watchers: dict[object, Callable[[], None]] = {}
        self._newest: tuple[Preview, View] | None = None
        self._samples: Samples | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDS

    def facts(self) -> dict[str, Any]:
        """All that is known of it, as JSON can hold it."""
        running = None if self.began is None or self.ended else perf_counter() - self.began
        return {
            "id": self.id,
            "model": self.request.model,
            "state": self.state,
            "step": self.step,
            "steps": self.steps,
            "calls": self.calls,
            "position": self.position() if self.state == "waiting" else 0,
            "eta": running / self.step * (self.steps - self.step) if running is not None and self.step else None,
            "error": None if self.error is None else " ".join(str(self.error).split()),
            "made": datetime.fromtimestamp(self.made_at, UTC).isoformat(timespec="milliseconds"),
            "seconds": round(self.seconds if self.ended else perf_counter() - self._accepted, 6),
            "making": round(self.bare_seconds, 6),
            "version": self.version,
            "owner": self.request.owner,
            "strict": self.request.strict,
            "keep_steps": self.request.keep_steps,
            "listed": self.request.listed,
            "recipe": self.recipe,
        }

    def cancel(self) -> bool:
        """Ends it: at once where it waits, after the network call that is under way where it runs.

        Returns:
            Whether there was anything to end.
        """
        with self._changed:
            if self.ended:
                return False
            self._unwanted = True
            waits = self.state == "waiting"
        if waits:
            self.end("cancelled", Cancelled("it was cancelled before it began"))
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end.

        Args:
            timeout: Seconds; None for as long as it takes.

        Returns:
            Whether it has ended.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self.ended, timeout)

    def changed(self, version: int, timeout: float | None = None) -> int:
        """Waits until something has happened since a version, and tells the version of now."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != version, timeout)
            return self.version

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Has something called, in the thread of the work, after everything that happens; it must return at once and not fail.

        Returns:
            Call this for it to stop.
        """
        key = object()
        with self._changed:
            self._watchers[key] = callback

        def stop() -> None:
            with self._changed:
                self._watchers.pop(key, None)

        return stop

    def samples(self) -> Samples:
        """What it made.

        Raises:
            UnnoiseError: It did not end well; this says why.
            NoSuchJob: What it made was deleted.
        """
        if self.error is not None:
            raise self.error
        made = self._samples
        return made if made is not None else self.results.samples(self.id)

    def look(self) -> Look | None:
        """The newest step, decoded now, which only those pay for who look; None where there is none, or it has ended."""
        glance = self.glance()
        return None if glance is None else glance()

    def glance(self) -> Callable[[], Look] | None:
        """What `look` would give, to be decoded later; for those who watch and must return at once."""
        newest = self._newest
        if newest is None:
            return None
        preview, view = newest

        @torch.no_grad()
        def decode() -> Look:
            return Look(preview.step, preview.steps, preview.t, view.noisy(preview), view.denoised(preview))

        return decode

    # What follows is for the engine.

    def check(self) -> None:
        """Ends the work from within where nobody wants it any more, or its time is over.

        Raises:
            Cancelled: It was cancelled.
            TookTooLong: Its time is over.
        """
        if self._unwanted:
            raise Cancelled(f"it was cancelled after {self.step} of {self.steps or '?'} steps")
        if perf_counter() > self.deadline:
            raise TookTooLong(
                f"it was not done within {self.timeout:g} seconds ({self.step} of {self.steps or '?'} steps were): "
                "ask for fewer samples or steps, or for more time"
            )

    def begin(self) -> bool:
        """Whether it is to be worked on, which it is from now on; not if it has ended meanwhile.

        Nobody is told of it yet: the engine calls this under its lock, and `tell_begun` without it.
        """
        with self._changed:
            if self.state != "waiting" or self._ending:
                return False
            self.state, self.began = "running", perf_counter()
        return True

    def tell_begun(self) -> None:
        """Tells whoever watches that it has begun."""
        self._tell()

    def tell(self, preview: Preview, batch: int, batches: int, view: View, calls: int) -> None:
        """Notes a step; see `Model.make`.

        Raises:
            Cancelled: It was cancelled.
            TookTooLong: Its time is over.
        """
        self.step, self.steps = batch * preview.steps + preview.step, batches * preview.steps
        self.calls, self._newest = calls, (preview, view)
        self.check()
        self._tell()

    def end(self, state: State, error: BaseException | None = None, samples: Samples | None = None) -> None:
        """Notes the end; the first one counts."""
        with self._changed:
            if self._ending:
                return
            self._ending = True
        if error is not None:
            error.__traceback__ = None  # its frames hold the samples that were under way
        self.at_end(state)  # first, so that whoever sees the end finds all in order
        with self._changed:
            self.seconds = perf_counter() - self._accepted
            self.state, self.error, self._samples, self._newest = state, error, samples, None
        self._tell()

    def forget(self) -> None:
        """Frees the memory of the samples, which stand on disk."""
        self._samples = None

    def _tell(self) -> None:
        with self._changed:
            self.version += 1
            watchers = list(self._watchers.values())
            self._changed.notify_all()
        for callback in watchers:
            callback()


class StepKeeper:
    """Collects every step of a request, for those who want to look back.

    Args:
        view: How they are looked at.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._t: list[tuple[float, float]] = []
        self._batches: list[tuple[list[Tensor], list[Tensor]]] = []

    def __call__(self, preview: Preview, batch: int) -> None:
        """Keeps a step of a batch."""
        if batch == len(self._batches):
            self._batches.append(([], []))
        if batch == 0:
            self._t.append((preview.t, self._view.scale(preview)))
        noisy, denoised = self._batches[batch]
        noisy.append(self._view.noisy(preview))
        denoised.append(self._view.denoised(preview))

    def steps(self) -> Steps:
        """All of them."""
        noisy, denoised = (torch.cat([torch.stack(batch[side]) for batch in self._batches], 1) for side in (0, 1))
        t, scale = torch.tensor(self._t, dtype=torch.float64).unbind(1)
        return Steps(t, scale, noisy, denoised)
