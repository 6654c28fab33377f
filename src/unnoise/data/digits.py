"""Real handwritten digits that come with the package: the smallest images that are worth learning."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch

from .base import Dataset, DataSource, Progress, Spec, datasets


@datasets.register("digits")
@dataclass(frozen=True)
class DigitsDataset(DataSource):
    """1,797 handwritten digits of 8 x 8 grey pixels, labelled 0 to 9, in their original order.

    References:
        Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), UCI Machine Learning Repository,
        https://doi.org/10.24432/C50P49, CC BY 4.0; see DIGITS_LICENCE.md beside this file
    """

    def load(self, progress: Progress | None = None) -> Dataset:
        """The digits, uint8 of shape (1797, 1, 8, 8), with their labels."""
        with (files(__package__) / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            x, labels = arrays["x"], arrays["labels"]
        spec = Spec("image", (1, 8, 8), tuple("0123456789"))
        return Dataset(torch.from_numpy(x), spec, torch.from_numpy(labels.astype(np.int64)))
