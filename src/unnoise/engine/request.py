"""What is asked of an engine: samples of a model, as plain values."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..editing.beginnings import NUMBERS, PICTURE, are_numbers
from ..errors import BadOption, nearest
from ..request import whole_number

ASKED = (
    "n", "label", "prompt", "negative_prompt", "boxes", "map",
    "sampler", "steps", "guidance", "embedded_guidance", "grid", "seed", "first", "blend", "image", "strength",
)  # fmt: skip
"""What a request hands to `Model.settle`."""


MOST_PIXELS = {"map": 2**22, "image": 2**24}
"""Of a picture that a request holds; a small file can claim to be a huge picture."""


def _check_picture(name: str, text: Any) -> None:
    """Refuses what is no picture in the text itself: requests name no files of the machine that they are made on.

    Raises:
        BadOption: It is none, or too large.
    """
    from PIL import Image

    from ..data._pixels import why_not

    start = PICTURE if name == "map" else "data:"
    if not isinstance(text, str) or not text.startswith(start):
        what = "a PNG of class numbers" if name == "map" else "a picture"
        raise BadOption(f"{name}: expected {what} as {PICTURE}..., got {str(text)[:40]!r}")
    if text.startswith(NUMBERS):
        return
    try:
        with Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2], validate=True))) as picture:
            size = picture.size  # of the header; nothing is unpacked yet
    except Exception as error:  # what Pillow and base64 raise for what is no picture has no common root
        raise BadOption(f"{name}: this is no picture: {why_not(error)}") from None
    if math.prod(size) > MOST_PIXELS[name]:
        raise BadOption(f"{name}: a picture of {size[0]} x {size[1]} is too large: send it smaller")


@dataclass(frozen=True)
class Request:
    """Samples of a model. What is not said is as the model's own settings say; see `Model.sample`.

    Args:
        model: Its name on the shelf.
        n: How many.
        label: One for all, or n of them.
        prompt: The same.
        negative_prompt: The same.
        boxes: What stands where, as text: one for all, or n of them.
        map: A label map, as a PNG of class numbers in base64, "data:image/png;base64,..."; the same.
        sampler: A name, or `{name: ..., option: value}`.
        steps: From noise to data.
        guidance: The scale, or a rule as `{name: ..., option: value}`; a second model that it names stands on the shelf, too.
        embedded_guidance: The scale of a guidance that was distilled into the model.
        grid: At which times.
        seed: Sample k of a seed is the same in any request.
        first: Index of the first sample.
        blend: With what other noise that of every sample is mixed.
        image: What samples begin from instead of noise, as a picture in base64, "data:image/png;base64,..."; of models of points
            as nested lists of numbers. One for all, or n of them.
        strength: How much of it is made anew, in [0, 1].
        batch_size: Samples at a time; chosen by their size where it is not said.
        priority: Those of a higher one begin first; equal ones in their order.
        strict: Whether its network calls are never shared, so that its bytes are those of `unnoise sample`.
        keep_steps: Whether the noisy samples and the estimates of every step are kept, too.
        timeout: Seconds from acceptance until it is given up; the engine's own where it is not said or longer.
        owner: Who asks, for limits.
        durable: Whether it is made even if the process is killed and started anew meanwhile.
        listed: Whether a person asked for it; what a program measures for its own use is shown in no gallery.
    """

    model: str
    n: int = 1
    label: Any = None
    prompt: Any = None
    negative_prompt: Any = None
    boxes: Any = None
    map: Any = None
    sampler: Any = None
    steps: int | None = None
    guidance: Any = None
    embedded_guidance: float | None = None
    grid: Any = None
    seed: int = 0
    first: int = 0
    blend: Any = None
    image: Any = None
    strength: float | None = None
    batch_size: int | None = None
    priority: int = 0
    strict: bool = False
    keep_steps: bool = False
    timeout: float | None = None
    owner: str = ""
    durable: bool = False
    listed: bool = True

    def __post_init__(self) -> None:
        whole_number("priority", self.priority)
        for name, given in (("map", self.map), ("image", self.image)):
            for each in given if isinstance(given, (list, tuple)) else [given]:
                if each is not None and not (name == "image" and are_numbers(each)):
                    _check_picture(name, each)
        if self.timeout is not None and not (math.isfinite(self.timeout) and self.timeout > 0):
            raise BadOption(f"timeout: expected seconds above 0, got {self.timeout}")
        if self.batch_size is not None:
            whole_number("batch_size", self.batch_size, 1)

    def asked(self) -> dict[str, Any]:
        """What `Model.settle` is given, by name."""
        return {name: getattr(self, name) for name in ASKED}

    def plain(self) -> dict[str, Any]:
        """Plain values that `Request.of` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Request:
        """The request that plain values describe.

        Raises:
            BadOption: One is not known, or is out of its range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise BadOption(f"{name}: there is no such option{nearest(name, names)}")
        return cls(**values)
