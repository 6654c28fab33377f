"""How a run is executed: device, precision, processes, memory. None of it changes what is computed, but for rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..options import Checked, option
from ..precision import Precision, find_device

Parallel = Literal["ddp", "fsdp"]
Workers = int | Literal["auto"]


@dataclass(frozen=True)
class MachineSettings(Checked):
    """How a run is executed. All of this may differ between the beginning of a run and its resumption."""

    device: str = option("auto", help="cpu, cuda, cuda:1, mps; auto takes a GPU where there is one")
    precision: Precision = option(
        "auto", help="numbers that the network computes in: fp32, bf16; auto is bf16 where that is faster"
    )
    parallel: Parallel = option(
        "ddp", help="with several processes (torchrun): ddp has the whole model on each, fsdp a share of it"
    )
    micro_batch: int = option(0, help="most samples at once in a process; gradients are summed; 0 for no limit", low=0)
    activation_checkpointing: bool = option(
        False, help="work out activations again on the way back instead of keeping them: less memory, a third slower"
    )
    cuda_graphs: bool = option(
        False,
        help="record the operations of a step on a GPU and replay them: a small network is not slowed by its launches",
    )
    compile: bool | Literal["auto"] = option(
        "auto",
        help="compile the network with torch.compile, a minute or two at first; auto tries it in runs of half an hour and more "
        "on a GPU, and keeps it where steps are faster",
    )
    workers: Workers = option(
        "auto",
        help="processes that read the data ahead; 0 leaves that to the training process; auto: up to 4, where there are processors "
        "for them, of data that is read from storage step by step, and none of data in memory",
        low=0,
    )

    def torch_device(self, local_rank: int = 0) -> torch.device:
        """The device of a process.

        Args:
            local_rank: Which of the processes on this machine.

        Raises:
            BadOption: There is no such device here.
        """
        return find_device(self.device, local_rank, "machine.device")

    def keeps_as(self, device: torch.device) -> str:
        """The kind of device that keeps about as much for the way back as training on this one does.

        A compiler forgets what is soon made again, as our own kernels on a processor do.
        """
        return "cpu" if self.compile is True else device.type
