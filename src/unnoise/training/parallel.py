"""Several processes that train one model: who they are, and what they tell each other."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import BadOption

STOP_EVERY = 10
"""Steps between the moments at which several processes agree whether to stop; asking costs a message to all."""

TO_MEET = timedelta(minutes=2)
"""How long processes wait for each other when they begin."""

TO_BE_HEARD = timedelta(seconds=5)
"""How long a process that ends waits for torchrun to hear it."""

PATIENCE = timedelta(hours=6)
"""How long processes wait for one of them, as when the first one draws or measures samples; torchrun sees those that ended."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them. Alone, all of its messages cost nothing.

    Args:
        rank: Which one this is.
        count: How many there are.
        local_rank: Which one this is on its machine.
        local_count: How many there are on its machine, which share its memory.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks to a person."""
        return self.rank == 0

    def share(self, size: int) -> tuple[int, int]:
        """The first and one past the last of this process's part of a batch.

        Raises:
            BadOption: There are more processes than samples.
        """
        if size < self.count:
            raise BadOption(
                f"training.batch_size: {size} samples cannot be shared by {self.count} processes: start at most {size}"
            )
        return size * self.rank // self.count, size * (self.rank + 1) // self.count

    def shares(self, size: int) -> list[int]:
        """How many samples of a batch each process has; they differ by one at most."""
        return [size * (rank + 1) // self.count - size * rank // self.count for rank in range(self.count)]

    def add(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over all processes, in place."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def send(self, tensor: Tensor) -> Tensor:
        """Gives all processes what the first one has, in place."""
        if self.count > 1:
            torch.distributed.broadcast(tensor, 0)
        return tensor

    def tell(self, value: object) -> object:
        """What the first process says, in all of them."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, 0)
        return box[0]

    def hear(self, value: Any) -> list[Any]:
        """What each process says, by rank, in all of them."""
        if self.count == 1:
            return [value]
        said: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(said, value)
        return said

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is true in one of them at least."""
        if self.count == 1:
            return flag
        return bool(self.add(torch.tensor(float(flag), device=device)) > 0)

    def wait(self) -> None:
        """Returns when all have come here."""
        if self.count > 1:
            torch.distributed.barrier()


ALONE = Processes()


def told_by_torchrun() -> Processes:
    """The processes that torchrun started, by its environment variables; one alone without them."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2:
        return ALONE
    here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Processes(int(os.environ["RANK"]), count, *here)


def first_to_say(line: str) -> bool:
    """Whether none of the processes that torchrun started has said a line yet: what all of them know is told to a person once.

    An error that one process alone knows is told by that one, whichever it is. It goes by a store that torchrun itself keeps, which
    answers whatever has become of the other processes; without torchrun, each speaks for itself.
    """
    if told_by_torchrun().count < 2 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(*place, is_master=False, timeout=TO_BE_HEARD)
        return store.add(f"{_life()}/said/{hashlib.sha256(line.encode()).hexdigest()}", 1) == 1
    except RuntimeError:  # torchrun is gone: better twice than never
        return True


def _life() -> str:
    """Which start of the processes by torchrun this is."""
    names = "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "WORLD_SIZE"
    return "/".join(os.environ.get(name, "") for name in names)


def _meet(device: torch.device) -> None:
    """Joins the other processes; one that does not come in time is an error, which torchrun answers by starting all again."""
    from torch.distributed.distributed_c10d import PrefixStore, _set_pg_timeout
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://", timeout=TO_MEET))
    # Processes that torchrun starts again find what those before them said in the store, and would call the dead.
    own = PrefixStore(_life(), store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=TO_MEET, store=own, rank=rank, world_size=count)
    _set_pg_timeout(PATIENCE)


@contextmanager
def connected(device: torch.device) -> Iterator[Processes]:
    """Within it the processes that torchrun started can talk; alone, nothing is done.

    Args:
        device: Of this process; decides how they talk.

    Yields:
        The processes.
    """
    processes = told_by_torchrun()
    begun = processes.count > 1 and not torch.distributed.is_initialized()
    if begun:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        _meet(device)
    try:
        yield processes
        if begun:
            processes.wait()  # so that none is gone while another still hears what it said last
    except SystemExit:  # a run that was stopped, which all agreed about
        if begun:
            processes.wait()
        raise
    finally:
        if begun:
            torch.distributed.destroy_process_group()


def leave(code: int = 0) -> NoReturn:
    """Ends one of several processes at once; for the last line of a script under torchrun.

    When an interpreter takes itself apart, threads of the library that processes talk through may still use what is gone: about one
    in ten busy processes then aborts after all of its work was done, and torchrun takes that for a failure.

    Args:
        code: Of the exit.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
