"""The options that say where bulk work is done."""

from __future__ import annotations

from typing import Any

ON = "Where samples are made: `here`, or `ray` for the workers of a Ray cluster; see `unnoise list places`."
WORKERS = "Workers of Ray; one a GPU by default, or one a processor where there is none."
ADDRESS = (
    "Of a Ray cluster that runs; $RAY_ADDRESS by default, else one is made on this machine for as long as it takes."
)
DEVICE = "cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."
PRECISION = "fp32, bf16; auto is bf16 for large networks where that is faster."


def place_spec(on: str, workers: int | None = None, address: str | None = None, device: str = "auto") -> dict[str, Any]:
    """A place as `{name: ..., option: value}`.

    Args:
        on: The name.
        workers: How many.
        address: Of a cluster.
        device: What work is done on; of several GPUs elsewhere, each worker has one of its own.

    Raises:
        BadOption: Options are given that the place does not have.
    """
    from ..errors import BadOption
    from ..recipes.places.base import places

    given = {"workers": workers, "address": address}
    if places[on].elsewhere:
        given["device"] = None if device == "auto" else device.partition(":")[0]
    elif workers is not None or address is not None:
        raise BadOption(
            f"--{'address' if workers is None else 'workers'}: only workers elsewhere have it: add --on ray"
        )
    spec = {"name": on, **{key: value for key, value in given.items() if value is not None}}
    places.build(spec, "on")
    return spec
