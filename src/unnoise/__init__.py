"""unnoise: diffusion models, from noise to data.

import unnoise

model = unnoise.train("digits", out="runs/digits")
model.sample(16, label="3", guidance=2.0).save("threes.png")
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Model, load
    from .recipes.judging.run import evaluate
    from .recipes.train import train
    from .samples import Samples

try:
    __version__ = version("unnoise")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

__all__ = ["Model", "Samples", "__version__", "evaluate", "load", "train"]

_HOMES = {
    "Model": ".model",
    "Samples": ".samples",
    "evaluate": ".recipes.judging.run",
    "load": ".model",
    "train": ".recipes.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unnoise' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)
