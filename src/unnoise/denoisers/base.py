r"""What a denoiser is, and how four coefficients make one of any network.

A denoiser answers one question: given noisy data, its time and a condition, what is the clean data on average? All samplers
and guidance rules speak this one currency. A network F may predict something else (noise, v, velocity ...); then

.. math:: D(x_t, t) = c_{skip}(t) x_t + c_{out}(t) F(c_{in}(t) x_t, c_{noise}(t))

and the four coefficients are all there is to a prediction.

References:
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Equation 7,
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import IncompatibleParts
from ..nn.base import Condition as Condition
from ..precision import dtype_of
from ..process.base import Schedule
from ..registry import Registry
from ..shapes import match, over, per_sample


class Denoiser(nn.Module, ABC):
    """The posterior mean of the clean data."""

    schedule: Schedule
    sigma_data: float = 1.0
    """The standard deviation of the clean data, over all its values."""
    learns_variance: bool = False
    """Whether `with_variance` gives a fraction."""
    self_conditioned: bool = False
    """Whether the network sees an estimate that it made before; see `recalling`."""

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """E[x_0 | x_t, cond].

        Args:
            x_t: Noisy data, shape (B, ...).
            t: Its time in [0, 1], shape () or (B,), float64.
            cond: What is asked for, by name; None is unconditional.

        Returns:
            Shape of x_t.
        """

    def with_variance(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> tuple[Tensor, Tensor | None]:
        """The estimate, and where a variance was learned its fraction (see `MarkovChain.reverse_log_variance`), in one call."""
        return self(x_t, t, cond), None

    def null_condition(self, batch: int, device: torch.device | None = None) -> Condition:
        """The condition that says nothing, for `batch` samples."""
        return {}

    def remember(self, cond: Condition | None) -> Condition | None:
        """The condition with what can be made of it once for a whole run; see `Network.remember`."""
        return cond

    def rows(self, index: Tensor) -> Denoiser:
        """The denoiser of some samples of the batch: itself, unless it holds something for each sample.

        Args:
            index: Which; a sample may come more than once.
        """
        return self

    def recalling(self, estimate: Tensor) -> Denoiser:
        """The denoiser that is told what it estimated before, shape of x_t: itself, unless it is self-conditioned.

        A self-conditioned denoiser that is told nothing sees zeros.
        """
        return self

    def through(self, change: Callable[[nn.Module], nn.Module]) -> Denoiser:
        """The denoiser with another network in the place of its own: itself where it has none.

        Args:
            change: Makes the other of its own, such as one that leads to it by a detour.
        """
        return self

    def stepping(self, t: float, s: float, kept: float | None) -> Denoiser:
        """The denoiser for the calls of one step of a sampler: itself, unless what it says depends on where the step goes.

        Args:
            t: Where the step begins.
            s: Where it ends.
            kept: How much of the noise found at t the step carries over, as a standard deviation; None where no number says it.
        """
        return self


REACH = 5.0
"""How many sigma_data the estimate that a self-conditioned network is told may reach: little of it is true where no signal is."""


class Coefficients(NamedTuple):
    """What makes a denoiser of a network; each of shape () or (B,), float64."""

    skip: Tensor
    out: Tensor
    in_: Tensor
    noise: Tensor


class PreconditionedDenoiser(Denoiser):
    """A denoiser made of a network by four coefficients.

    Args:
        network: F(x, noise_level, cond), or None where only coefficients and targets are wanted.
        schedule: Alpha and sigma.
        sigma_data: The standard deviation of the clean data.
        self_conditioned: Whether the network takes twice the channels: beside the noisy data the estimate that it made before, in
            units of sigma_data and cut at `REACH` (Analog Bits, Chen et al., 2023, https://arxiv.org/abs/2208.04202).

    Raises:
        IncompatibleParts: The prediction needs signal at every time, and the schedule ends without any.
    """

    needs_signal = False
    """Whether the prediction says nothing of x_0 where alpha is 0."""

    def __init__(
        self, network: nn.Module | None, schedule: Schedule, sigma_data: float = 1.0, self_conditioned: bool = False
    ) -> None:
        super().__init__()
        if self.needs_signal and schedule.vanishing:
            raise IncompatibleParts(
                f"{getattr(self, 'registered_name', 'this')} prediction cannot work on a schedule that ends without signal "
                f"({type(schedule).__name__}, alpha(1) = 0): predict v, velocity, x0 or edm instead"
            )
        self.network = network
        self.schedule = schedule
        self.sigma_data = sigma_data
        self.self_conditioned = self_conditioned
        self.recalled: Tensor | None = None
        self._remembered: dict[float, tuple[float, ...]] = {}

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """The four coefficients at times of shape () or (B,)."""

    @abstractmethod
    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should have said, for x_t = alpha x_0 + sigma eps; shape of x_0."""

    def input_scale(self, t: Tensor) -> Tensor:
        """The factor that gives the network's input unit variance, shape of t."""
        return ((self.schedule.alpha(t) * self.sigma_data) ** 2 + self.schedule.sigma(t) ** 2).rsqrt()

    def raw(
        self, x_t: Tensor, t: Tensor, cond: Condition | None = None
    ) -> tuple[Tensor, float | Tensor, float | Tensor]:
        """The network's own answer in the dtype of x_t, with the skip and out coefficients shaped over x_t."""
        skip: float | Tensor
        out: float | Tensor
        if t.ndim == 0:
            skip, out, in_, level = self._at(float(t))
            levels = torch.full((len(x_t),), level, dtype=torch.float32, device=x_t.device)
            inputs = in_ * x_t
        else:
            c = self.coefficients(t)
            skip, out, inputs = over(c.skip, x_t), over(c.out, x_t), over(c.in_, x_t) * x_t
            levels = per_sample(c.noise, x_t).to(device=x_t.device, dtype=torch.float32)
        return self.answer(self.beside(inputs, self.recalled), levels, cond), skip, out

    def beside(self, inputs: Tensor, estimate: Tensor | None) -> Tensor:
        """What the network takes: the scaled noisy data, and beside it an estimate where it is self-conditioned.

        Args:
            inputs: Shape (B, C, ...).
            estimate: Of the clean data, same shape; None for zeros.

        Returns:
            Shape (B, 2 C, ...), or `inputs` as they are where the denoiser is not self-conditioned.
        """
        if not self.self_conditioned:
            return inputs
        if estimate is None:
            return torch.cat([inputs, torch.zeros_like(inputs)], dim=1)
        match("the estimate recalled", estimate, inputs)
        return torch.cat([inputs, (estimate / self.sigma_data).clamp(-REACH, REACH).to(inputs)], dim=1)

    def recalling(self, estimate: Tensor) -> PreconditionedDenoiser:
        """See `Denoiser.recalling`; the weights are shared."""
        if not self.self_conditioned:
            return self
        told = copy.copy(self)
        told.recalled = estimate
        return told

    def rows(self, index: Tensor) -> PreconditionedDenoiser:
        """See `Denoiser.rows`."""
        return self if self.recalled is None else self.recalling(self.recalled[index.to(self.recalled.device)])

    def through(self, change: Callable[[nn.Module], nn.Module]) -> PreconditionedDenoiser:
        """See `Denoiser.through`."""
        assert self.network is not None
        other = copy.copy(self)
        other._modules = {**self._modules, "network": change(self.network)}  # which the copy would share otherwise
        return other

    def answer(self, inputs: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """What the network says, which it computes in its own dtype.

        Args:
            inputs: Shape (B, ...), scaled to unit variance.
            noise_level: Shape (B,), float32.
            cond: What is asked for, by name.

        Returns:
            The network's output in the dtype of the inputs.
        """
        assert self.network is not None
        raw: Tensor = self.network(inputs.to(dtype_of(self.network) or inputs.dtype), noise_level, cond)
        return raw.to(inputs.dtype)

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """E[x_0 | x_t, cond]; see `Denoiser.forward`."""
        answer, skip, out = self.raw(x_t, t, cond)
        match("the network's answer", answer, x_t)
        return out * answer if isinstance(skip, float) and skip == 0 else skip * x_t + out * answer

    def null_condition(self, batch: int, device: torch.device | None = None) -> Condition:
        """The network's null condition; see `Denoiser.null_condition`."""
        null = getattr(self.network, "null_condition", None)
        return {} if null is None else null(batch, device)

    def remember(self, cond: Condition | None) -> Condition | None:
        """See `Denoiser.remember`."""
        remember = getattr(self.network, "remember", None)
        found: Condition | None = cond if remember is None else remember(cond)
        return found

    def _at(self, t: float) -> tuple[float, ...]:
        # Remembered: a sampler asks for the same few times for every batch, and each costs a dozen tensor operations.
        found = self._remembered.get(t)
        if found is None:
            if len(self._remembered) > 10_000:
                self._remembered.clear()
            found = tuple(float(c) for c in self.coefficients(torch.tensor(t, dtype=torch.float64)))
            self._remembered[t] = found
        return found


denoisers: Registry[PreconditionedDenoiser] = Registry("prediction", "unnoise.denoisers")
