"""What a model made, as data, as pictures, and as files that carry the recipe they were made by."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .data.base import Spec
from .errors import BadOption, DataError
from .files import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

KEY = "unnoise"
CONDITIONS = "label", "prompt", "negative_prompt", "boxes", "map", "embedded_guidance"
"""What a recipe may say of what samples are to be."""
PER_SAMPLE = (*CONDITIONS, "image")
"""What a recipe may hold a list of, with one for each sample."""
LONGEST_IN_EXIF = 32_000  # characters, of two bytes each
PART_IN_JPEG = 65_000
"""Bytes of a longer recipe in each of the segments of a JPEG that hold it (APP15, "unnoise" and a zero before each part)."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".apng", ".npz", ".csv", ".safetensors")


@dataclass(frozen=True)
class Samples:
    """What a model made.

    Args:
        tensor: In the units of the data: uint8 of shape (n, C, H, W) for images, else float32 of shape (n, *shape).
        spec: What one sample is.
        recipe: How it was made; enough to make it again.
        frames: For animations, previews of every step of the same shape as `tensor`, noise first; empty if not kept.
        notes: What is worth knowing of what was asked for, such as words that the model never saw.
    """

    tensor: Tensor
    spec: Spec
    recipe: Mapping[str, Any]
    frames: tuple[Tensor, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tensor)

    def images(self) -> list[Image]:
        """A picture of every sample; of points, one picture of them all."""
        from .pictures.grid import to_images
        from .pictures.points import scatter

        if self.spec.kind == "image":
            return to_images(self.tensor)
        if self.spec.kind == "points":
            return [scatter(self.tensor.numpy())]
        raise DataError(f"samples of shape {self.spec.shape} have no picture: save them as .npz")

    def picture(self, tensor: Tensor | None = None) -> Image:
        """One picture of all samples: a grid of images, or a scatter plot of points.

        Args:
            tensor: Other samples of the same kind to draw so, such as a frame.
        """
        from .pictures.grid import image_grid
        from .pictures.points import scatter

        tensor = self.tensor if tensor is None else tensor
        if self.spec.kind == "image":
            return image_grid(tensor)
        if self.spec.kind == "points":
            return scatter(tensor.numpy(), limits=_window(self.tensor.numpy()))
        raise DataError(f"samples of shape {self.spec.shape} have no picture: save them as .npz")

    def save(self, path: str | Path) -> list[Path]:
        """Writes the samples, with their recipe in the file's metadata.

        Args:
            path: A picture of all (.png .jpg .webp), an animation of the steps (.gif .apng), data (.npz .csv .safetensors),
                or a folder, which gets one file a sample.

        Returns:
            The files written.

        Raises:
            BadOption: The suffix is not known, or the samples cannot be written so.
            OSError: The file cannot be written.
        """
        path = Path(path)
        check_target(path, self.spec)
        suffix = path.suffix.lower()
        if not suffix or path.is_dir():
            return self._save_folder(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.encode(suffix))
        return [path]

    def _save_folder(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, content in self.files():
            write_atomically(folder / name, content)
            written.append(folder / name)
        return written

    def files(self) -> Iterator[tuple[str, bytes]]:
        """One file for each sample: its name in a folder, and its bytes.

        Each carries the recipe of its own batch, so that its bytes do not depend on how many samples stand beside it.
        """
        for i in range(len(self)):
            one = self.one(i)
            name = file_of_one(self.spec, one.recipe["index"])
            yield name, one.encode(Path(name).suffix)

    def one(self, i: int) -> Samples:
        """One sample as `save` writes it into a folder, with the recipe of its own batch.

        Args:
            i: Its place among these.
        """
        recipe = recipe_of_one(self.recipe, self.recipe.get("index", self.recipe["first"]) + i)
        return replace(self, tensor=self.tensor[i : i + 1], recipe=recipe, frames=())

    def encode(self, suffix: str) -> bytes:
        """The bytes of the file that `save` would write.

        Args:
            suffix: Of the file: .png and the like.

        Raises:
            BadOption: The suffix is not known, or the samples cannot be written so.
        """
        check_target(Path(f"samples{suffix}"), self.spec)
        text = json.dumps(self.recipe, sort_keys=True)
        data: dict[str, Callable[[str], bytes]] = {
            ".npz": self._npz,
            ".csv": self._csv,
            ".safetensors": self._safetensors,
        }
        if suffix in data:
            return data[suffix](text)
        if suffix in (".gif", ".apng"):
            return self._animation(suffix, text)
        image = self.images()[0] if "index" in self.recipe else self.picture()
        return encode_image(image, suffix, text, _readable(self.recipe))

    def _animation(self, suffix: str, text: str) -> bytes:
        from .pictures.animation import save_animation

        if not self.frames:
            raise BadOption("an animation needs the frames: sample with keep_frames=True")
        buffer = io.BytesIO()
        frames = [self.picture(frame) for frame in self.frames]
        save_animation(frames, buffer, format=suffix[1:], comment=f"{KEY}: {text}")
        return buffer.getvalue()

    def _npz(self, text: str) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, x=self.tensor.numpy(), recipe=np.array(text))
        return buffer.getvalue()

    def _csv(self, text: str) -> bytes:
        header = ",".join("xyz"[i] if self.spec.shape[0] <= 3 else f"x{i}" for i in range(self.spec.shape[0]))
        rows = [",".join(repr(v) for v in row) for row in self.tensor.double().tolist()]
        return "\n".join([f"# {KEY}: {text}", header, *rows, ""]).encode()

    def _safetensors(self, text: str) -> bytes:
        from safetensors.torch import save

        return save({"x": self.tensor.contiguous()}, metadata={KEY: text})


def file_of_one(spec: Spec, index: int) -> str:
    """The name of the file that one sample has in a folder.

    Args:
        spec: What a sample is.
        index: Its number.
    """
    return f"{index:06d}{'.png' if spec.kind == 'image' else '.npz'}"


def recipe_of_one(recipe: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The recipe of one of many samples: that of its batch, since a batch of another size may round otherwise.

    Args:
        recipe: Of all of them.
        index: The number of the one.
    """
    size, begin = recipe["batch_size"], recipe["first"]
    low = (index - begin) // size * size
    n = min(size, recipe["n"] - low)
    asked = {name: recipe[name] for name in PER_SAMPLE if name in recipe}
    part = {name: value[low : low + n] if isinstance(value, list) else value for name, value in asked.items()}
    return {**recipe, "n": n, "first": begin + low, **part, "index": index}


def check_target(path: Path, spec: Spec | None = None) -> None:
    """Refuses a file that samples cannot be written to, before anything is computed for it.

    Args:
        path: The file or folder.
        spec: What a sample is, where it is known.

    Raises:
        BadOption: The suffix is not known, or not one for such samples.
    """
    suffix = path.suffix.lower()
    if suffix and not path.is_dir() and suffix not in SUFFIXES:
        why = "cannot carry a recipe; use .npz" if suffix == ".npy" else "is not one of " + " ".join(SUFFIXES)
        raise BadOption(f"cannot write {path.name}: {suffix} {why}")
    if spec is None or not suffix or path.is_dir():
        return
    if suffix == ".csv" and spec.kind != "points":
        raise BadOption(
            f"cannot write {path.name}: only points fit a .csv, not samples of shape {spec.shape}: use .npz"
        )
    if suffix not in (".npz", ".csv", ".safetensors") and spec.kind == "array":
        raise BadOption(f"cannot write {path.name}: samples of shape {spec.shape} have no picture: use .npz")


def _window(points: NDArray[np.float32]) -> tuple[float, float, float, float] | None:
    """A square around nearly all points, by their first two coordinates; None where none of them is finite."""
    shown = points[np.isfinite(points).all(1), :2].astype(np.float64)
    if not len(shown):
        return None
    low, high = np.quantile(shown, (0.0005, 0.9995), axis=0)
    middle, half = (low + high) / 2, float((high - low).max()) * 0.625 or 1.0
    left, bottom = float(middle[0] - half), float(middle[-1] - half)
    return left, left + 2 * half, bottom, bottom + 2 * half


def _readable(recipe: Mapping[str, Any]) -> str:
    """The line of settings that image viewers of the field show."""
    sampler, label = recipe["sampler"]["name"], recipe.get("label")
    prompt, negative = ("" if value is None else str(value) for value in map(recipe.get, ("prompt", "negative_prompt")))
    asked = "" if label is None else f"label: {label}, "
    words = [line for line in (prompt, f"Negative prompt: {negative}" if negative else "") if line]
    asked = "\n".join([*words, asked])
    edit = f", Denoising strength: {recipe['strength']:g}" if "strength" in recipe else ""
    told = f", Distilled CFG Scale: {recipe['embedded_guidance']:g}" if "embedded_guidance" in recipe else ""
    how = f"Steps: {recipe['steps']}, Sampler: {sampler}, CFG scale: {recipe['guidance']['scale']}, Seed: {recipe['seed']}"
    return f"{asked}{how}{told}{edit}"


def encode_image(image: Image, suffix: str, recipe: str, readable: str) -> bytes:
    """A picture as the bytes of a file that carries a recipe.

    Args:
        image: What to write.
        suffix: .png, .jpg, .jpeg or .webp.
        recipe: JSON.
        readable: One line for people.
    """
    from PIL.PngImagePlugin import PngInfo

    buffer = io.BytesIO()
    if suffix == ".png":
        info = PngInfo()
        info.add_itxt(KEY, recipe)
        info.add_itxt("parameters", readable)
        image.save(buffer, "PNG", pnginfo=info)
        return buffer.getvalue()
    if suffix != ".webp" and len(recipe) > LONGEST_IN_EXIF:
        image.convert("RGB").save(buffer, "JPEG", quality=95, extra=_segments(recipe))
        return buffer.getvalue()
    exif = image.getexif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + f"{KEY}: {recipe}".encode("utf-16-be")  # UserComment
    if suffix == ".webp":
        image.save(buffer, "WEBP", quality=95, exif=exif.tobytes())
    else:
        image.convert("RGB").save(buffer, "JPEG", quality=95, exif=exif.tobytes())
    return buffer.getvalue()


def _segments(recipe: str) -> bytes:
    whole, head = recipe.encode(), KEY.encode() + b"\0"
    parts = [head + whole[i : i + PART_IN_JPEG] for i in range(0, len(whole), PART_IN_JPEG)]
    return b"".join(b"\xff\xef" + (2 + len(part)).to_bytes(2, "big") + part for part in parts)


_NEEDED = {"n", "first", "label", "sampler", "steps", "grid", "guidance", "seed", "batch_size"}


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe that a file carries.

    Raises:
        DataError: The file carries none, or cannot be read, or its recipe is damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder, and a file of samples was expected: give one of the files in it")
    try:
        text = _read_text(path)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except Exception as error:  # what Pillow, zipfile and safetensors raise for a damaged file has no common root
        raise DataError(f"{path} cannot be read: {error}") from None
    if text is None:
        raise DataError(
            f"{path} carries no unnoise recipe: it was not made by unnoise, or another program wrote it anew"
        )
    try:
        recipe = json.loads(text)
        check_recipe(recipe)
    except ValueError as error:
        raise DataError(f"{path} cannot be replayed: {error}") from None
    return dict(recipe)


def check_recipe(recipe: Any) -> None:
    """Refuses what is no whole recipe of samples.

    Raises:
        DataError: Something is missing.
    """
    if not isinstance(recipe, Mapping) or not isinstance(recipe.get("model"), Mapping):
        raise DataError("its recipe is damaged: it names no model")
    needed = _NEEDED | ({"strength"} if "image" in recipe else set())
    missing = sorted(needed - set(recipe) | {"hash", "path"} - set(recipe["model"]))
    if missing:
        raise DataError(f"its recipe is damaged: it says nothing of {', '.join(missing)}")


def _read_text(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return str(file["recipe"]) if "recipe" in file else None
    if suffix == ".csv":
        with path.open(encoding="utf-8") as lines:
            first = lines.readline().strip()
        return first.removeprefix(f"# {KEY}: ") if first.startswith(f"# {KEY}: ") else None
    if suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as tensors:
            return (tensors.metadata() or {}).get(KEY)
    return _read_image_text(path)


def _read_image_text(path: Path) -> str | None:
    from PIL import Image

    with Image.open(path) as image:
        if KEY in image.info:
            return str(image.info[KEY])
        comment = image.info.get("comment") or image.info.get("Comment") or b""
        raw = image.getexif().get_ifd(0x8769).get(0x9286, b"")
        head = KEY.encode() + b"\0"
        found = (part for name, part in getattr(image, "applist", ()) if name == "APP15" and part.startswith(head))
        segments = b"".join(part.removeprefix(head) for part in found)
    if segments:
        return segments.decode()
    text = comment.decode() if isinstance(comment, bytes) else str(comment)
    if isinstance(raw, bytes) and raw.startswith(b"UNICODE\0"):
        text = raw[8:].decode("utf-16-be")
    return text.removeprefix(f"{KEY}: ") if text.startswith(f"{KEY}: ") else None
