"""Rows of the training benchmark, what they are held against, and how they are printed."""

import math
import statistics
from typing import NamedTuple

SHIPPED = "as shipped"
OURS = {"unet": "unnoise ddpm_unet", "dit": "unnoise dit", "points": "unnoise"}
PEAKS = {"unet": "convolution", "dit": "matmul"}
UNITS = {"unet": "images", "dit": "images", "points": "samples", "sd": "steps"}


class Target(NamedTuple):
    """A number that is to be reached.

    Args:
        part: Where it stands.
        what: In words.
        value: What was measured; None where it could not be.
        bound: What it is held against.
        at_least: Whether it must be as large, or as small.
    """

    part: str
    what: str
    value: float | None
    bound: float
    at_least: bool = True

    @property
    def met(self):
        """None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def merged(part, name, variant, batch, rounds):
    """One row of what the rounds of a contender found: the least of the times counts, since others on the machine only add."""
    seconds = [each for found in rounds for each in found["seconds"]]
    row = {"part": part, "name": name, "variant": variant, "batch": batch, "seconds": min(seconds)}
    row["median"], row["turns"] = statistics.median(seconds), len(seconds)
    row["first_step"] = min(found["first_step"] for found in rounds)
    row["megabytes"] = max(found["megabytes"] for found in rounds)
    row["load"] = statistics.mean(found["load"] for found in rounds)
    row |= {key: rounds[0][key] for key in ("gflop_a_sample", "millions")}
    row["rate"] = batch / row["seconds"]
    row["gflops"] = None if row["gflop_a_sample"] is None else row["rate"] * row["gflop_a_sample"]
    return row


def peak_of(part, rates):
    """The rate that a part is held against, in GFLOP/s; None where it was not measured."""
    return max((rate for name, rate in rates.items() if name.startswith(PEAKS.get(part, "none"))), default=None)


def find(rows, name, variant=SHIPPED):
    """A row, or None."""
    return next((row for row in rows if row["name"] == name and row["variant"] == variant), None)


def speed(row):
    """What contenders are compared by: GFLOP/s where networks may differ, else steps."""
    return row["rate"] if row["gflops"] is None else row["gflops"]


def ratio(ours, theirs):
    """How many times as fast ours is; None where one is missing."""
    return None if ours is None or theirs is None else speed(ours) / speed(theirs)


def least(values):
    """The smallest of those that are there, or None."""
    return min((value for value in values if value is not None), default=None)


def targets(result):
    """Everything that was measured, beside what it is to reach."""
    yield from _speed_targets(result)
    yield from _latent_targets(result.get("sd", []))
    yield from _memory_targets(result)
    for row in result.get("until", []):
        if row["name"].startswith("unnoise"):
            yield Target("points", "spiral: seconds to an energy distance of 0.003", row["seconds"], 5.0, False)
    for row in result.get("start", []):
        yield Target(
            "start", f"seconds from start to first step, recipe {row['recipe']}", row.get("seconds"), 10.0, False
        )
    for data in sorted({row["data"] for row in result.get("quality", [])}):
        fids = {row["name"]: row["fid"] for row in result["quality"] if row["data"] == data}
        for peer in (name for name in fids if name != "unnoise"):
            if "unnoise" in fids:
                yield Target("quality", f"{data}: FID by that of {peer}", fids["unnoise"] / fids[peer], 0.5, False)


def _speed_targets(result):
    for part, shipped, given, share in (("unet", 4.0, 1.4, 0.5), ("dit", 3.5, None, 0.45)):
        rows = result.get(part, [])
        ours = find(rows, OURS[part])
        peers = sorted({row["name"] for row in rows if not row["name"].startswith("unnoise")})
        for peer in peers:
            yield Target(part, f"times {peer} as shipped", ratio(ours, find(rows, peer)), shipped)
            others = [row for row in rows if row["name"] == peer and row["variant"] != SHIPPED]
            if given is not None and others:
                best = least(ratio(ours, row) for row in others)
                what = others[0]["variant"].split()[1].rstrip(",")
                yield Target(
                    part, f"times {peer} given {what}, fused optimizer and allocator, at its best", best, given
                )
        peak = peak_of(part, result.get("peak", {}))
        if rows and peak:
            reached = None if ours is None or ours["gflops"] is None else ours["gflops"] / peak
            yield Target(part, f"share of the best measured {PEAKS[part]} rate", reached, share)
    rows = result.get("points", [])
    for peer in ("smalldiffusion training_loop", "azula README loop"):
        if find(rows, peer):
            yield Target("points", f"times {peer}", ratio(find(rows, OURS["points"]), find(rows, peer)), 2.0)


def _latent_targets(rows):
    for ours, peer, variant, bound in (
        ("unnoise latent_unet", "diffusers UNet2DConditionModel", SHIPPED, 5.0),
        ("unnoise latent_unet", "diffusers UNet2DConditionModel", "bf16, channels last", 1.2),
        ("unnoise autoencoder decoder", "diffusers AutoencoderKL decoder", SHIPPED, 7.0),
    ):
        theirs = find(rows, peer, variant)
        if theirs:
            yield Target("sd", f"times {peer}, {variant}", ratio(find(rows, ours), theirs), bound)


def _memory_targets(result):
    for part in ("unet", "dit", "points"):
        rows = result.get(part, [])
        ours, peers = find(rows, OURS[part]), [row for row in rows if not row["name"].startswith("unnoise")]
        for what, chosen in (
            ("as shipped", [row for row in peers if row["variant"] == SHIPPED]),
            ("however given", [row for row in peers if row["variant"] != SHIPPED]),
        ):
            if chosen:
                smallest = least(row["megabytes"] for row in chosen)
                value = None if ours is None else ours["megabytes"] / smallest
                yield Target("memory", f"{part}: peak memory by that of the smallest peer {what}", value, 1.0, False)


# --- Tables: lists of cells, the first being headers


def table(part, rows, rates):
    """The rows of one part, fastest first."""
    ours, peak = find(rows, OURS.get(part, "")), peak_of(part, rates)
    counted = any(row["gflops"] is not None for row in rows)
    headers = ["who", "variant", "s/step", "median", f"{UNITS[part]}/s"]
    headers += ["M weights", "GFLOP each", "GFLOP/s"] if counted else []
    headers += ["of peak"] if counted and peak else []
    headers += ["unnoise times"] if ours else []
    yield [*headers, "peak MB", "load"]
    for row in sorted(rows, key=speed, reverse=True):
        cells = [row["name"], row["variant"], *(number(row[key]) for key in ("seconds", "median", "rate"))]
        if counted:
            cells += [number(row["millions"]), number(row["gflop_a_sample"]), number(row["gflops"])]
        if counted and peak:
            cells.append("–" if row["gflops"] is None else f"{row['gflops'] / peak:.0%}")
        if ours:
            cells.append(number(ratio(ours, row)))
        yield [*cells, f"{row['megabytes']:.0f}", f"{row['load']:.1f}"]


def plain_table(headers, rows):
    """A table of anything."""
    yield list(headers)
    for row in rows:
        yield [number(cell) if not isinstance(cell, str) else cell for cell in row]


def targets_table(found):
    """What is to be reached, what was, and whether."""
    yield ["part", "what", "measured", "target", "met"]
    for each in found:
        bound = f"{'at least' if each.at_least else 'at most'} {number(each.bound)}"
        met = {True: "yes", False: "NO", None: "not measured"}[each.met]
        yield [each.part, each.what, number(each.value), bound, met]


def number(value):
    """Three digits that matter."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def show(cells, markdown=False):
    """The lines of a table: in columns, or as Markdown. Columns of numbers stand to the right."""
    lines = [[str(cell) for cell in row] for row in cells]
    head, *body = lines
    words = [any(row[column][:1].isalpha() for row in body) for column in range(len(head))]
    if markdown:
        rule = ["---" if word else "---:" for word in words]
        return ["| " + " | ".join(row) + " |" for row in (head, rule, *body)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    places = list(zip(words, widths, strict=True))
    return [
        "  ".join(
            cell.ljust(width) if word else cell.rjust(width) for cell, (word, width) in zip(row, places, strict=True)
        ).rstrip()
        for row in lines
    ]
