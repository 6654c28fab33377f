"""What CLIP learns: to tell which caption belongs to which picture of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive_losses(pictures: Tensor, texts: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """For every pair of a batch, the cross-entropy of its caption among all and of its picture among all, halved.

    References:
        Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021), Figure 3,
        https://arxiv.org/abs/2103.00020

    Args:
        pictures: Of length 1, shape (B, dim).
        texts: The same.
        scale: One over the temperature, 0-dimensional.
        same: Which texts are the same, shape (B, B), bool: a text that another picture has too is not held against it.

    Returns:
        Shape (B,).
    """
    scores = scale * pictures @ texts.T  # (B, B)
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(same & ~own, float("-inf"))
    found = scores.diagonal()
    return (scores.logsumexp(1) + scores.logsumexp(0)) / 2 - found
