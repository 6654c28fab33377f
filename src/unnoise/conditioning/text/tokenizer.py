"""Text to numbers of tokens, by a file that the `tokenizers` library reads, or one that it learns from captions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...errors import DataError, MissingExtra
from .prompts import Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BEGIN, END = "<pad>", "<begin>", "<end>"
_PADS = (PAD, "[PAD]", "<|pad|>", "<|endoftext|>", "</s>")
_REMEMBERED = 100_000


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer, as the text of its file.

    Args:
        content: Of the `tokenizer.json`.
        pad: The token that fills up; "" for the one that the file names, or a usual one.

    Raises:
        DataError: The text is no tokenizer, or has no token to fill up with.
    """

    content: str
    pad: str = ""

    @cached_property
    def _inner(self) -> Tokenizer:
        library = _library()
        try:
            inner = library.Tokenizer.from_str(self.content)
        except Exception as error:  # what the library raises for a damaged file is a plain Exception
            raise DataError(f"the tokenizer cannot be read: {str(error).splitlines()[0]}") from None
        inner.no_truncation()
        return inner

    @cached_property
    def _remembered(self) -> dict[str, tuple[list[int], list[int]]]:
        return {}

    @property
    def size(self) -> int:
        """How many tokens there are, added ones among them."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    @cached_property
    def pad_id(self) -> int:
        """The number of the token that fills up."""
        own = (self._inner.padding or {}).get("pad_token")
        for name in (self.pad, own, *_PADS):
            if name and (found := self._inner.token_to_id(name)) is not None:
                return int(found)
        raise DataError(f"the tokenizer has no token to fill up with: expected one of {', '.join(_PADS)}")

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """What stands before and after every text."""
        inner = self._inner
        inner.no_padding()
        bare, framed = (inner.encode("a", add_special_tokens=special).ids for special in (False, True))
        for i in range(len(framed) - len(bare) + 1):
            if framed[i : i + len(bare)] == bare:
                return framed[:i], framed[i + len(bare) :]
        return [], []

    def pieces(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens of a text without what frames it, and the place of the last character of each.

        Args:
            text: Without weights.
        """
        found = self._remembered.get(text)
        if found is None:
            if len(self._remembered) > _REMEMBERED:
                self._remembered.clear()
            self.frame  # noqa: B018  it turns padding off
            encoded = self._inner.encode(text, add_special_tokens=False)
            found = list(encoded.ids), [max(end - 1, 0) for _, end in encoded.offsets]
            self._remembered[text] = found
        return found

    def chunks(self, prompt: Prompt, length: int) -> list[tuple[list[int], list[float]]]:
        """A text in parts that an encoder can read, each framed, and the weight of every token.

        Args:
            prompt: What is read.
            length: Tokens of a part, at most.

        Returns:
            At least one part.
        """
        ids, ends = self.pieces(prompt.text)
        before, after = self.frame
        room = length - len(before) - len(after)
        weights = [prompt.weights[end] if prompt.weights else 1.0 for end in ends]
        return [
            (
                [*before, *ids[i : i + room], *after],
                [1.0] * len(before) + weights[i : i + room] + [1.0] * len(after),
            )
            for i in range(0, max(len(ids), 1), room)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {"content": self.content, "pad": self.pad}


def learn_tokenizer(captions: Iterable[str], vocabulary: int) -> TextTokenizer:
    """Learns byte pairs from captions; letters are made small, and no text is unknown to it.

    Args:
        captions: What it learns from, in an order of their own.
        vocabulary: Most tokens, at least 260.

    References:
        Neural Machine Translation of Rare Words with Subword Units (Sennrich et al., 2016), https://arxiv.org/abs/1508.07909

    Raises:
        MissingExtra: The `tokenizers` library is not installed.
    """
    library = _library()
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    inner = library.Tokenizer(models.BPE())
    inner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, special_tokens=[PAD, BEGIN, END], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator(captions, trainer)
    begin, end = ((name, inner.token_to_id(name)) for name in (BEGIN, END))
    inner.post_processor = processors.TemplateProcessing(f"{BEGIN} $A {END}", special_tokens=[begin, end])
    return TextTokenizer(json.dumps(json.loads(inner.to_str()), ensure_ascii=False, separators=(",", ":")))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra("a model that reads words", "tokenizers", "text") from None
    return tokenizers


def words_of(captions: Sequence[str]) -> tuple[str, ...]:
    """The words of some texts, in small letters, the most frequent first."""
    from collections import Counter

    counted = Counter(word for caption in captions for word in split_words(caption))
    return tuple(word for word, _ in sorted(counted.items(), key=lambda each: (-each[1], each[0])))


def split_words(text: str) -> list[str]:
    """The words of a text, in small letters, without what stands between them."""
    import re

    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
