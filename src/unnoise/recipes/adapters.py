"""Adapters and models: merging the ones into the others, and getting them out again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..adapter import Adapter
from ..errors import BadOption, ModelFolderError
from ..model import Model
from ..model_folder import MODEL_FILE
from ..nn.lora import Factors, LoRASettings, match_layers
from ..objectives.mse import preconditioned
from ..options import build, plain


def check_free(folder: Path) -> None:
    """Refuses a folder that a model must not be written to, so that nothing is lost.

    Raises:
        ModelFolderError: It holds something that is not a model.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MODEL_FILE).is_file())):
        raise ModelFolderError(f"{folder} exists and is not a model folder: use another --out")


def merged(base: str | Path, adapters: Sequence[tuple[str, float]]) -> Model:
    """A model with adapters merged into it, one after another.

    Args:
        base: The model.
        adapters: Path and strength of each.

    Raises:
        ModelFolderError: One of them cannot be read, or does not fit.
    """
    model = Model.load(base)
    for path, strength in adapters:
        model = model.with_lora(path, strength)
    return model


def extracted(base: str | Path, tuned: str | Path, rank: int = 8, layers: str = "all") -> tuple[Adapter, float]:
    """The adapter of a given rank that brings a model nearest to another of the same network.

    Of each layer's change of weight it keeps the largest singular values, shared equally between the two matrices: no matrix
    of that rank is nearer (Eckart and Young, 1936). Weights that are no layer's are left as they are.

    Args:
        base: The model that it begins with.
        tuned: The model that it is to come near to.
        rank: Of the change of each layer.
        layers: Patterns with commas between.

    Returns:
        The adapter, and which share of the squared change of its layers' weights it holds.

    Raises:
        ModelFolderError: A model cannot be read, or they are of different networks.
        BadOption: The rank or a pattern is wrong, or no layer has changed.
    """
    settings = build(LoRASettings, {"rank": rank, "layers": layers})
    first, second = Model.load(base), Model.load(tuned)
    before, after = _network(first).state_dict(), _network(second).state_dict()
    factors: dict[str, Factors] = {}
    kept = whole = 0.0
    for name in match_layers(_network(first), settings.layers):
        key = f"{name}.weight"
        if key not in after or after[key].shape != before[key].shape:
            shapes = f"{key} is {tuple(before[key].shape)} in {base} and "
            shapes += f"{tuple(after[key].shape)} in {tuned}" if key in after else f"missing in {tuned}"
            raise ModelFolderError(f"the models are of different networks: {shapes}")
        change = after[key].double() - before[key].double()
        if not bool(change.any()):
            continue
        factors[name], energy = _nearest(change, rank, _groups(_network(first).get_submodule(name)))
        kept, whole = kept + energy, whole + float(change.square().sum())
    if not factors:
        raise BadOption(f"{tuned} has the same weights as {base} in all of these layers: there is nothing to extract")
    labels = first.spec.class_names
    return Adapter(factors, {}, {}, first.weights_hash, labels, labels, plain(settings)), kept / whole


def _network(model: Model) -> nn.Module:
    network = preconditioned(model.denoiser).network
    assert network is not None
    return network


def _groups(layer: nn.Module) -> int:
    return int(getattr(layer, "groups", 1))


def _nearest(change: Tensor, rank: int, groups: int) -> tuple[Factors, float]:
    """The factors nearest to a change of weight of shape (out, in / groups, *kernel), and the square of what they hold."""
    blocks = change.flatten(1).unflatten(0, (groups, -1))  # (groups, out / groups, in / groups · kernel)
    left, values, right = torch.linalg.svd(blocks, full_matrices=False)
    most = min(rank, values.shape[1])
    root = values[:, :most].sqrt()
    up = (left[:, :, :most] * root[:, None, :]).flatten(0, 1)  # (out, most)
    down = (root[:, :, None] * right[:, :most]).flatten(0, 1)  # (groups · most, in / groups · kernel)
    ones = [1] * (change.ndim - 2)
    factors = Factors(down.reshape(-1, *change.shape[1:]).float(), up.reshape(len(change), most, *ones).float(), 1.0)
    return factors, float(values[:, :most].square().sum())
