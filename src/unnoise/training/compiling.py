"""Compiling the network of a run: at once where it was asked for, else tried where the run is long enough to be paid back."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files import cache_folder, write_atomically
from ..nn.dropout import Dropout
from ..objectives.base import Prepared
from .gradient import Gradient
from .machine import MachineSettings
from .memory import enough_for
from .state import TrainState
from .trainee import Summing, Trainee

WORTH = 1800.0
"""Seconds that the steps that are left must take before compiling is tried, which itself takes a minute or two."""
FASTER = 0.97
"""What of a plain step's time a compiled one may take: what is less than this apart is chance."""
TURNS = 3
"""Steps of each kind that are timed; the least counts."""
TRIED_ON = "cuda"
"""On a processor a compiled network would go without our own kernels, which a compiler cannot see into."""
KEPT_IN = "compiled.json"

Compiler = Callable[[nn.Module], None]
Clock = Callable[[], float]


def compile_network(network: nn.Module) -> None:
    """Has torch compile a network when it is next called, in place; what was compiled is kept for other runs."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(cache_folder()) / "compiled"))
    for layer in network.modules():
        if isinstance(layer, Dropout):
            layer.keep_from_compiler()
    compiled: Any = network
    compiled.compile(dynamic=False)  # a run has a handful of batch sizes, and each is worth its own code


def leave_as_written(network: nn.Module) -> None:
    """Undoes `compile_network`."""
    network._compiled_call_impl = None


@dataclass(frozen=True)
class Compiling:
    """A trial has begun to compile the network, which takes a while."""


@dataclass(frozen=True)
class CompileTrial:
    """What came of compiling a network.

    Args:
        device: On which.
        plain: Seconds of a step as the network is written.
        compiled: Of a compiled one; None where it could not be compiled.
        waited: Seconds until it was.
        why_not: What stood in the way; empty where nothing did.
    """

    device: str
    plain: float
    compiled: float | None = None
    waited: float = 0.0
    why_not: str = ""

    @property
    def pays(self) -> bool:
        """Whether the compiled network is faster."""
        return self.compiled is not None and self.compiled < FASTER * self.plain

    def __str__(self) -> str:
        if self.compiled is None:
            return f"the network could not be compiled and is used as it is written: {self.why_not}"
        chosen = "compiled" if self.pays else "as it is written"
        times = f"{self.compiled:.3g} s a step compiled, {self.plain:.3g} s as it is written"
        return f"the network is used {chosen}: {times}, tried in {self.waited:.0f} s"


class CompileChoice:
    """Whether a run compiles its network: chosen once by a trial, and kept in its folder, so that a resumed run computes alike.

    Args:
        folder: Of the run.
        machine: How it is executed.
        device: Of this process.
        compiler: Compiles a network in place.
        clock: Seconds.
    """

    def __init__(
        self,
        folder: Path,
        machine: MachineSettings,
        device: torch.device,
        compiler: Compiler = compile_network,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.path, self.machine, self.device = folder / KEPT_IN, machine, device
        self.compiler, self.clock = compiler, clock

    def settle(self, trainee: Trainee, state: TrainState) -> Iterator[Compiling | CompileTrial]:
        """Compiles the network of a run where that pays, before its next step; all processes iterate.

        Yields:
            Events of a trial, where one is made now.

        Raises:
            OutOfMemory: The memory does not suffice for as many samples at once as there are.
        """
        if self.machine.compile != "auto" or not self._may(state):
            return
        gradient = trainee.gradient(state)
        if not isinstance(gradient, Gradient) or gradient.derivative is not None:
            return
        processes = state.processes
        known = processes.tell(self._known() if processes.first else None)
        if known is None:
            yield from self._tried(trainee, state, gradient)
        elif known:
            self.compiler(state.network)

    def _may(self, state: TrainState) -> bool:
        """Whether it can be compiled at all and be faster; what is recorded, worked out twice, or shared out is left alone."""
        plain = not (self.machine.cuda_graphs or self.machine.activation_checkpointing or state.sharded)
        return self.device.type == TRIED_ON and plain

    def _known(self) -> bool | None:
        """What a trial on such a device found earlier in this run."""
        try:
            trial = CompileTrial(**json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return trial.pays if trial.device == self._name() else None

    def _name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine()

    def _tried(self, trainee: Trainee, state: TrainState, gradient: Summing) -> Iterator[Compiling | CompileTrial]:
        batch = trainee.examples(state).until(state.step + 1).step(state.step, self.device)
        examples = batch.slice(0, min(trainee.micro_batch or len(batch.inputs), len(batch.inputs)))
        processes, began = state.processes, self.clock()
        training = state.network.training
        state.network.train()
        try:
            with enough_for(len(examples.inputs)):
                plain = self._seconds(gradient, examples)
            left = (state.settings.steps - state.step) * plain * -(-len(batch.inputs) // len(examples.inputs))
            if not processes.tell(left > WORTH):
                return
            yield Compiling()
            self.compiler(state.network)
            compiled, why_not = self._compiled_seconds(gradient, examples)
        finally:
            state.network.train(training)
            forget_gradients(state)
        failed = processes.any(compiled is None, self.device)
        waited = self.clock() - began
        trial = CompileTrial(self._name(), plain, None if failed else compiled, waited, why_not)
        if not processes.tell(trial.pays):
            leave_as_written(state.network)
        if processes.first:
            write_atomically(self.path, json.dumps(asdict(trial), indent=1).encode())
        yield trial

    def _compiled_seconds(self, gradient: Summing, examples: Prepared) -> tuple[float | None, str]:
        """Seconds of a compiled step, and why there is none. Batches of which a half is measured come in halves, too."""
        half = -(-len(examples.inputs) // 2)
        try:
            for part in {half, len(examples.inputs) - half} - {0}:
                gradient.add(examples.slice(0, part), 1.0)
            return self._seconds(gradient, examples), ""
        except Exception as error:  # a compiler has many ways to fail, and a run can do without
            cause = getattr(error, "inner_exception", error)  # of torch's own, which tells of its parts first
            return None, f"{type(cause).__name__}: {(str(cause).strip() or 'no word').splitlines()[0]}"

    def _seconds(self, gradient: Summing, examples: Prepared) -> float:
        found = []
        for _ in range(TURNS + 1):
            self._wait()
            began = self.clock()
            gradient.add(examples, 1.0)
            self._wait()
            found.append(self.clock() - began)
        return min(found[1:])

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def forget_gradients(state: TrainState) -> None:
    """Takes back gradients that were summed for a trial."""
    state.gradients.vector.zero_()
    for parameter in (*state.parameters, *state.companion.parameters):
        parameter.grad = None
