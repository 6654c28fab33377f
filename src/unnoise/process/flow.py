"""The straight path of flow matching."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import BadOption
from ..options import option
from .base import Schedule, schedules

BASE_PLACES = 1024
"""Places of data for which the path is not shifted: latents of 32 x 32, which Stable Diffusion 3 makes of 256 x 256 pixels."""


@schedules.register("flow")
@dataclass(frozen=True)
class FlowSchedule(Schedule):
    r"""Data and noise mixed along a straight line, as flow matching does; a shift spends more of the time at high noise.

    sigma = u, alpha = 1 - u with u = shift t / (1 + (shift - 1) t).

    A shift above 1 spends more of the time at high noise, which large images need; `resized` says how much more. Left to the data,
    it is a number only once the data is known, see `settled`.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), https://arxiv.org/abs/2210.02747
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Equation 23,
        https://arxiv.org/abs/2403.03206
    """

    shift: float | Literal["size", "tokens"] = option(
        1.0,
        help="how much of the time is spent at high noise; 1 is the plain straight path; size: by the places of the data, as "
        "Stable Diffusion 3; tokens: by the patches of the network, as FLUX.1",
        low=1e-3,
        high=1e3,
    )

    @property
    def factor(self) -> float:
        """The shift as a number.

        Raises:
            BadOption: It is left to the data, and not settled yet.
        """
        if isinstance(self.shift, str):
            raise BadOption(
                f"shift: {self.shift} is settled by the data of a recipe; give a number where there is none"
            )
        return self.shift

    def sigma(self, t: Tensor) -> Tensor:
        """u."""
        t = t.to(torch.float64)
        return self.factor * t / (1 + (self.factor - 1) * t)

    def alpha(self, t: Tensor) -> Tensor:
        """1 - u, written so that no digit is lost near noise."""
        t = t.to(torch.float64)
        return (1 - t) / (1 + (self.factor - 1) * t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """The rate of u."""
        return self.factor / (1 + (self.factor - 1) * t.to(torch.float64)) ** 2

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Minus the rate of u."""
        return -self.sigma_dot(t)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """From u = 1 / (1 + exp(log_snr / 2))."""
        u = torch.sigmoid(-log_snr.to(torch.float64) / 2)
        return u / (self.factor - (self.factor - 1) * u)

    def resized(self, ratio: float) -> FlowSchedule:
        """The path on which data of another size is as noisy at every time.

        Noise hides less of a larger picture, since more of its values say the same: of n values that are alike, what they have in
        common is known to sigma / (alpha sqrt(n)). The shift grows with the root of the ratio, so that this stays as it was.

        References:
            Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Equation 23

        Args:
            ratio: How many times as many places the data has, 4 for pictures of twice the height and width; above 0.

        Raises:
            BadOption: The ratio is not above 0, or the shift would leave its range.
        """
        if not 0 < ratio < math.inf:
            raise BadOption(f"ratio: expected how many times as many places there are, above 0, got {ratio}")
        return replace(self, shift=self.factor * math.sqrt(ratio))

    def settled(self, places: int, tokens: int | None = None) -> FlowSchedule:
        """The path with its shift as a number; itself where it has one.

        Args:
            places: Of the data that the network sees: pixels, or cells of latents.
            tokens: Patches that the network cuts it into; None where it cuts none.

        Raises:
            BadOption: It goes by patches, and there are none, or the shift would leave its range.
        """
        if self.shift == "size":
            return FlowSchedule().resized(places / BASE_PLACES)
        if self.shift != "tokens":
            return self
        if tokens is None:
            raise BadOption(
                "shift: tokens are patches, and this network cuts the data into none: give size, or a number"
            )
        return FlowSchedule(shift_for(tokens))

    @property
    def t_min(self) -> float:
        """The time at which u is one thousandth."""
        return 1e-3 / (self.factor - (self.factor - 1) * 1e-3)


def shift_for(tokens: int, at: tuple[int, int] = (256, 4096), logarithms: tuple[float, float] = (0.5, 1.15)) -> float:
    """The shift with which FLUX.1 samples: its logarithm grows with the tokens of a picture along a line.

    References:
        FLUX.1 (Black Forest Labs, 2024), https://github.com/black-forest-labs/flux, `get_schedule`

    Args:
        tokens: Of a picture, its patches.
        at: Two numbers of tokens.
        logarithms: Those of the shifts there.
    """
    slope = (logarithms[1] - logarithms[0]) / (at[1] - at[0])
    return math.exp(logarithms[0] + slope * (tokens - at[0]))
