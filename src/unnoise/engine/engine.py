"""The engine: accepts requests, and has those of a model made by turns, with network calls that they share."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import Any

from torch import nn

from ..errors import BadOption, Busy, Cancelled, NoSuchJob, TookTooLong, UnnoiseError
from ..guidance.base import guidances
from ..guidance.helped import Helped
from ..samples import Samples
from ..sampling import Preview
from .closing import Closing
from .job import Job, State, StepKeeper, View
from .request import Request
from .results import Results, new_number
from .settings import EngineSettings
from .sharing import Detour, Tally, Turns
from .shelf import Shelf
from .waiting import Waiting

LOG = logging.getLogger("unnoise.engine")
RECENT, RECENT_IN_MEMORY = 512, 16
"""How many requests that have ended are still known by more than their files, and of how many the samples stay in memory."""


class Engine(Closing):
    """Runs all requests.

    Args:
        shelf: The models that they may name.
        results: Where what they make is kept.
        settings: How much is taken on.
    """

    def __init__(self, shelf: Shelf, results: Results, settings: EngineSettings | None = None) -> None:
        self.shelf, self.results = shelf, results
        self.settings = EngineSettings() if settings is None else settings
        self.counts = {"done": 0, "failed": 0, "cancelled": 0, "refused": 0, "samples": 0, "steps": 0, "calls": 0}
        """What has been done since the start."""
        self._lock = threading.Condition()
        self._queue: list[tuple[int, int, Job]] = []
        self._order = itertools.count()
        self._jobs: dict[str, Job] = {}
        self._ended: deque[str] = deque()
        self._at_work: set[str] = set()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._tally = Tally()
        self._turns: dict[str, Turns] = {}
        self._stopped = threading.Event()
        self._clock = threading.Thread(target=self._watch_the_time, name="unnoise-clock", daemon=True)
        self._clock.start()
        self._notes = Waiting(results.folder / "waiting")
        self.take_up()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Asking

    def submit(self, request: Request, prepare: Callable[[Job], object] | None = None) -> Job:
        """Accepts a request.

        Args:
            request: What is asked for.
            prepare: Called with it before it can begin, so that whoever watches misses nothing.

        Returns:
            The request under way.

        Raises:
            UnknownName: There is no such model, sampler, grid or guidance rule.
            BadOption: Something that the model cannot do is asked for, or more than the settings allow.
            Busy: The queue is full, or its owner has enough in it, or the engine is closing.
            ModelFolderError: The model cannot be loaded.
        """
        self._check_room(request.owner)
        recipe = self._settled(request)
        if "image" in recipe:  # of the model's size now, which is what is kept of it, on disk and in memory
            request = replace(request, image=recipe["image"])
        job = self._new(new_number(), request, recipe)
        if prepare is not None:
            prepare(job)
        if request.durable:
            self._notes.note(job.id, request)
        try:
            self._enqueue(job)
        except Busy:
            self._notes.forget(job.id)
            raise
        return job

    def take_up(self) -> None:
        """Accepts again what a process that is no more has left; at the start this is done anyway."""
        made = set(self.results.numbers())
        for number, request in self._notes.left():
            if number in made:  # it ended right after it had kept what it made
                self._notes.forget(number)
                continue
            self._enqueue(self._new(number, request, {}), known=True)

    def _new(self, number: str, request: Request, recipe: Mapping[str, Any]) -> Job:
        job = Job(number, request, recipe, self.results, min(request.timeout or math.inf, self.settings.timeout))
        job.position = lambda: self._position(job)
        job.at_end = lambda state: self._note_end(job, state)
        return job

    def _enqueue(self, job: Job, known: bool = False) -> None:
        with self._lock:
            if not known:
                self._check_room(job.request.owner)
            self._jobs[job.id] = job
            heapq.heappush(self._queue, (-job.request.priority, next(self._order), job))
            if len(self._queue) > self._idle and len(self._threads) < self.settings.active:
                name = f"unnoise-request-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
                self._threads[-1].start()
            self._lock.notify()

    def _check_room(self, owner: str) -> None:
        settings = self.settings
        with self._lock:
            if self.closing:
                raise Busy("the server is shutting down: ask again when it is back")
            open_jobs = [job for job in self._jobs.values() if not job.ended]
            waiting = len(open_jobs) - len(self._at_work)
            if waiting > settings.waiting or (waiting == settings.waiting and len(self._at_work) >= settings.active):
                self.counts["refused"] += 1
                raise Busy(f"the queue is full, with {waiting} requests waiting: ask again later")
            if sum(job.request.owner == owner for job in open_jobs) >= settings.each_owner:
                self.counts["refused"] += 1
                raise Busy(f"you have {settings.each_owner} requests at work or waiting, which is the limit: await one")

    def _settled(self, request: Request) -> dict[str, Any]:
        """The request, checked and complete."""
        asked, settings = request.asked(), self.settings
        for name, most in (("n", settings.most_samples), ("steps", settings.most_steps)):
            if isinstance(asked[name], int) and asked[name] > most:
                raise BadOption(f"{name}: must be at most {most:,}, got {asked[name]:,}")
        asked["guidance"] = self._named_on_the_shelf(asked["guidance"])
        with self.shelf.borrow(request.model) as model:
            size = asked["n"] * math.prod(model.spec.shape) if isinstance(asked["n"], int) else 0
            if size > settings.most_values:
                most = settings.most_values // math.prod(model.spec.shape)
                raise BadOption(f"n: samples of this size can be made {most:,} at a time, got {asked['n']:,}")
            recipe = model.settle(**asked)
            if recipe["steps"] > settings.most_steps:
                raise BadOption(f"steps: must be at most {settings.most_steps:,}, got {recipe['steps']:,}")
            model.check(recipe)
            kept = 2 * size * (recipe["steps"] + 1) * (1 if model.spec.kind == "image" else 4)
            if request.keep_steps and kept > settings.most_kept:
                raise BadOption(
                    f"keep_steps: every step of this would take {kept / 1e6:,.0f} MB, and {settings.most_kept / 1e6:,.0f} are "
                    "allowed: ask for fewer samples or steps"
                )
        return recipe

    def _named_on_the_shelf(self, guidance: Any) -> Any:
        """A guidance rule with what helps it by its place: requests name models of the shelf, and no folders."""
        if not isinstance(guidance, Mapping) or guidance.get("name") not in guidances:
            return guidance
        kind = guidances[str(guidance["name"])]
        if not issubclass(kind, Helped) or guidance.get(kind.helper) in (None, ""):
            return guidance
        return {**guidance, kind.helper: self.shelf.place(guidance[kind.helper])}

    def job(self, number: str) -> Job:
        """A request that waits, is worked on, or has ended not long ago.

        Raises:
            NoSuchJob: There is none of this number; what it made may still stand among the results.
        """
        found = self._jobs.get(number)
        if found is None:
            raise NoSuchJob(f"no request has the number {number[:60]!r}, or it ended long ago")
        return found

    def jobs(self) -> list[Job]:
        """All that wait, are worked on, or have ended not long ago, the newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)

    def waiting(self) -> int:
        """How many wait."""
        with self._lock:
            return sum(job.state == "waiting" for _, _, job in self._queue)

    def active(self) -> int:
        """How many are worked on."""
        return len(self._at_work)

    def shared(self) -> tuple[int, int]:
        """Network calls made since the start, and how many were asked for."""
        return self._tally.calls, self._tally.asked

    def _position(self, job: Job) -> int:
        with self._lock:
            ahead = sorted(entry for entry in self._queue if entry[2].state == "waiting")
            return next((k + 1 for k, entry in enumerate(ahead) if entry[2] is job), 0)

    # Working

    def _serve(self) -> None:
        """What each thread does: one request after another."""
        while True:
            with self._lock:
                self._idle += 1
                self._lock.wait_for(lambda: self._queue or self._stopped.is_set())
                self._idle -= 1
                if not self._queue:
                    return
                job = heapq.heappop(self._queue)[2]
                if not job.begin():
                    continue
                self._at_work.add(job.id)
            self._work(job)

    def _work(self, job: Job) -> None:
        """Makes what is asked for; whatever goes wrong ends this request alone."""
        try:
            job.tell_begun()
            job.check()
            samples, keeper = self._make(job)
            steps = None if keeper is None else keeper.steps()
            ended = {**job.facts(), "state": "done", "eta": None}
            self.results.keep(job.id, samples, steps, ended, job.request.durable)
            job.end("done", samples=samples)
        except Cancelled as error:
            job.end("cancelled", error)
        except (UnnoiseError, OSError) as error:
            job.end("failed", error)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                self._fail(job, error)
            else:
                job.end("failed", Busy("the memory does not suffice: ask for fewer samples at a time, with batch_size"))
        except BaseException as error:
            self._fail(job, error)

    def _fail(self, job: Job, error: BaseException) -> None:
        LOG.error("request %s has failed", job.id, exc_info=error)
        job.end("failed", error)

    def _make(self, job: Job) -> tuple[Samples, StepKeeper | None]:
        request = job.request
        with self.shelf.borrow(request.model) as model:
            if not job.recipe or model.hash != job.recipe["model"]["hash"]:  # taken up again, or trained on meanwhile
                job.recipe = model.settle(**{**request.asked(), "guidance": self._named_on_the_shelf(request.guidance)})
            detours: dict[nn.Module, Detour] = {}
            turns, most_rows = self._turns_of(request.model), model.batch_size(2**31)

            def through(network: nn.Module) -> nn.Module:
                if network not in detours:
                    detours[network] = Detour(network, turns, most_rows, request.strict or self.settings.strict)
                return detours[network]

            view = View(model)
            keeper = StepKeeper(view) if request.keep_steps else None

            def watch(preview: Preview, batch: int, batches: int) -> None:
                if keeper is not None:
                    keeper(preview, batch)
                calls = sum(detour.calls for detour in detours.values())
                job.tell(preview, batch, batches, view, calls)

            def make() -> Samples:
                began = perf_counter()
                made = model.make(job.recipe, batch_size=request.batch_size, watch=watch, through=through)
                job.bare_seconds = perf_counter() - began
                return made

            return turns.run(make), keeper

    def _turns_of(self, model: str) -> Turns:
        with self._lock:
            if model not in self._turns:
                self._turns[model] = Turns(f"unnoise-turns-{len(self._turns)}", self._tally)
            return self._turns[model]

    def _note_end(self, job: Job, state: State) -> None:
        with self._lock:
            self._at_work.discard(job.id)
            self.counts[state] += 1
            self.counts["steps"] += job.step
            self.counts["calls"] += job.calls
            self.counts["samples"] += job.recipe["n"] if state == "done" else 0
            self._ended.append(job.id)
            if len(self._ended) > RECENT_IN_MEMORY:
                old = self._jobs.get(self._ended[-1 - RECENT_IN_MEMORY])
                if old is not None:
                    old.forget()
            while len(self._ended) > RECENT:
                self._jobs.pop(self._ended.popleft(), None)
        if job.request.durable and not (self.closing and state == "cancelled"):
            try:
                self._notes.forget(job.id)
            except OSError as error:  # the next start finds that it was made, or makes it again
                LOG.error("the note of request %s cannot be deleted: %s", job.id, error)

    def _watch_the_time(self) -> None:
        """Gives up, now and then, what has waited for too long."""
        while not self._stopped.wait(0.25):
            with self._lock:
                late = [job for _, _, job in self._queue if job.state == "waiting" and perf_counter() > job.deadline]
                done = [entry for entry in self._queue if entry[2].ended]
                if done:  # cancelled ones must not fill the queue
                    self._queue = [entry for entry in self._queue if not entry[2].ended]
                    heapq.heapify(self._queue)
            for job in late:
                job.end(
                    "failed",
                    TookTooLong(f"it waited for {job.timeout:g} seconds, and others were before it: ask again"),
                )

    # Ending

    def hurry(self) -> None:
        """Cancels what is under way; what is durable is made after the next start."""
        super().hurry()
        for job in self.jobs():
            job.cancel()

    def close(self, grace: float = 30.0) -> None:
        """Accepts nothing more, finishes what is under way, and ends the threads.

        Args:
            grace: Seconds for that, from when nothing more was accepted; what is not done then is cancelled, and made after the
                next start where it is durable.
        """
        with self._lock:
            self.closing = True
        for job in self.jobs():
            if not job.ended:
                job.wait(self.left(grace))
        for job in self.jobs():
            job.cancel()
        self._stopped.set()
        with self._lock:
            self._lock.notify_all()
        for thread in [*self._threads, self._clock]:
            thread.join(1.0 if self.hurried else 10.0)
        for turns in self._turns.values():
            turns.close(1.0 if self.hurried else 10.0)
        self._notes.close()
