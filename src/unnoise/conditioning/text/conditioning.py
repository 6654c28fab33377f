"""Texts as conditions: which encoder, by which tokenizer, and what a prompt becomes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import BadOption, IncompatibleParts, ModelFolderError
from ...nn.base import Network
from ...registry import Choice
from ..base import Conditioning as Conditioning
from .base import TextEncoder, text_encoders
from .network import PADDING, TextNetwork, together
from .prompts import Prompt, read_prompt
from .tokenizer import TextTokenizer, split_words

_ENCODER = "encoder."

MOST_NUMBERED = 2**16
"""Captions whose tokens are remembered: a few tens of megabytes."""


@dataclass(frozen=True)
class TextConditioning:
    """How a model understands words.

    Args:
        encoder: Which text encoder, and its options.
        tokenizer: Text to numbers.
        learned: Whether the encoder learned beside the denoiser.
        words: Those of the captions that were learned from, the most frequent first.
        pretrained: The weights that the encoder begins with, where it was not made for this model.
    """

    encoder: Choice
    tokenizer: TextTokenizer = field(repr=False)
    learned: bool = True
    words: tuple[str, ...] = field(default=(), repr=False)
    pretrained: Mapping[str, Tensor] | None = field(default=None, repr=False, compare=False)

    @property
    def length(self) -> int:
        """Tokens that the encoder reads at once."""
        return int(self.encoder.config.length)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def _numbered(self) -> dict[tuple[str, int], NDArray[np.int64]]:
        return {}  # a run reads the same captions many times

    @property
    def hash(self) -> str:
        """SHA-256 of what decides how a text is read, where the encoder was made elsewhere; 64 hexadecimal digits."""
        about = {name: value for name, value in self.kept(self.pretrained or {}).items() if name != "words"}
        digest = hashlib.sha256(repr(self.describe()).encode())
        for name, value in sorted(about.items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy().reshape(-1).data)
        return digest.hexdigest()

    def build(self) -> TextEncoder:
        """The encoder: fresh, or with the weights that it begins with."""
        encoder = text_encoders[self.encoder.name](self.encoder.config)
        if self.pretrained is not None:
            encoder.load_state_dict(dict(self.pretrained))
        return encoder

    def untouched(self) -> dict[str, Tensor]:
        """The weights of an encoder that does not learn, by their names in a `TextNetwork`, to the bit.

        A run may compute in coarser numbers, and only what learns has masters of its own.
        """
        return {} if self.learned or self.pretrained is None else together(self.pretrained)

    def around(self, network: Network) -> TextNetwork:
        """A network that understands texts, of one that takes tokens.

        Args:
            network: With a context of the encoder's width.

        Raises:
            IncompatibleParts: It takes no tokens, or others.
        """
        encoder = self.build()
        if "context" not in network.condition_keys:
            name = getattr(network, "registered_name", type(network).__name__)
            raise IncompatibleParts(
                f"conditioning.text: network {name!r} takes no words: choose one that has an option `context`"
            )
        if (dim := network.null_context.shape[1]) != encoder.width:
            raise IncompatibleParts(
                f"network.context: the text encoder gives states of {encoder.width} numbers, and the network takes {dim}"
            )
        if "pooled" in network.condition_keys and (dim := len(network.null_pooled)) != encoder.pooled_width:
            raise IncompatibleParts(
                f"network.pooled: the text encoder gives {encoder.pooled_width} numbers for a whole text, the network takes {dim}"
            )
        return TextNetwork(network, encoder, self.ids([""])[0], self.tokenizer.pad_id, self.learned)

    def fitted(self, network: Choice) -> Choice:
        """A choice of network that takes what this encoder gives, where it was left open."""
        if getattr(network.config, "context", None) == 0:
            return replace(network, config=replace(network.config, context=self.encoder.config.width))
        return network

    def ids(self, captions: Sequence[str], length: int | None = None) -> Tensor:
        """The tokens of captions, without weights; what the encoder cannot read is cut.

        Args:
            captions: n of them.
            length: Tokens of each; as many as the encoder reads by default.

        Returns:
            Shape (n, length), int64, -1 where there are none.
        """
        length, known = length or self.length, self._numbered
        found = np.full((len(captions), length), PADDING, dtype=np.int64)
        for row, caption in zip(found, captions, strict=True):
            ids = known.get((caption, length))
            if ids is None:
                ids = np.array(self.tokenizer.chunks(Prompt(caption, ()), length)[0][0], dtype=np.int64)
                if len(known) < MOST_NUMBERED:
                    known[caption, length] = ids
            row[: len(ids)] = ids
        return torch.from_numpy(found)

    def size(self, caption: str) -> int:
        """How many tokens a caption has, with those that frame it."""
        before, after = self.tokenizer.frame
        return len(self.tokenizer.pieces(caption)[0]) + len(before) + len(after)

    def too_long(self, captions: Sequence[str], reader: str = "the encoder") -> str:
        """How many captions are longer than what is read of them by `ids`, for a person; "" where none is.

        Args:
            captions: As `ids` takes them.
            reader: Who reads them.
        """
        sizes = [self.size(caption) for caption in captions]
        if not (long := sum(size > self.length for size in sizes)):
            return ""
        told = f"longer than the {self.length} tokens that {reader} reads at once (one has {max(sizes)})"
        return f"{long:,} of {len(sizes):,} {'is' if long == 1 else 'are'} {told}"

    def notes(self, prompts: Sequence[str | None]) -> list[str]:
        """What a person should know of some prompts: which are read in parts, and which words nobody taught the model."""
        notes, before_after = [], sum(map(len, self.tokenizer.frame))
        for prompt in dict.fromkeys(each for each in prompts if each):
            text = read_prompt(prompt).text
            if (size := self.size(text)) > self.length:
                parts = -(-(size - before_after) // (self.length - before_after))
                notes.append(
                    f"prompt: {size} tokens are more than the {self.length} that the encoder reads at once: it is read in "
                    f"{parts} parts, of which none knows the others ({_short(text)}): make it {size - self.length} tokens "
                    "shorter, about as many short words, and it is read as one"
                )
            unseen = [word for word in dict.fromkeys(split_words(text)) if self.words and word not in self._known]
            if unseen:
                listed = ", ".join(map(repr, unseen[:6])) + (" and more" if len(unseen) > 6 else "")
                told = f"prompt: no caption that the model learned from has the word {listed}"
                notes.append(f"{told}; it knows {self._instead(unseen[:6])}")
        return notes

    def _instead(self, unseen: Sequence[str]) -> str:
        """What the model knows that is near some words, and where nothing is near one of them, what else it knows."""
        from difflib import get_close_matches

        near = [get_close_matches(word, self.words, n=1, cutoff=0.75) for word in unseen]
        told = [", ".join(map(repr, dict.fromkeys(word for each in near for word in each)))] if any(near) else []
        if not all(near):
            telling = [word for word in self.words if len(word) > 3] or self.words  # "a" and "the" say little
            some = ", ".join(map(repr, telling[:6]))
            told.append(f"{len(self.words):,} words{' in all' if told else ''}, such as {some}")
        return ", and ".join(told)

    def describe(self) -> dict[str, Any]:
        """Plain values that `TextConditioning.of` reads."""
        return {"encoder": text_encoders.describe(self.encoder), "learned": self.learned}

    def kept(self, encoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a model's folder keeps of this: the tokenizer's file and the words as bytes, and the encoder's weights.

        Args:
            encoder: The weights, by its own names.
        """
        texts = {"tokenizer.json": self.tokenizer.content, "pad": self.tokenizer.pad, "words": "\n".join(self.words)}
        return {name: _bytes(text) for name, text in texts.items()} | {f"{_ENCODER}{k}": v for k, v in encoder.items()}

    @classmethod
    def of(cls, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> TextConditioning:
        """What `describe` and `kept` say.

        Raises:
            ModelFolderError: Something is missing.
            BadOption: An option is wrong.
        """
        try:
            tokenizer = TextTokenizer(_text(kept["tokenizer.json"]), _text(kept["pad"]))
            words = tuple(_text(kept["words"]).split("\n")) if kept["words"].numel() else ()
            encoder = text_encoders.build(values["encoder"], "conditioning.text.encoder")
            return cls(encoder, tokenizer, bool(values["learned"]), words)
        except KeyError as error:
            raise ModelFolderError(f"the text encoder of the model lacks {error}") from None


def encoder_of(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights in what `TextConditioning.kept` gave, by its own names."""
    return {name.removeprefix(_ENCODER): value for name, value in kept.items() if name.startswith(_ENCODER)}


class PromptStates:
    """What a network is told of the prompts of a run, worked out once for each that is different.

    Args:
        text: How the model understands words.
        network: Holds the encoder.
        prompts: One for each of n samples; None asks for nothing.

    Raises:
        BadOption: A prompt has a weight out of range.
    """

    def __init__(self, text: TextConditioning, network: TextNetwork, prompts: Sequence[str | None]) -> None:
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        self.index = torch.tensor([place[prompt] for prompt in prompts])
        parts = [text.tokenizer.chunks(read_prompt(prompt or ""), text.length) for prompt in distinct]
        most = max(map(len, parts))
        rows = [_states(network, text, each, most) for each in parts]
        self.states = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def rows(self, first: int, last: int) -> dict[str, Tensor]:
        """The condition of the samples first ... last - 1."""
        index = self.index[first:last].to(self.states["context"].device)
        return {name: value[index] for name, value in self.states.items()}


@torch.no_grad()
def _states(
    network: TextNetwork, text: TextConditioning, parts: list[tuple[list[int], list[float]]], most: int
) -> dict[str, Tensor]:
    """What a network is told of one prompt: the states of its parts one after another.

    A token of weight w has the state e + w (z - e), with its own state z and that of the empty text, e: the one at the same place
    where padding is read, and else their mean.
    """
    device = network.nothing.device
    ids = torch.full((most, text.length), PADDING)
    weights = torch.ones(most, text.length)
    for i, (tokens, counts) in enumerate(parts):
        ids[i, : len(tokens)], weights[i, : len(counts)] = torch.tensor(tokens), torch.tensor(counts)
    empty = text.ids([""])
    ids[len(parts) :] = empty
    found = network.states(ids.to(device))
    if not bool((weights == 1).all()):
        states, read = network.states(empty.to(device)), found["context_mask"][..., None]
        plain = states["context"]
        if not network.text.reads_padding:
            plain = plain.sum(1, keepdim=True) / states["context_mask"].sum()
        weight = weights.to(plain)[..., None]
        found["context"] = (plain + weight * (found["context"] - plain)) * read
    if not network.text.reads_padding:
        found["context_mask"][len(parts) :] = False
    together = {name: found[name].flatten(0, 1)[None] for name in ("context", "context_mask")}
    return together | {name: value[:1] for name, value in found.items() if name not in together}


def _bytes(text: str) -> Tensor:
    return (
        torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).clone()
        if text
        else torch.zeros(0, dtype=torch.uint8)
    )


def _text(content: Tensor) -> str:
    return bytes(content.cpu().numpy()).decode()


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_prompt(name: str, prompt: Any) -> None:
    """Refuses what is no prompt.

    Raises:
        BadOption: It is not text, or it says nothing.
    """
    if prompt is None:
        return
    if not isinstance(prompt, str):
        raise BadOption(f"{name}: expected words, got {prompt!r}")
    if name == "prompt" and not prompt.strip():
        raise BadOption("prompt: it is empty; leave it out to ask for nothing")
