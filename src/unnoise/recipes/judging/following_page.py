"""The page of a measurement of adherence: a table over settings, what went wrong, and pictures to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...evaluation.adherence import Share
from ...evaluation.scenes.judging import ASPECTS, GROUPS, Adherence, Marks
from ...pictures.grid import image_grid
from ...pictures.heatmap import picture_matrix
from ...pictures.page import Page
from .following import Followed, Setting
from .page import WIDE

SHOWN, IN_CELL = 32, 4
COLUMNS = ("colour", "shape", "size", "relation", "count")
HEADERS = (
    "guidance",
    "steps",
    "all right",
    "95 % interval",
    *GROUPS,
    *COLUMNS,
    "binding errors",
    "saturation",
    "clipping",
)


def table(followed: Followed) -> list[tuple[str, ...]]:
    """A line for every setting, as `HEADERS` says."""
    return [_line(followed, setting) for setting in followed.found]


def _line(followed: Followed, setting: Setting) -> tuple[str, ...]:
    found, meters = followed.found[setting], followed.meters[setting]
    shares, groups = found.shares, found.groups
    everything = shares["everything"]
    made = setting[1] > 0
    return (
        f"{setting[0]:g}" if made else "",
        str(setting[1]) if made else "",
        _percent(everything),
        f"{everything.low:.1%} to {everything.high:.1%}",
        *(_percent(groups.get(name, {}).get("everything")) for name in GROUPS),
        *(_percent(shares.get(name)) for name in COLUMNS),
        _percent(found.binding_errors),
        *(f"{meters[name].details['off']:+.1%}" if name in meters else "" for name in ("saturation", "clipping")),
    )


def _percent(share: Share | None) -> str:
    return "" if share is None else f"{share.value:.1%}"


def write_page(followed: Followed, name: str, command: str = "") -> Path:
    """Writes `index.html`, which needs nothing but itself.

    Args:
        followed: What was found.
        name: Of what was judged.
        command: The command that a person gave.
    """
    best = followed.best
    page = Page(
        f"Does {name} do what it is told?", f"{len(followed.prompts):,} prompts at every setting, from the same noise."
    )
    page.table(
        HEADERS,
        table(followed),
        "*All right*: everything that was asked for is there, and nothing else. *Binding errors*: of pictures of two things, "
        "those that show the right colours, shapes and sizes on the wrong objects. *Saturation* and *clipping*: how far chroma, "
        "and the share of pixel values that are cut off, are from those of real pictures.",
    )
    if len(followed.found) > 1:
        page.heading("The settings side by side")
        page.picture(
            _matrix(followed), "The same prompts and the same noise at every setting.", "Pictures by setting", WIDE
        )
    page.heading(f"Guidance {best[0]:g}, {best[1]} steps" if best[1] else "The pictures")
    chosen_here = (
        " The setting was chosen by these pictures, so expect a little less of new ones."
        if len(followed.found) > 1
        else ""
    )
    below = f"With Wilson's intervals.{chosen_here}"
    page.table(("", "right", "95 % interval", "pictures"), _aspects(followed.found[best]), below)
    for heading, chosen in (("The first", range(SHOWN)), ("What went wrong", _wrong(followed.found[best]))):
        some = [i for i in chosen if i < len(followed.prompts)][:SHOWN]
        if some:
            captions = [_caption(followed.prompts[i], followed.found[best].marks[i]) for i in some]
            page.heading(heading, 3)
            page.picture(image_grid(followed.made[best][some], columns=8, captions=captions), "", heading, WIDE)
    if command:
        page.heading("How this was made")
        page.code(command)
    return page.save(followed.folder / "index.html")


def _aspects(found: Adherence) -> list[tuple[str, str, str, str]]:
    lines = []
    for group, shares in {"all": found.shares, **found.groups}.items():
        for aspect in ASPECTS:
            if each := shares.get(aspect):
                name = "bound to the right object" if aspect == "bound" else aspect
                lines.append(
                    (f"{group}: {name}", f"{each.value:.1%}", f"{each.low:.1%} to {each.high:.1%}", f"{each.trials:,}")
                )
    return lines


def _wrong(found: Adherence) -> Sequence[int]:
    return [i for i, marks in enumerate(found.marks) if not marks.everything]


def _caption(prompt: str, marks: Marks) -> str:
    wrong = [name for name in COLUMNS if getattr(marks, name) is False]
    if marks.bound is False:
        wrong.append("binding")
    return prompt if marks.everything else f"{prompt} - wrong: {', '.join(wrong) or 'combination'}"


def _matrix(followed: Followed) -> Image.Image:
    scales = sorted({scale for scale, _ in followed.found})
    counts = sorted({count for _, count in followed.found})
    cells = [
        [
            image_grid(followed.made[scale, count][:IN_CELL], columns=2) if (scale, count) in followed.made else None
            for count in counts
        ]
        for scale in scales
    ]
    return picture_matrix(cells, [f"{s:g}" for s in scales], [str(c) for c in counts], "guidance", "steps")
