"""The state of a run: weights, their moving averages, the optimizer's memory, and the step. Nothing else is needed to go on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import BadOption, RunFolderError
from ..objectives.companion import Companion
from ..precision import lower
from .flat import Flat
from .optimizers.base import Rate
from .parallel import ALONE, Processes
from .settings import TrainingSettings
from .sharded import forget_gathered, like, local, part_of, whole
from .summing import GradientSum


class TrainState:
    """What changes while a model is trained.

    The weights that are trained are masters in float32 (float64 for a network of that). A network that computes in float32 looks
    at the masters themselves; one that computes in bfloat16 has a copy, which every update renews. Masters, gradients,
    averages and moments are one vector each, so that an update is a handful of operations however many layers there are.

    Args:
        network: Holds the weights that are trained: those that require a gradient.
        settings: Of the run.
        dtype: What the network computes in; its weights are cast, unless they are sharded (then `shard` has seen to it).
        processes: That train together: all have the same weights, or each its share of them.
        companion: What goes beside the network; see `Objective.companion`.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: TrainingSettings,
        dtype: torch.dtype = torch.float32,
        processes: Processes = ALONE,
        companion: Companion | None = None,
    ) -> None:
        self.network = network
        self.companion = companion or Companion()
        self.settings = settings
        self.processes = processes
        self.step = 0
        self.operations = 0.0  # floating-point operations of an update, about, where `begin_state` has counted them
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.names, self.parameters = list(trained), list(trained.values())
        wide = torch.float64 if any(p.dtype == torch.float64 for p in self.parameters) else torch.float32
        self.sharded = any(local(p) is not p for p in self.parameters)
        self.masters = Flat({name: local(p.detach()) for name, p in trained.items()}, wide)
        self.masters.fill([local(p.detach()) for p in self.parameters])
        self.gradients = self.masters.another()
        # Those of weights that are sharded come summed from the backward pass.
        self.sum = GradientSum(self.gradients, self.parameters, ALONE if self.sharded else processes)
        kinds = settings.averages
        self._kinds = list(kinds.values())
        self.averages = {name: self.masters.another() for name in kinds}
        for flat in self.averages.values():
            flat.vector.copy_(self.masters.vector)
        if self.sharded and not settings.optimizer.elementwise:
            name = settings.optimizer.registered_name  # type: ignore[attr-defined]
            raise BadOption(f"training.optimizer: {name} needs whole matrices: set machine.parallel=ddp")
        self.memory = settings.optimizer.begin(self.masters, self.gradients)
        self.memory.processes = ALONE if self.sharded else processes
        self.rate = torch.ones(())  # halved when a run that diverged goes on
        if not self.sharded:
            lower(network, dtype)
        self._copies: list[tuple[Tensor, Tensor]] = []
        for parameter, master in zip(self.parameters, self.masters.views, strict=True):
            if parameter.dtype == master.dtype and not self.sharded:
                parameter.data = master
            else:
                self._copies.append((local(parameter.detach()), master))

    def accumulate(self) -> None:
        """Adds the gradients that a backward pass left at the network's weights to those of the update."""
        reached = [
            (v, p, local(p.grad))
            for v, p in zip(self.gradients.views, self.parameters, strict=True)
            if p.grad is not None
        ]
        if not reached:
            return
        views, parameters, gradients = zip(*reached, strict=True)
        torch._foreach_add_(views, gradients)
        for parameter in parameters:
            parameter.grad = None

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return self.settings.learning_rate(self.step) * float(self.rate)

    @torch.no_grad()
    def update(self) -> Tensor:
        """Applies the gradients of all processes: clipping, one step of the optimizer, one of the moving averages.

        What the companion should see of the batch it was shown before.

        Returns:
            The norm of the gradient before clipping, 0-dimensional.
        """
        self.accumulate()
        self.sum.finish()
        settings, learning_rate = self.settings, self.learning_rate
        rate = settings.rate(learning_rate)
        shares = [1 - average.kept(self.step, settings.batch_size) for average in self._kinds]
        first, *others = zip((flat.vector for flat in self.averages.values()), shares, strict=True)
        found = None if self.sharded else settings.optimizer.at_once(self.memory, rate, settings.clip, *first)
        norm = self._one_by_one(rate, *first) if found is None else torch.tensor(found)
        for average, share in others:
            average.lerp_(self.masters.vector, share)
        self._update_companion(learning_rate)
        self.renew()
        self.step += 1
        return norm

    def _one_by_one(self, rate: Rate, average: Tensor, share: float) -> Tensor:
        """What `Optimizer.at_once` does, for any optimizer and anywhere."""
        norm, gradient = self.norm(), self.gradients.vector
        if self.settings.clip:
            gradient.mul_((self.settings.clip / (norm + 1e-6)).clamp(max=1.0))
        self.settings.optimizer.update(self.memory, rate)
        gradient.zero_()
        average.lerp_(self.masters.vector, share)
        return norm

    def _update_companion(self, learning_rate: float) -> None:
        for parameter in self.companion.parameters:
            if parameter.grad is not None:
                self.processes.add(parameter.grad)
                if self.sharded:  # whose losses are scaled for a mean over the processes
                    parameter.grad /= self.processes.count
        for tensor in self.companion.sums:
            self.processes.add(tensor)
        self.companion.update(self.step + 1, learning_rate)

    def norm(self) -> Tensor:
        """The norm of the gradient as it stands, 0-dimensional."""
        norm = torch.linalg.vector_norm(self.gradients.vector)
        return self.processes.add(norm.square()).sqrt() if self.sharded else norm

    @torch.no_grad()
    def renew(self) -> None:
        """Brings the masters to where the network computes in coarser numbers."""
        if self._copies:
            copies, masters = zip(*self._copies, strict=True)
            torch._foreach_copy_(copies, masters)
        if self.sharded:
            forget_gathered(self.network)

    def finite(self, alone: bool = False) -> bool:
        """Whether every weight is a finite number.

        Args:
            alone: Asks only of those that this process holds; otherwise all processes call this.
        """
        vector = self.masters.vector
        here = bool(torch.isfinite(vector).all())
        return here if alone else not self.processes.any(not here, vector.device)

    @property
    def average(self) -> Flat:
        """The average that is the model."""
        return next(iter(self.averages.values()))

    def _held(self) -> dict[str, Flat]:
        """What is kept for each weight, by the names that a checkpoint has for it."""
        _, *others = self.averages
        averages = {"ema": self.average, **{name: self.averages[name] for name in others}}
        return {"weights": self.masters, **averages, **self.memory.moments}

    def slots(self) -> dict[str, Tensor]:
        """All of the state but the step, by name; what is sharded as this process's part of the whole."""
        named = {
            name: view
            for prefix, flat in self._held().items()
            for name, view in self._named(flat, f"{prefix}/").items()
        }
        return {**named, "updates": self.memory.updates, "rate": self.rate}

    def _named(self, flat: Flat, prefix: str = "") -> dict[str, Tensor]:
        parameters = dict(zip(self.names, self.parameters, strict=True))
        return {
            prefix + name: like(parameters[name], view) if self.sharded else view
            for name, view in zip(flat.names, flat.views, strict=True)
        }

    def tensors(self) -> dict[str, Tensor]:
        """All of the state but the step, by name, whole and on the processor."""
        own = {name: tensor.cpu().contiguous() for name, tensor in whole(self.slots()).items()}
        return own | self.beside()

    def beside(self) -> dict[str, Tensor]:
        """What the companion remembers, by name; the same in every process."""
        return {f"{_BESIDE}{name}": tensor for name, tensor in self.companion.tensors().items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Takes the state of another run of the same network, whole.

        Raises:
            RunFolderError: The tensors are those of another network.
        """
        slots, tensors = self.slots(), _of_today(tensors)
        beside = {name.removeprefix(_BESIDE): tensors.pop(name) for name in [*tensors] if name.startswith(_BESIDE)}
        wrong = [n for n in slots if n not in tensors or slots[n].shape != tensors[n].shape]
        wrong += sorted(set(tensors) - set(slots))
        if wrong:
            raise RunFolderError(
                f"the checkpoint holds the weights of another network (it differs in {min(wrong)}): use another --out"
            )
        for name, slot in slots.items():
            local(slot).copy_(part_of(slot, tensors[name]))
        self.restored(step, beside)

    @torch.no_grad()
    def restored(self, step: int, beside: dict[str, Tensor]) -> None:
        """To be called when the slots were filled from elsewhere.

        Args:
            step: That they belong to.
            beside: What the companion remembers.

        Raises:
            RunFolderError: That is of another objective.
        """
        for flat in (*self._held().values(), self.gradients):
            flat.zero_between()
        self.companion.restore(beside)
        self.renew()
        self.step = step

    @torch.no_grad()
    def begin_again(self, network: nn.Module, companion: Companion) -> None:
        """Goes back to the first step, with the weights of a network of the same kind that nobody trained, and its companion."""
        fresh = dict(network.named_parameters())
        for slot in self.slots().values():
            local(slot).zero_()
        for name, view, parameter in zip(self.names, self.masters.views, self.parameters, strict=True):
            view.copy_(part_of(parameter, fresh[name].detach()))
        for flat in self.averages.values():
            flat.vector.copy_(self.masters.vector)
        self.rate.fill_(1.0)
        self.restored(0, companion.tensors())  # into what the run's parts look at already

    def agree(self) -> None:
        """Gives every process the state of the first one; each has its own where weights are sharded."""
        self.step = int(self.processes.tell(self.step))  # type: ignore[call-overload]
        if not self.sharded:
            for flat in self._held().values():
                self.processes.send(flat.vector)
            self.processes.send(self.memory.updates)
            self.rate.fill_(float(self.processes.tell(float(self.rate))))  # type: ignore[arg-type]
            self.renew()
        beside = self.processes.tell(self.companion.tensors())
        if not self.processes.first:
            self.companion.restore(beside)  # type: ignore[arg-type]

    def ema_weights(self, average: str = "", wanted: bool = True) -> dict[str, Tensor]:
        """A moving average of the weights and the network's buffers, by the network's own names; copies, in float32.

        Args:
            average: Which one, by its name; the one that is the model by default.
            wanted: Whether this process keeps them; where weights are shared out all have to call this.
        """
        averaged = self._named(self.averages[average] if average else self.average)
        wide = self.masters.vector.dtype
        held = {n: averaged.get(n, value).detach() for n, value in self.network.state_dict().items()}
        weights = whole(held, wanted)
        return {n: (v.to(wide) if v.is_floating_point() else v).clone() for n, v in weights.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """The averages that are stored to make one of any length of them, by their names and the weights'; in the first process."""
        plan = self.settings.snapshots
        dtype = torch.float16 if plan.precision == "fp16" else self.masters.vector.dtype
        names = [average.name for average in plan.averages()]
        found = {key: value for name in names for key, value in self._named(self.averages[name], f"{name}/").items()}
        return {
            key: value.to("cpu", dtype, copy=True).contiguous()
            for key, value in whole(found, self.processes.first).items()
        }


_BESIDE = "companion/"


def _of_today(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Checkpoints of version 0.1 count the updates of every weight by itself, always alike, and know no other rate than 1."""
    counts = sorted(name for name in tensors if name.startswith("updates/"))
    kept = {name: tensor for name, tensor in tensors.items() if name not in counts}  # a copy, which may be changed
    return {**kept, "updates": tensors[counts[0]], "rate": torch.ones(())} if counts else kept


class Averaged:
    """A context in which the network of a run has the averaged weights."""

    def __init__(self, state: TrainState) -> None:
        self.state = state

    def __enter__(self) -> None:
        self.raw = self.state.masters.vector.clone()
        self._set(self.state.average.vector)

    def __exit__(self, *_: object) -> None:
        self._set(self.raw)

    def _set(self, vector: Tensor) -> None:
        with torch.no_grad():
            self.state.masters.vector.copy_(vector)
            self.state.renew()
