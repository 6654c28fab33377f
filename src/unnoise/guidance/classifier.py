"""Classifier guidance: along the gradient of what a classifier of noisy data says of a label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption
from ..options import option
from ..shapes import over
from .base import guidances
from .helped import Helped
from .noisy_classifier import Classifier


@guidances.register("classifier")
@dataclass(frozen=True)
class ClassifierGuidance(Helped):
    r"""Follows the gradient of what a classifier of noisy data says of the label.

    .. math:: D_c + (g - 1) \tfrac{\sigma^2}{\alpha} \nabla \log p(y | x_t)
        \quad \text{or} \quad D_\varnothing + g \tfrac{\sigma^2}{\alpha} \nabla \log p(y | x_t)

    By Bayes' rule the gradient times :math:`\sigma^2 / \alpha` is :math:`D_c - D_\varnothing`, so that with an exact classifier
    both forms are classifier-free guidance of scale g. The second, `conditional` false, is for models that know no labels. The
    paper's scale of a conditional model is g - 1. A negative condition takes the place of the null, as in classifier-free guidance.
    Where no signal is left the gradient is 0 whatever the label, and nothing is steered.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), Section 4.2 and Algorithm 2,
        https://arxiv.org/abs/2105.05233
    """

    neutral = {"scale": 1.0, "conditional": True}
    helper = "classifier"

    classifier: str | Classifier | None = option(
        None, help="a classifier of noisy data: its folder, or from Python the classifier itself"
    )
    scale: float = option(
        1.0, help="1 is the plain conditional model, 0 unconditional, above 1 pushes towards the label", low=0
    )
    conditional: bool = option(True, help="whether the model itself is told the label; false where it knows none")
    sha256: str = option("", help="hash that the classifier must have; samples carry it; any if empty")

    def estimate(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Guidance.estimate`.

        Raises:
            BadOption: Something else than a label is asked for.
        """
        if cond is None or self.idle:
            return denoiser.with_variance(x_t, t, cond)
        label = _label(cond)
        told = cond if self.conditional else {name: value for name, value in cond.items() if name != "label"} or None
        guided, fraction = denoiser.with_variance(x_t, t, told)
        towards = self.scale - 1 if self.conditional else self.scale
        if towards:
            guided = guided + towards * self._push(denoiser, x_t, t, label)
        if negative is not None and self.scale != 1:
            guided = guided + (1 - self.scale) * self._push(denoiser, x_t, t, _label(negative))
        return guided, fraction

    def _push(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The difference of the estimates with and without a label, shape of x_t."""
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        weight = torch.where(alpha > 0, sigma**2 / alpha.clamp(min=1e-300), 0.0)
        slope: Tensor = self.network().slope(x_t, t, denoiser.schedule, label)
        return over(weight, x_t) * slope


def _label(cond: Condition) -> Tensor:
    if "label" not in cond:
        raise BadOption(f"guidance classifier: it goes by labels, and none is among {', '.join(cond) or 'nothing'}")
    return cond["label"]
