"""One HTML page that needs nothing but itself: no network, no script, no second file."""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..errors import BadOption, ShapeError
from .saving import replace
from .stylesheet import CSS

_MEDIA = {"PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp", "JPEG": "image/jpeg"}
_NUMBER = re.compile(r"\s*[-+−±<>≤≥~]?\s*[\d.,]+([eE][-+]?\d+)?\s*(±\s*[\d.,]+)?\s*[%×x]?\s*")


@dataclass(frozen=True)
class Picture:
    """A picture on a page.

    Args:
        image: A picture, or the bytes of a PNG, GIF, WebP or JPEG file.
        caption: Under it, with the marks of `Page.text`.
        alt: What it shows, in words, for whom does not see it; by default, the caption.
        width: On the page, in CSS pixels; by default, its own. It never exceeds the column.
        pixelated: Whether its pixels stay sharp squares when it is enlarged.
    """

    image: Image.Image | bytes
    caption: str = ""
    alt: str = ""
    width: int | None = None
    pixelated: bool = False

    def html(self) -> str:
        """The figure element.

        Raises:
            BadOption: The bytes are no picture that a browser shows.
        """
        content, media, (width, height) = _content(self.image)
        shown = width if self.width is None else self.width
        if shown < 1:
            raise BadOption(f"width: must be at least 1 pixel, got {shown}")
        alt = html.escape(self.alt or re.sub(r"[*`]", "", self.caption), quote=True)
        data = base64.b64encode(content).decode()
        pixelated = ' class="pixelated"' if self.pixelated else ""
        caption = f"<figcaption>{_marked(self.caption)}</figcaption>" if self.caption else ""
        return (
            f'<figure style="--width:{shown}px"><img{pixelated} src="data:{media};base64,{data}" alt="{alt}" '
            f'width="{width}" height="{height}">{caption}</figure>'
        )


def _content(image: Image.Image | bytes) -> tuple[bytes, str, tuple[int, int]]:
    if isinstance(image, Image.Image):
        stream = io.BytesIO()
        image.save(stream, "PNG", optimize=True)
        return stream.getvalue(), _MEDIA["PNG"], image.size
    try:
        with Image.open(io.BytesIO(image)) as opened:
            kind, size = opened.format or "", opened.size
    except UnidentifiedImageError:
        kind, size = "unknown bytes", (0, 0)
    if kind not in _MEDIA:
        raise BadOption(f"image: expected a picture, or the bytes of one of {', '.join(_MEDIA)}, got {kind}")
    return image, _MEDIA[kind], size


def _marked(text: str) -> str:
    """One escaped line, with **strong**, *emphasised* and `code` parts."""
    parts = re.split(r"`([^`]+)`", text)
    for i, part in enumerate(parts):
        escaped = html.escape(part, quote=True)
        if i % 2:
            parts[i] = f"<code>{escaped}</code>"
        else:
            escaped = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"<strong>\1</strong>", escaped)
            parts[i] = re.sub(r"(?<![*\w])\*(\S(?:[^*]*?\S)?)\*(?![*\w])", r"<em>\1</em>", escaped)
    return "".join(parts)


class Page:
    """A page that is filled from top to bottom: light or dark as the reader's system says, narrow screens welcome.

    Args:
        title: The first heading, and the name of the browser's tab.
        subtitle: A line under it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._parts: list[str] = []

    def heading(self, text: str, level: int = 2) -> None:
        """Adds a heading, of level 2 or 3."""
        if level not in (2, 3):
            raise BadOption(f"level: expected 2 or 3, got {level}")
        self._parts.append(f"<h{level}>{_marked(text)}</h{level}>")

    def text(self, text: str) -> None:
        """Adds paragraphs, parted by empty lines, with **strong**, *emphasised* and `code` parts.

        Lines that begin with "- " are a list. Everything else is shown as it is written, HTML included.
        """
        for block in re.split(r"\n\s*\n", text.strip()):
            rows = [row.strip() for row in block.splitlines() if row.strip()]
            if rows and all(row.startswith("- ") for row in rows):
                items = "".join(f"<li>{_marked(row[2:])}</li>" for row in rows)
                self._parts.append(f"<ul>{items}</ul>")
            elif rows:
                self._parts.append(f"<p>{_marked(' '.join(rows))}</p>")

    def picture(
        self,
        image: Image.Image | bytes,
        caption: str = "",
        alt: str = "",
        width: int | None = None,
        pixelated: bool = False,
    ) -> None:
        """Adds a picture; see `Picture` for the arguments."""
        self._parts.append(Picture(image, caption, alt, width, pixelated).html())

    def columns(self, pictures: Sequence[Picture]) -> None:
        """Adds pictures side by side; they wrap where the screen is narrow."""
        self._parts.append(f'<div class="columns">{"".join(picture.html() for picture in pictures)}</div>')

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> None:
        """Adds a table; columns that hold nothing but numbers stand flush right.

        Args:
            headers: One for each column.
            rows: Of cells; a cell is shown as `str` gives it, with the marks of `text`.
            caption: Under the table.

        Raises:
            ShapeError: A row is not as long as the headers.
        """
        for i, row in enumerate(rows):
            if len(row) != len(headers):
                raise ShapeError(f"expected {len(headers)} cells in every row, got {len(row)} in row {i}")
        cells = [[str(cell) for cell in row] for row in rows]
        right = [
            bool(cells) and all(_NUMBER.fullmatch(row[i]) or not row[i] for row in cells) for i in range(len(headers))
        ]

        flush = {True: ' class="right"', False: ""}

        def line(tag: str, row: Sequence[str]) -> str:
            made = [f"<{tag}{flush[right[i]]}>{_marked(cell)}</{tag}>" for i, cell in enumerate(row)]
            return f"<tr>{''.join(made)}</tr>"

        body = "".join(line("td", row) for row in cells)
        below = f"<figcaption>{_marked(caption)}</figcaption>" if caption else ""
        table = f"<table><thead>{line('th', headers)}</thead><tbody>{body}</tbody></table>"
        self._parts.append(f'<figure class="table"><div class="scroll">{table}</div>{below}</figure>')

    def code(self, text: str) -> None:
        """Adds lines as they are, in a typewriter face."""
        self._parts.append(f"<pre><code>{html.escape(text)}</code></pre>")

    def html(self) -> str:
        """The whole page."""
        subtitle = f'<p class="subtitle">{_marked(self.subtitle)}</p>' if self.subtitle else ""
        body = "\n".join(self._parts)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
            f"<title>{html.escape(self.title)}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n"
            f"<header><h1>{html.escape(self.title)}</h1>{subtitle}</header>\n{body}\n</main>\n</body>\n</html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page, replacing an older one at once, and gives back its path."""
        return replace(path, self.html().encode())
