"""The models that requests may name: loaded when they are asked for, and put back when others need their memory."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from ..errors import BadOption, Busy, ModelFolderError, UnknownName
from ..model import Model
from ..model_folder import MODEL_FILE, model_place, read_description
from ..precision import Precision

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Card:
    """What one can know of a model without loading it.

    Args:
        name: What requests call it.
        path: Where it stands.
        kind: Of its samples: "points", "image" or "array"; else what the folder holds, such as "classifier"; empty if damaged.
        shape: Of one sample.
        labels: Those that it knows.
        takes_words: Whether it takes prompts.
        takes_embedded_guidance: Whether it is told the scale of a guidance that was distilled into it.
        parts: What it is made of, as its description says.
        sampling: How it is sampled when nothing is said.
        trained: How it came to be.
        bytes: Of its weights: in memory where it is loaded, else on disk.
        loaded: Whether it is in memory.
        at_work: How many requests hold it now.
        error: Why it cannot be loaded, in one line; empty if it can.
    """

    name: str
    path: str
    kind: str = ""
    shape: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    takes_words: bool = False
    takes_embedded_guidance: bool = False
    parts: Mapping[str, Any] | None = None
    sampling: Mapping[str, Any] | None = None
    trained: Mapping[str, Any] | None = None
    bytes: int = 0
    loaded: bool = False
    at_work: int = 0
    error: str = ""


@dataclass
class _Held:
    model: Model
    stamp: tuple[int, ...]
    bytes: int
    users: int = 0
    used: int = 0


class Shelf:
    """Models by name.

    Args:
        models: Folders of models, or of runs, by name.
        memory: Bytes of weights that may be loaded at once; None for half of what the device has.
        device: Where they sample; see `Model.on`.
        precision: What they compute in.

    Raises:
        BadOption: A name is none.
        ModelFolderError: A folder holds no model.
    """

    def __init__(
        self,
        models: Mapping[str, str | Path] | None = None,
        *,
        memory: int | None = None,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        self.memory = half_of_memory() if memory is None else memory
        self.device, self.precision = device, precision
        self.loads = 0
        """Models loaded so far, each time counted."""
        self._places: dict[str, str] = {}
        self._held: dict[str, _Held] = {}
        self._old: list[_Held] = []  # of folders that have changed, while requests still work with them
        self._loading: dict[str, int] = {}
        self._told: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}  # descriptions, by where they stand
        self._changed = threading.Condition()
        self._clock = itertools.count(1)
        for name, path in (models or {}).items():
            self.add(path, name)

    def add(self, path: str | Path, name: str | None = None) -> str:
        """Puts a model on the shelf, without loading it.

        Args:
            path: Its folder, or the run folder around it.
            name: What requests call it; the name of the folder by default.

        Returns:
            The name.

        Raises:
            BadOption: The name is none, or another model has it.
            ModelFolderError: There is no model.
        """
        name = Path(path).resolve().name if name is None else name
        if not NAME.fullmatch(name):
            raise BadOption(f"{name!r} is no name for a model: letters, digits and . _ - do, up to 100; give NAME=PATH")
        read_description(model_place(path))
        with self._changed:
            other = self._places.get(name)
            if other is not None and Path(other).resolve() != Path(path).resolve():
                raise BadOption(
                    f"two models would be called {name!r}: {other} and {path}; give one another name, NAME=PATH"
                )
            self._places.setdefault(name, str(path))
        return name

    def remove(self, name: str) -> None:
        """Takes a model off the shelf; requests that hold it go on, and its folder stays.

        Raises:
            UnknownName: There is none.
        """
        with self._changed:
            self.place(name)
            del self._places[name]
            self._retire(name)

    def names(self) -> list[str]:
        """Of all models, sorted."""
        return sorted(self._places)

    def place(self, name: object) -> str:
        """Where a model stands.

        Raises:
            UnknownName: There is none of this name.
        """
        if not isinstance(name, str) or name not in self._places:
            raise UnknownName("model", name, self._places)
        return self._places[name]

    def cards(self) -> list[Card]:
        """What can be known of each model without loading it."""
        return [self.card(name) for name in self.names()]

    def card(self, name: str) -> Card:
        """What can be known of a model without loading it.

        Raises:
            UnknownName: There is none of this name.
        """
        path, held = self.place(name), self._held.get(name)
        try:
            folder = model_place(path)
            told = self._description(path, folder)
            data, words = told["data"], told.get("conditioning", {})
            shape = data["shape"] if isinstance(data, dict) else data
            return Card(
                name, path, kind=told.get("kind") or str(data["kind"]), shape=tuple(shape),
                labels=tuple(map(str, words.get("label", ()))), takes_words="text" in words,
                takes_embedded_guidance=told.get("network", {}).get("guidance") is True,
                parts={key: told[key] for key in ("process", "denoiser", "network", "codec") if key in told},
                sampling=told.get("sampling"), trained=told.get("trained"),
                bytes=_on_disk(folder) if held is None else held.bytes, loaded=held is not None,
                at_work=0 if held is None else held.users,
            )  # fmt: skip
        except (ModelFolderError, KeyError, TypeError, ValueError, AttributeError) as error:
            return Card(name, path, error=" ".join(str(error).split()))

    def _description(self, path: str, folder: Path) -> dict[str, Any]:
        """What a folder says of its model, read anew where it has changed; parsing it takes ten milliseconds."""
        stamp = _stamp(Path(path)) if (folder / MODEL_FILE).is_file() else ()
        known = self._told.get(path)
        if known is None or known[0] != stamp:
            known = self._told[path] = stamp, read_description(folder)
        return known[1]

    def loaded(self) -> int:
        """Bytes of all weights in memory."""
        with self._changed:
            return self._in_memory()

    @contextmanager
    def borrow(self, name: str, patience: float = 60.0) -> Iterator[Model]:
        """A model, loaded if it is not yet, or its folder has changed; it stays in memory for as long as this lasts.

        Args:
            name: On the shelf.
            patience: Seconds to wait for memory that models at work hold.

        Raises:
            UnknownName: There is none of this name.
            ModelFolderError: It cannot be loaded.
            BadOption: It is larger than the memory that models may take.
            Busy: Models at work hold the memory for longer than one would wait.
        """
        held = self._take(name, patience)
        try:
            yield held.model
        finally:
            bytes_now = held.model.memory()
            with self._changed:
                held.users -= 1
                held.bytes = bytes_now  # what helps to guide it may have been loaded meanwhile
                self._old = [each for each in self._old if each.users]
                self._changed.notify_all()

    def _take(self, name: str, patience: float) -> _Held:
        path = self.place(name)
        place = Path(path)
        stamp = _stamp(place)
        with self._changed:
            while name in self._loading:
                self._changed.wait()
            held = self._held.get(name)
            if held is None or held.stamp != stamp:
                self._retire(name)
                self._loading[name] = 0
                held = None
            else:
                held.users, held.used = held.users + 1, next(self._clock)
                return held
        try:
            self._make_room(name, _on_disk(model_place(place)), patience)
            model = Model.load(path).on(self.device, self.precision)
            held = _Held(model, stamp, model.memory(), 1, next(self._clock))
        finally:
            with self._changed:
                del self._loading[name]
                if held is not None:
                    self._held[name] = held
                    self.loads += 1
                self._changed.notify_all()
        return held

    def _retire(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None and held.users:
            self._old.append(held)

    def _in_memory(self) -> int:
        return sum(each.bytes for each in (*self._held.values(), *self._old)) + sum(self._loading.values())

    def _make_room(self, name: str, needed: int, patience: float) -> None:
        """Puts back what was used least recently, and waits for what is at work, until there is room for one more model."""
        if needed > self.memory:
            raise BadOption(
                f"model {name!r} takes {needed / 1e6:,.1f} MB, and all models together may take {self.memory / 1e6:,.1f}: "
                "allow more"
            )
        until = monotonic() + patience
        with self._changed:
            while self._in_memory() + needed > self.memory:
                idle = [each for each, held in self._held.items() if not held.users]
                if idle:
                    del self._held[min(idle, key=lambda each: self._held[each].used)]
                elif not self._changed.wait(until - monotonic()):
                    raise Busy(f"model {name!r} must wait for memory, which other models at work hold: ask again later")
            self._loading[name] = needed


def half_of_memory() -> int:
    """Half the bytes that this machine's GPU has, or its memory where it has none."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory // 2)
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # not on every system
        return 2**33


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a folder gets another model."""
    status = (model_place(path) / MODEL_FILE).stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
