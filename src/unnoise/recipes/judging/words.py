"""Numbers as people read them: in tables and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...evaluation.metrics.base import Estimate, metrics

NAMES = {
    "fid": "FID", "kid": "KID", "cmmd": "CMMD", "mmd": "MMD²", "vendi": "Vendi score", "energy": "energy distance",
    "sliced_wasserstein": "sliced Wasserstein", "wasserstein": "Wasserstein, exact",
    "accuracy": "shows what was asked for", "saturation": "saturation, off the data's", "clipping": "clipping, off the data's",
}  # fmt: skip


def title(name: str) -> str:
    """What a metric is called in a table."""
    return NAMES.get(name, name)


def number(value: float) -> str:
    """Four digits, without an exponent where that can be."""
    if not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2e}"


def interval(estimate: Estimate) -> str:
    """The 95 % interval."""
    return f"{number(estimate.low)} to {number(estimate.high)}"


def rows(estimates: Mapping[str, Estimate], baseline: Mapping[str, Estimate]) -> list[tuple[str, ...]]:
    """A line for each metric: name, value, interval, the same of real data, its interval, which way is better, out of how many."""
    found: list[tuple[str, ...]] = []
    for name, each in estimates.items():
        real = baseline.get(name)
        found.append(
            (
                title(name),
                number(each.value),
                interval(each),
                "" if real is None else number(real.value),
                "" if real is None else interval(real),
                metrics[name].better,
                f"{each.num_made:,} / {each.num_real:,}",
            )
        )
        if "fid_infinity" in each.details:
            found.append(("  of endlessly many", *_limit(each), *_limit(real), "lower", ""))
    return found


HEADERS = ("", "made", "95 % interval", "real", "95 % interval", "better", "made / real")


def _limit(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None or "fid_infinity" not in estimate.details:
        return "", ""
    value, low, high = (float(str(estimate.details[f"fid_infinity{end}"])) for end in ("", "_low", "_high"))
    return number(value), f"{number(low)} to {number(high)}"


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines of equal columns, the first flush left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        ).rstrip()
        for cells in table
    ]
