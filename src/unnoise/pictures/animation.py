"""Pictures one after another in one file: GIF, animated PNG, WebP."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import BadOption, ShapeError
from . import style
from .saving import replace

FORMATS = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP"}
_SUFFIXES = ", ".join(FORMATS)
_PALETTE_FRAMES = 16  # that a GIF takes its colours from
_DESCRIPTION = 0x010E  # EXIF tag: what WebP has for comments


def save_animation(
    frames: Sequence[Image.Image],
    target: str | os.PathLike[str] | BinaryIO,
    fps: float = 12,
    hold_last: float = 1.0,
    comment: str | None = None,
    format: str | None = None,
) -> None:
    """Saves pictures as an animation that runs for ever and rests on the last one.

    A GIF takes one palette of 256 colours for all of its frames, without dithering, and counts time in hundredths of a
    second; the other two formats keep every colour. Frames that equal their predecessor are merged into a longer one.

    Args:
        frames: Of one size; what is transparent shows white paper.
        target: A path, which is replaced atomically, or a binary stream.
        fps: Frames a second, in (0, 100].
        hold_last: How much longer the last frame stays, in seconds.
        comment: Text that travels in the file; `read_comment` gives it back.
        format: "gif", "png", "apng" or "webp"; by default, the suffix of the path.

    Raises:
        BadOption: The format is not one of these, there are no frames, or a time is out of its range.
        ShapeError: The frames have different sizes.
    """
    kind = _format(target, format)
    if not 0 < fps <= 100:
        raise BadOption(f"fps: must be in (0, 100], got {fps}")
    if not 0 <= hold_last <= 600:
        raise BadOption(f"hold_last: must be in [0, 600] seconds, got {hold_last}")
    if not frames:
        raise BadOption("frames: expected at least one picture, got none")
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ShapeError(f"expected frames of one size, got {', '.join(f'{w}x{h}' for w, h in sorted(sizes))}")
    unit = 10 if kind == "GIF" else 1
    each = max(round(1000 / fps / unit), 1) * unit
    last = each + round(hold_last * 1000 / unit) * unit
    content = _encode([style.on_paper(frame) for frame in frames], kind, [each] * (len(frames) - 1) + [last], comment)
    if isinstance(target, (str, os.PathLike)):
        replace(target, content)
    else:
        target.write(content)


def _format(target: str | os.PathLike[str] | BinaryIO, format: str | None) -> str:
    if format is None and not isinstance(target, (str, os.PathLike)):
        raise BadOption(f"format: a stream has no suffix, so say one of {_SUFFIXES}")
    suffix = format if format is not None else os.path.splitext(os.fspath(target))[1]  # type: ignore[arg-type]
    kind = FORMATS.get("." + suffix.lower().lstrip("."))
    if kind is None:
        raise BadOption(f"format: an animation is saved as one of {_SUFFIXES}, got {suffix or 'no suffix'!r}")
    return kind


def _encode(frames: list[Image.Image], kind: str, durations: list[int], comment: str | None) -> bytes:
    options: dict[str, Any] = {}
    if kind == "GIF":
        frames = _one_palette(frames)
        options = {"optimize": False, "disposal": 1} | ({"comment": comment.encode()} if comment else {})
    elif kind == "PNG":
        options["optimize"] = True
        if comment:
            options["pnginfo"] = PngInfo()
            options["pnginfo"].add_itxt("Comment", comment)
    else:
        options = {"lossless": True, "method": 4, "quality": 60}
        if comment:
            exif = Image.Exif()
            exif[_DESCRIPTION] = comment.encode()
            options["exif"] = exif
    stream = io.BytesIO()
    if kind == "PNG" and len(frames) == 1:
        frames[0].save(stream, "PNG", **options)
    else:
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)
    return stream.getvalue()


def _one_palette(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames in 256 colours that are the same for all, chosen from frames spread over the whole run."""
    num = min(len(frames), _PALETTE_FRAMES)
    chosen = [frames[round(i * (len(frames) - 1) / max(num - 1, 1))] for i in range(num)]
    width, height = chosen[0].size
    sheet = Image.new("RGB", (width, height * num))
    for i, frame in enumerate(chosen):
        sheet.paste(frame, (0, i * height))
    palette = sheet.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def read_comment(source: str | os.PathLike[str] | BinaryIO) -> str | None:
    """The comment that `save_animation` put into a file, or None."""
    with Image.open(source) as picture:
        if picture.format == "GIF":
            comment = picture.info.get("comment")
            return comment.decode() if comment else None
        if picture.format == "PNG":
            comment = picture.info.get("Comment")
            return str(comment) if comment else None
        comment = picture.getexif().get(_DESCRIPTION)
        return comment.encode("latin-1").decode() if comment else None
