"""What a run began with and has to go on with, beside its recipe and its data: parts that stand elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from ..conditioning.text.conditioning import TextConditioning


@dataclass(frozen=True)
class Mark:
    """Something that a run began with, and has to go on with.

    Args:
        name: What the checkpoints call it.
        value: Its hash.
        changed: What to say where it is another: which, and what to do.
    """

    name: str
    value: str
    changed: str


def encoder_marks(text: TextConditioning | None, section: str = "conditioning.text") -> list[Mark]:
    """What may not change of an encoder that stands elsewhere, while a run is interrupted."""
    if text is None or text.pretrained is None:
        return []
    where = f"{section}.path holds another encoder than the one that the run in {{folder}} began with"
    return [Mark("text", text.hash, f"{where}: put that one back, or use another --out")]
