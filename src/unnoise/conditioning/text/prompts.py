"""Prompts as people write them: with weights such as `a (red:1.3) heart`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import BadOption

_PART = re.compile(r"\\([()\\])|\(|:\s*([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)\s*\)|\)")
LARGEST = 10.0


@dataclass(frozen=True)
class Prompt:
    """A prompt without its weights, and the weights.

    Args:
        text: What is read.
        weights: One for each character of the text.
    """

    text: str
    weights: tuple[float, ...]

    @property
    def plain(self) -> bool:
        """Whether every word counts alike."""
        return all(weight == 1 for weight in self.weights)


def read_prompt(prompt: str) -> Prompt:
    r"""Reads the weights of a prompt: `(words:1.3)` counts 1.3 times, and within each other they multiply.

    Brackets without a number are read as they stand, and so are `\(` and `\)`.

    Args:
        prompt: As it was written.

    Raises:
        BadOption: A weight is larger than 10 or below -10.
    """
    text: list[str] = []
    weights: list[float] = []
    opened: list[int] = []  # where in the text a bracket stands that may turn out to begin a weight
    at = 0

    def put(piece: str) -> None:
        text.extend(piece)
        weights.extend([1.0] * len(piece))

    for found in _PART.finditer(prompt):
        put(prompt[at : found.start()])
        at, whole = found.end(), found[0]
        if found[1] is not None:
            put(found[1])
        elif whole == "(":
            opened.append(len(text))
            put("(")
        elif found[2] is not None and opened:
            weight, begin = float(found[2]), opened.pop()
            if abs(weight) > LARGEST:
                raise BadOption(
                    f"prompt: a weight must lie between -10 and 10, got {whole[1:-1].strip()} in {prompt!r}"
                )
            weights[begin:] = [weight * each for each in weights[begin:]]
            del text[begin], weights[begin]
        else:
            put(whole)
            if opened:
                opened.pop()
    put(prompt[at:])
    return Prompt("".join(text), tuple(weights))
