"""Captions that lie beside pictures: a metadata.jsonl, or a text file of the same name."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from ..errors import DataError

METADATA = "metadata.jsonl"


def find_captions(
    root: Path, names: Sequence[str], others: Collection[str]
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The captions of pictures, if every one has a caption.

    Args:
        root: The folder.
        names: The N pictures, relative to it.
        others: The files in it that are no pictures, relative to it.

    Returns:
        N captions or None, and a line that says so when some pictures have one and others do not.

    Raises:
        DataError: A line of metadata.jsonl cannot be read.
    """
    captions = captions_of(root, names, others)
    complete = tuple(caption for caption in captions if caption)
    if len(complete) == len(names):
        return complete, ()
    return None, tuple(f"captions: none are used, for {missing}" for missing in without(names, captions))


def captions_of(root: Path, names: Sequence[str], others: Collection[str]) -> list[str | None]:
    """The caption of each picture, None where there is none; see `find_captions`."""
    known = _from_metadata(root / METADATA) if METADATA in others else {}
    beside = set(others)
    return [known.get(name) or _from_text_file(root, name, beside) or None for name in names]


def without(names: Sequence[str], captions: Sequence[str | None]) -> tuple[str, ...]:
    """Which pictures have no caption, as a line, where others have one.

    Args:
        names: The N pictures.
        captions: Of each.
    """
    missing = [name for name, caption in zip(names, captions, strict=True) if caption is None]
    if not missing or len(missing) == len(names):
        return ()
    return (f"{len(missing)} of {len(names)} images have none, e.g. {missing[0]}",)


def _from_metadata(path: Path) -> dict[str, str]:
    captions = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            name = record["file_name"]
        except (ValueError, KeyError, TypeError):
            expected = '{"file_name": ..., "text": ...}'
            raise DataError(f"{path}, line {number}: expected {expected}, got {line[:60]}") from None
        if isinstance(text := record.get("text"), str):
            captions[PurePosixPath(str(name)).as_posix()] = text.strip()
    return captions


def _from_text_file(root: Path, name: str, beside: Collection[str]) -> str | None:
    text_file = PurePosixPath(name).with_suffix(".txt").as_posix()
    return _read_text(root / text_file).strip() if text_file in beside else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None
