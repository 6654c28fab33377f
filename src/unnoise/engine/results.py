"""What was made, on disk: one folder for each request, which is there whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.base import Spec
from ..errors import DataError, NoSuchJob
from ..files import write_atomically
from ..samples import Samples

NUMBER = re.compile(r"\d{8}-\d{6}-\d{3}-[0-9a-f]{8}")
FACTS, SAMPLES, STEPS = "job.json", "samples.safetensors", "steps.safetensors"


@dataclass(frozen=True)
class Steps:
    """Every step of a request.

    Args:
        t: Times, shape (steps + 1,), float64; the first is the start.
        scale: What the noisy ones are divided by so that they can be seen, same shape; 1 but for images with much noise.
        noisy: The noisy samples in the units of the data, shape (steps + 1, n, ...).
        denoised: The estimates of the clean ones on the way, same shape; the first says nothing yet.
    """

    t: Tensor
    scale: Tensor
    noisy: Tensor
    denoised: Tensor


def new_number() -> str:
    """A number for a request: when it came, to the millisecond, and something that nobody guesses."""
    now = time.time()
    day = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{day}-{int(now * 1000) % 1000:03d}-{secrets.token_hex(4)}"


class Results:
    """The folder that holds what was made, and what is yet to be made where it must not be forgotten.

    Args:
        folder: Made where it is not there.

    Raises:
        OSError: It cannot be written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*.partial"):  # of a process that was killed
            if not _alive(left.name.split(".")[-2]):
                shutil.rmtree(left, ignore_errors=True)

    def place(self, number: str) -> Path:
        """The folder of a request, whether it is there or not.

        Raises:
            NoSuchJob: This is no number of a request.
        """
        if not NUMBER.fullmatch(number):
            raise NoSuchJob(f"no request has the number {number[:60]!r}")
        return self.folder / number

    def keep(self, number: str, samples: Samples, steps: Steps | None, facts: Mapping[str, Any], sync: bool) -> None:
        """Writes what a request has made.

        Args:
            number: Of the request.
            samples: What it made.
            steps: What led there, where that is kept.
            facts: Of the request, as JSON can hold them.
            sync: Whether it is to survive a loss of power, too, and not only the end of the process.

        Raises:
            OSError: The disk is full, or may not be written to.
        """
        place = self.place(number)
        partial = self.folder / f".{number}.{os.getpid()}.partial"
        write = write_atomically if sync else Path.write_bytes
        spec = {"kind": samples.spec.kind, "shape": samples.spec.shape, "class_names": samples.spec.class_names}
        whole = {**facts, "spec": spec, "notes": samples.notes, "recipe": dict(samples.recipe)}
        # It may be there already, of a process that was killed and had the same number, as it is in containers.
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            write(partial / SAMPLES, samples.encode(".safetensors"))
            if steps is not None:
                write(partial / STEPS, _packed(steps))
            write(partial / FACTS, json.dumps(whole, sort_keys=True).encode())
            os.replace(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if sync:
            _sync(self.folder)

    def numbers(self) -> list[str]:
        """Of all requests that something was made of, the newest first."""
        found = (each.name for each in self.folder.iterdir())
        return sorted((name for name in found if NUMBER.fullmatch(name)), reverse=True)

    def list(self, most: int | None = None) -> list[dict[str, Any]]:
        """The facts of what was made, the newest first; what is damaged is left out."""
        found: list[dict[str, Any]] = []
        for number in self.numbers():
            if most is not None and len(found) >= most:
                break
            try:
                found.append(self.facts(number))
            except (DataError, NoSuchJob):
                continue
        return found

    def facts(self, number: str) -> dict[str, Any]:
        """The facts of a request that something was made of, its recipe among them.

        Raises:
            NoSuchJob: There is none.
            DataError: The file is damaged.
        """
        file = self.place(number) / FACTS
        try:
            facts = json.loads(file.read_bytes())
            facts["recipe"], facts["spec"]["shape"]
        except FileNotFoundError:
            raise NoSuchJob(f"no request has the number {number!r}, or what it made was deleted") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is damaged: {error}") from None
        return dict(facts)

    def samples(self, number: str, frames: bool = False) -> Samples:
        """What a request made.

        Args:
            number: Of the request.
            frames: Whether with the noisy samples of every step, as for an animation; only where the steps were kept.

        Raises:
            NoSuchJob: There is none.
            DataError: A file is damaged, or frames are asked for and the steps were not kept, or not with all of their noise.
        """
        facts = self.facts(number)
        tensor = _tensors(self.place(number) / SAMPLES)["x"]
        spec = Spec(facts["spec"]["kind"], tuple(facts["spec"]["shape"]), tuple(facts["spec"]["class_names"]))
        made = Samples(tensor, spec, facts["recipe"], (), tuple(facts["notes"]))
        if not frames:
            return made
        steps = self.steps(number)
        if bool((steps.scale != 1).any()):
            raise DataError(
                "the steps of this model are kept with less noise than they have: `unnoise sample` animates it"
            )
        return replace(made, recipe={**made.recipe, "frames": True}, frames=tuple(steps.noisy.unbind()))

    def steps(self, number: str) -> Steps:
        """Every step of a request.

        Raises:
            NoSuchJob: There is none.
            DataError: They were not kept, or the file is damaged.
        """
        facts = self.facts(number)
        file = self.place(number) / STEPS
        if not file.is_file():
            raise DataError(f"the steps of {facts['id']} were not kept: ask with keep_steps")
        found = _tensors(file)
        return Steps(found["t"], found["scale"], found["noisy"], found["denoised"])

    def delete(self, number: str) -> None:
        """Deletes what a request made.

        Raises:
            NoSuchJob: There is nothing.
        """
        place, gone = self.place(number), self.folder / f".{number}.{os.getpid()}.partial"
        try:
            os.replace(place, gone)  # so that nobody sees half of it
        except FileNotFoundError:
            raise NoSuchJob(f"no request has the number {number!r}, or what it made was deleted") from None
        shutil.rmtree(gone, ignore_errors=True)


def _packed(steps: Steps) -> bytes:
    from safetensors.torch import save

    return save({name: getattr(steps, name).clone() for name in ("t", "scale", "noisy", "denoised")})


def _tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(file.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{file} is damaged: {error}") from None


def _alive(process: str) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True
    return True


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
