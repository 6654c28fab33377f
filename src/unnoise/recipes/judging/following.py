"""How well a model of coloured shapes does what prompts say, over guidance scales and numbers of steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.base import Dataset, Progress
from ...data.scenes.scene import MOST_ALIKE, Split
from ...data.scenes.words import parse
from ...data.shapes import ShapesDataset, show
from ...errors import BadOption, DataError, RunFolderError
from ...evaluation.metrics.base import Cloud, Estimate, metrics
from ...evaluation.scenes.judging import Adherence, adherence, over_settings
from ...files import write_atomically
from ...model import Model
from ...model_folder import folder_beside
from .blocks import Block, BlockFolder, block_size, blocks
from .clouds import rows

METERS = ("saturation", "clipping")
"""What too much guidance does, measured beside how well prompts are followed."""

Setting = tuple[float, int]
"""A guidance scale, and a number of steps."""


@dataclass(frozen=True)
class Followed:
    """What was found.

    Args:
        prompts: What was asked for.
        found: By setting.
        made: The pictures, by setting; uint8 of shape (n, 3, side, side).
        meters: By setting, what too much guidance does, beside pictures that show the prompts as the data would.
        folder: Where it all stands.
    """

    prompts: tuple[str, ...]
    found: Mapping[Setting, Adherence]
    made: Mapping[Setting, Tensor]
    meters: Mapping[Setting, Mapping[str, Estimate]]
    folder: Path

    @property
    def best(self) -> Setting:
        """The setting at which most pictures show everything that was asked for; among equals the first."""
        return max(self.found, key=lambda setting: self.found[setting].shares["everything"].value)

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain values."""
        return {
            "holds": "adherence",
            "n": len(self.prompts),
            "best": {"guidance": self.best[0], "steps": self.best[1]},
            "settings": [
                {
                    "guidance": setting[0],
                    "steps": setting[1],
                    **each.as_dict(),
                    **{name: _plain(estimate) for name, estimate in self.meters[setting].items()},
                }
                for setting, each in self.found.items()
            ],
        }


def prompts_of(
    path: str | Path | None, n: int | None, split: Split, seed: int, most_objects: int = MOST_ALIKE
) -> tuple[str, ...]:
    """What is asked for: the lines of a file, or captions of the data set `shapes`.

    Args:
        path: Of the file; None for captions of pictures that are drawn by chance.
        n: How many; by default 500, or all lines.
        split: Which combinations are asked for, without a file.
        seed: Of the pictures.
        most_objects: In one picture, without a file.

    Raises:
        DataError: The file cannot be read, or holds no lines.
    """
    if path is None:
        drawn = ShapesDataset(split=split, seed=seed, most_objects=most_objects)
        return tuple(each.caption for each in drawn.pictures(range(n or 500)))
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; give a text file with a prompt in every line") from None
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise DataError(f"{path} holds no prompts: give a text file with one in every line")
    return found[:n]


def follow(
    model: Model,
    prompts: Sequence[str],
    *,
    guidance: Sequence[float] = (),
    steps: Sequence[int] = (),
    sampler: str | Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Followed | None:
    """Asks a model for every prompt at every setting, always from the same noise, and reads what comes.

    What was made stands in the folder, so that the same call goes on with it.

    Args:
        model: Trained on `shapes` with captions.
        prompts: What is asked for.
        guidance: Scales; the model's own by default.
        steps: From noise to data; the model's own by default.
        sampler: How to step; the model's own by default.
        seed: Of the noise.
        out: The folder; `adherence` beside the model by default.
        progress: Told how many pictures are made.
        stop: Asked between blocks of pictures.

    Returns:
        What was found; None where it was stopped.

    Raises:
        DataError: A prompt is not understood by the program that reads the pictures, or the model makes other pictures.
        BadOption: The model takes no prompts, or a setting is wrong.
        RunFolderError: The folder holds something else.
    """
    spec = model.spec
    if spec.kind != "image" or len(spec.shape) != 3 or spec.shape[0] != 3 or spec.shape[1] != spec.shape[2]:
        raise DataError(f"adherence is read from square colour pictures, and this model makes {spec.kind} {spec.shape}")
    if model.blueprint.text is None:
        raise BadOption("this model was trained without words, so that there is nothing that it could follow")
    for prompt in prompts:
        parse(prompt)  # what cannot be read is said before anything is made
    guidance, steps = tuple(guidance) or (model.sampling.guidance,), tuple(steps) or (model.sampling.steps,)
    folder = Path(out) if out is not None else folder_beside(model.path, "adherence")
    _claim(folder, {"model": model.hash, "prompts": _digest(prompts), "sampler": sampler, "seed": seed})
    todo, done = len(prompts) * len(guidance) * len(steps), 0
    made: dict[Setting, Tensor] = {}

    def sample(prompts: Sequence[str], scale: float, count: int) -> Tensor:
        nonlocal done
        kept = BlockFolder(folder / "samples" / f"guidance-{scale:g}-steps-{count}", block_size(spec.shape))
        for block in blocks(len(prompts), kept.size):
            if kept.read(block) is None:
                if stop():
                    raise _Stopped
                x = _made(model, prompts, block, guidance=scale, steps=count, sampler=sampler, seed=seed)
                kept.write(block, x)
            done += block.count
            if progress is not None:
                progress("pictures", done, todo)
        made[scale, count] = kept.all(len(prompts))
        return made[scale, count]

    try:
        found = over_settings(sample, prompts, guidance, steps)
    except _Stopped:
        return None
    real = show(next(iter(found.values())).prompts, seed, spec.shape[-1])
    meters = {setting: _meters(x, real) for setting, x in made.items()}
    return _kept(Followed(tuple(prompts), found, made, meters, folder))


def of_pictures(data: Dataset, folder: Path) -> Followed:
    """The same for pictures that are there already, with captions: whoever made them, or the data itself.

    Args:
        data: Square colour pictures with captions.
        folder: Where what is found is written.

    Raises:
        DataError: There are no captions, one of them is not understood, or these are no square colour pictures.
    """
    shape = data.spec.shape
    if data.texts is None or not len(data):
        raise DataError(
            "these pictures have no captions that they could be held against: see docs/data.md for where they go"
        )
    if data.spec.kind != "image" or shape[0] != 3 or shape[1] != shape[2]:
        raise DataError(f"adherence is read from square colour pictures, got {data.spec.kind} {shape}")
    setting = (1.0, 0)
    found = adherence(data.x, [text.partition("\n")[0] for text in data.texts])  # of several captions the first
    meters = _meters(data.x, show(found.prompts, size=shape[-1]))
    return _kept(Followed(data.texts, {setting: found}, {setting: data.x}, {setting: meters}, folder))


def _kept(followed: Followed) -> Followed:
    followed.folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(followed.as_dict(), indent=1) + "\n"
    write_atomically(followed.folder / "adherence.json", text.encode())
    return followed


class _Stopped(Exception):
    """Somebody asked for a stop."""


def _made(model: Model, prompts: Sequence[str], block: Block, **how: Any) -> Tensor:
    asked = list(prompts[block.first : block.first + block.count])
    return model.sample(block.count, prompt=asked, first=block.first, **how).tensor


def _meters(made: Tensor, real: Tensor) -> dict[str, Estimate]:
    if len(made) < 2:
        return {}
    ours, theirs = (Cloud(rows(x), shape=tuple(x.shape[1:])) for x in (made, real))
    return {name: metrics.build(name).measure(ours, theirs) for name in METERS}


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Makes sure that what stands in the folder was made by the same model for the same prompts."""
    file = folder / "settings.json"
    if file.is_file():
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            known = {}
        other = [name for name, value in settings.items() if known.get(name) != value]
        if other:
            raise RunFolderError(
                f"{folder} holds another measurement (it differs in {', '.join(other)}): use another --out"
            )
        return
    if folder.is_dir() and any(not each.name.startswith(".") for each in folder.iterdir()):
        raise RunFolderError(f"{folder} exists and holds no measurement of adherence: use another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, (json.dumps(dict(settings), indent=1) + "\n").encode())


def _digest(prompts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, **dict(estimate.details)}
