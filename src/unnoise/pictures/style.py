"""One look for every picture: colours, text and the paper they stand on."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

RGB = tuple[int, int, int]

PAPER = "#ffffff"  # behind everything
WASH = "#f6f8fa"  # behind points and arrows, and in empty cells
RULE = "#e3e8ed"  # grid lines
FRAME = "#c9d1d9"  # hairlines around a picture
FAINT = "#b4bec9"  # a second cloud, behind the first
MUTED = "#5f6b77"  # second lines of captions, tick labels
INK = "#1d2630"  # titles and captions
PALETTE = ("#2f6db3", "#d97f28", "#27937a", "#bf4470", "#7b5cb8", "#8b8a2d", "#3fa3c4", "#a0603c", "#6b7785", "#d0659f")
RAMP = ("#a9c4de", "#5b93c9", "#2f6db3", "#3f3f96", "#5a1a6c")  # from small to large

TEXT = 12  # of captions, in pixels
TITLE = 16
GAP = 12  # between the frames of a row, and around it

_SPELLED = {
    "ᾱ": "alpha-bar", "²": "^2", "³": "^3", "−": "-", "–": "-", "—": "-", "×": "x", "→": "->", "←": "<-", "∞": "inf",
    "≤": "<=", "≥": ">=", "≈": "~", "√": "sqrt ", "‖": "||", "\t": " ", "ß": "ss",
}  # fmt: skip


def rgb(colour: str) -> RGB:
    """A colour as three numbers in [0, 255]."""
    return ImageColor.getrgb(colour)[:3]


def ramp(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours from pale blue to violet.

    Args:
        values: Shape (N,), in [0, 1].

    Returns:
        Shape (N, 3).
    """
    stops = np.array([rgb(colour) for colour in RAMP], dtype=np.float64)
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, at, stops[:, i]) for i in range(3)], 1).round().astype(np.uint8)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface, so that a picture looks the same on every machine."""
    return ImageFont.load_default(size)


@cache
def _drawable(char: str) -> bool:
    def shape(c: str) -> tuple[bytes, tuple[int, int]]:
        mask = font(24).getmask(c)
        return bytes(mask), mask.size

    return " " <= char <= "~" or (char.isprintable() and shape(char) != shape("\u0378"))


def spelled(text: str) -> str:
    """The text in characters that the typeface has: Greek letters by name, no accents, "?" for the rest."""
    text = "".join(_SPELLED.get(char, char) for char in unicodedata.normalize("NFC", text).replace("α\u0304", "ᾱ"))
    return "".join(_spell(char) for char in text)


@cache
def _spell(char: str) -> str:
    if char == "\n" or _drawable(char):
        return char
    words = unicodedata.name(char, "").split()
    if words[:1] == ["GREEK"] and words[2:3] == ["LETTER"]:
        return words[3].title() if words[1] == "CAPITAL" else words[3].lower()
    plain = [c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c)]
    return "".join(c if _drawable(c) else _spell(c) if c != char else "?" for c in plain)


def text_width(text: str, size: int) -> int:
    """The width of one line, in pixels."""
    return int(np.ceil(font(size).getlength(spelled(text))))


def line_height(size: int) -> int:
    """From one line of text to the next, in pixels."""
    return round(1.4 * size)


def wrapped(text: str, size: int, width: int, max_lines: int) -> list[str]:
    """The text in lines that fit a width; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    for line in spelled(text).split("\n"):
        lines.append("")
        for word in line.split():
            longer = f"{lines[-1]} {word}".strip()
            if not lines[-1] or text_width(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
    kept = lines[:max_lines]
    if len(lines) > max_lines:
        kept[-1] += "…"
    return [_cut(line, size, width) for line in kept]


def _cut(line: str, size: int, width: int) -> str:
    if text_width(line, size) <= width:
        return line
    line = line.rstrip("…")
    while line and text_width(line + "…", size) > width:
        line = line[:-1]
    return line.rstrip() + "…"


def write(
    picture: Image.Image, xy: tuple[float, float], text: str, size: int = TEXT, colour: str = INK, anchor: str = "la"
) -> None:
    """Writes one line on a picture, in place.

    Args:
        picture: What is written on.
        xy: Where the anchor stands, in pixels from the top left.
        text: One line.
        size: In pixels.
        colour: Of the letters.
        anchor: Pillow's two letters: l, m or r across; a (ascender), m, s (baseline) or d (descender) down.
    """
    ImageDraw.Draw(picture).text(xy, spelled(text), font=font(size), fill=colour, anchor=anchor)


def on_paper(picture: Image.Image) -> Image.Image:
    """The picture in RGB; what is transparent shows the paper."""
    if picture.mode == "RGB":
        return picture
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, PAPER), layer).convert("RGB")
    return picture.convert("RGB")
