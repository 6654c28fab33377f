"""Pictures in a row with words under them, and rows under each other."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ..errors import BadOption
from . import style


def strip(
    frames: Sequence[Image.Image], captions: Sequence[str] | None = None, title: str | None = None
) -> Image.Image:
    """Pictures in a row, each with its caption under it: the forward process, or a sample that comes out of the noise.

    The words are larger under larger pictures, so that the row can be shown small.

    Args:
        frames: From left to right.
        captions: One for each; its lines are parted by newlines, and the first is the strongest.
        title: A line above the row.

    Raises:
        BadOption: There are no frames, or not as many captions.
    """
    captions = [""] * len(frames) if captions is None else captions
    if not frames or len(captions) != len(frames):
        raise BadOption(f"captions: expected one for each of at least one frame, got {len(captions)} for {len(frames)}")
    size = _text_size(max(frame.width for frame in frames))
    gap = max(style.GAP, size * 3 // 4)
    words = [caption.split("\n") if caption else [] for caption in captions]
    widths = [
        max(frame.width, *(style.text_width(line, size) for line in [*lines, ""]))
        for frame, lines in zip(frames, words, strict=True)
    ]
    height = max(frame.height for frame in frames)
    line = style.line_height(size)
    below = max(map(len, words)) * line
    sheet = Image.new(
        "RGB", (sum(widths) + gap * (len(frames) + 1), gap + height + (below and below + size // 2) + gap), style.PAPER
    )
    x = gap
    for frame, lines, width in zip(frames, words, widths, strict=True):
        sheet.paste(style.on_paper(frame), (x + (width - frame.width) // 2, gap + (height - frame.height) // 2))
        for i, text in enumerate(lines):
            at = (x + width / 2, gap + height + size // 2 + i * line)
            style.write(sheet, at, text, size, style.INK if i == 0 else style.MUTED, "ma")
        x += width + gap
    return sheet if title is None else stack([sheet], [title])


def stack(rows: Sequence[Image.Image], titles: Sequence[str] | None = None) -> Image.Image:
    """Rows under each other, flush left, each with its title above it: one schedule beneath another.

    Args:
        rows: From top to bottom.
        titles: One for each; an empty one takes no space.

    Raises:
        BadOption: There are no rows, or not as many titles.
    """
    titles = [""] * len(rows) if titles is None else titles
    if not rows or len(titles) != len(rows):
        raise BadOption(f"titles: expected one for each of at least one row, got {len(titles)} for {len(rows)}")
    size = max(style.TITLE, _text_size(max(row.height for row in rows)))
    above = [style.GAP + size if title else 0 for title in titles]
    words = max(style.text_width(title, size) for title in titles) + 2 * style.GAP
    sheet = Image.new(
        "RGB", (max(words, *(row.width for row in rows)), sum(above) + sum(row.height for row in rows)), style.PAPER
    )
    y = 0
    for row, title, space in zip(rows, titles, above, strict=True):
        sheet.paste(style.on_paper(row), (0, y + space))
        if title:
            style.write(sheet, (style.GAP, y + style.GAP - 1), title, size)
        y += space + row.height
    return sheet


def _text_size(width: int) -> int:
    return min(max(style.TEXT, round(width / 14)), 28)
