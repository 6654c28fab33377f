"""The workers of a Ray cluster: of one that runs already, or of one that lives as long as the work on this machine."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from ...errors import BadOption, MissingExtra
from ...options import option
from .base import Job, Keep, Place, Progress, places
from .handing_out import Died, Workers, hand_out

ROOM = 2**28
"""Bytes of the object store beside those of the job: for parts that are done and not yet kept; Ray puts more on disk."""


@places.register("ray")
@dataclass(frozen=True)
class RayPlace(Place):
    """By workers of Ray: one for each GPU, or one for each processor where there is none.

    The job, with the model in it, is put into the cluster's object store once, so that the machines need no disk in common;
    they need the same version of unnoise. What is done comes back to this process, which keeps it.
    """

    elsewhere: ClassVar[bool] = True

    workers: int = option(0, help="how many; 0 is one a GPU, else one a processor", low=0, high=100_000)
    address: str = option(
        "", help="of a running cluster, host:port or ray://host:port; $RAY_ADDRESS, else one made here"
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", help="what they compute on; auto takes GPUs where there are any"
    )
    patience: float = option(600.0, help="seconds until the first worker must be ready", low=1.0)

    def run(
        self,
        job: Job,
        parts: Sequence[range],
        keep: Keep,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """See `Place.run`.

        Raises:
            BadOption: There is no cluster at the address, or GPUs are asked for and it has none.
        """
        if not parts:
            return True
        ray = import_ray()
        packed: bytes = ray.cloudpickle.dumps(job.on("cpu"))
        with cluster(ray, self.address or os.environ.get("RAY_ADDRESS", ""), len(packed)):
            return hand_out(_RayWorkers(ray, packed, self), parts, keep, progress, stop, self.patience)


def import_ray(purpose: str = "--on ray") -> Any:
    """Ray itself, which tells nobody that it is used.

    Args:
        purpose: What needs it.

    Raises:
        MissingExtra: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtra(purpose, "ray", "scale") from None
    return ray


@contextmanager
def cluster(ray: Any, address: str, size: int) -> Iterator[None]:
    """A connection to a cluster, which is left as it was; where there is no address, a cluster for as long as this lasts.

    Args:
        ray: The module.
        address: Of a running cluster; empty for one of this machine's own. What this process is connected to already stays.
        size: Bytes of the job, for which a cluster of our own makes room.

    Raises:
        BadOption: There is no cluster at the address, or it is of another version.
    """
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    folder = None
    if not address:
        folder = tempfile.mkdtemp(prefix="unnoise-ray-")
        # `local`, since Ray otherwise looks for a cluster of somebody else on this machine.
        quiet |= {"include_dashboard": False, "object_store_memory": ROOM + 2 * size, "_temp_dir": folder}
    # Ray puts a handler of its own in the place of this process's, which would end it without a word.
    own = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
    try:
        _connect(ray, address or "local", quiet)
        if own is not None:
            signal.signal(signal.SIGTERM, own)
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(ray: Any, address: str, options: dict[str, Any]) -> None:
    wrong = f"address: there is no Ray cluster to work with at {address!r}"
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        if place.hostname and place.port:  # Ray itself takes minutes to find out that nobody is there
            socket.create_connection((place.hostname, place.port), timeout=20).close()
        ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        hint = "" if os.environ.get("RAY_AUTH_MODE") else "; if it asks for a token, set RAY_AUTH_MODE=token"
        raise BadOption(f"{wrong} ({lines[0]}){hint if isinstance(error, ConnectionError) else ''}") from None


class _RayWorkers(Workers):
    """Actors that hold the job."""

    def __init__(self, ray: Any, packed: bytes, place: RayPlace) -> None:
        there = ray.cluster_resources()
        cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
        if place.device == "cuda" and not gpus:
            raise BadOption("device: the Ray cluster has no GPU: take auto or cpu")
        on_gpus = gpus > 0 and place.device != "cpu"
        self.most = place.workers or (gpus if on_gpus else max(1, cpus))
        self.wanted = (
            f"the cluster has {cpus} processors and {gpus} GPUs, and others may hold them; a worker takes "
            f"{'a GPU and ' if on_gpus else ''}half a processor"
        )
        self._ray, self._job, self._device = ray, ray.put(packed), "cuda" if on_gpus else "cpu"
        # Half a processor: with as many whole ones as there are, Ray waits for ever for one more (ray-project/ray#44687).
        self._actor = ray.remote(_Worker).options(num_cpus=0.5, num_gpus=int(on_gpus))

    def hire(self) -> tuple[Any, Hashable]:
        """See `Workers.hire`."""
        worker = self._actor.remote(self._job, self._device)
        return worker, worker.ready.remote()

    def give(self, worker: Any, part: range) -> Hashable:
        """See `Workers.give`."""
        ticket: Hashable = worker.do.remote(part)
        return ticket

    def wait(self, tickets: Sequence[Hashable], seconds: float) -> Sequence[Hashable]:
        """See `Workers.wait`."""
        done: list[Hashable] = self._ray.wait(list(tickets), num_returns=1, timeout=seconds)[0]
        return done

    def take(self, ticket: Hashable) -> Any:
        """See `Workers.take`."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(ticket)
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except errors.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise Died(lines[-1] if lines else type(error).__name__) from None


class _Worker:
    """What runs in a worker's process.

    Args:
        packed: The job, pickled.
        device: What it computes on.
    """

    def __init__(self, packed: bytes, device: str) -> None:
        import torch

        from ...precision import keep_freed_memory

        torch.set_num_threads(1)  # there are as many workers as processors
        keep_freed_memory()
        self.job: Job = pickle.loads(packed).on(device)

    def ready(self) -> None:
        """Returns once the job is there."""

    def do(self, part: range) -> Any:
        """Does a part."""
        return self.job(part)
