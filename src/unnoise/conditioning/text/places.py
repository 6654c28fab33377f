"""Where the words of a prompt stand among the tokens that a network is told of it."""

from __future__ import annotations

import re

from .conditioning import TextConditioning
from .prompts import read_prompt

_WORD = re.compile(r"\S+")


def word_places(text: TextConditioning, prompt: str) -> list[tuple[str, tuple[int, ...]]]:
    """The words of a prompt, each with the places of its tokens.

    Args:
        text: How the model understands words.
        prompt: As a person writes it; weights are taken off.

    Returns:
        Words in their order, and places in the context of one sample. A word whose tokens begin within another has none.
    """
    plain = read_prompt(prompt).text
    before, after = text.tokenizer.frame
    room = text.length - len(before) - len(after)
    places: dict[int, list[int]] = {}
    words = list(_WORD.finditer(plain))
    stops = [word.end() for word in words]
    for number, end in enumerate(text.tokenizer.pieces(plain)[1]):
        part, within = divmod(number, room)
        at = next((i for i, stop in enumerate(stops) if end < stop), None)  # a space goes with the word after it
        if at is not None:
            places.setdefault(at, []).append(part * text.length + len(before) + within)
    return [(word.group(), tuple(places.get(i, ()))) for i, word in enumerate(words)]
