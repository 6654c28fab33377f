"""The hash of an extractor: of its weights, and of every step that stands before them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor


def digest_of(steps: Mapping[str, object], tensors: Mapping[str, Tensor] | None = None) -> str:
    """SHA-256 of plain values and of tensors, by name and whatever their order, as 64 hexadecimal digits.

    Args:
        steps: What is done to a sample before and after the weights, as JSON can hold it.
        tensors: The weights, and numbers that were measured; their dtypes and shapes count too.
    """
    tensors = tensors or {}
    digest = hashlib.sha256(json.dumps(steps, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
