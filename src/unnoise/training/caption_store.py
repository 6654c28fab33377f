"""What an encoder that does not learn makes of captions: worked out once, and kept in memory and in the user's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..conditioning.text.conditioning import TextConditioning
from ..conditioning.text.network import TextNetwork
from ..files import write_atomically

AT_ONCE = 64
"""Captions that the encoder reads at once."""
MOST_HELD = 2**31
"""Bytes of states that are kept; what is more is worked out again whenever it is asked for."""


class CaptionStore:
    """The states of captions, in half precision: a caption costs what its tokens cost, without padding.

    Args:
        captions: Those of a whole data set, which are worked out at once when the first is asked for.
        folder: Where these are kept for the next run; None keeps them in memory alone.
    """

    def __init__(self, captions: Iterable[str] = (), folder: Path | None = None) -> None:
        self.captions = sorted(set(captions))
        self.folder = folder
        self._held: dict[str, dict[str, Tensor]] = {}
        self._bytes = 0
        self._filled = False

    def condition(
        self, captions: Sequence[str], network: TextNetwork, text: TextConditioning, length: int
    ) -> dict[str, Tensor]:
        """What a network is told of some captions.

        Args:
            captions: n of them.
            network: Holds the encoder.
            text: How it understands words.
            length: Tokens that are told of each.

        Returns:
            On the processor, float32: `context` of shape (n, length, width), and what else the network takes.
        """
        if not self._filled:
            self._fill(network, text, length)
        missing = sorted({caption for caption in captions if caption not in self._held})
        found = {**self._held, **self._made(missing, network, text, length)} if missing else self._held
        context = torch.zeros(len(captions), length, text.encoder.config.width)
        mask = torch.zeros(len(captions), length, dtype=torch.bool)
        for i, caption in enumerate(captions):
            states = found[caption]["context"]
            context[i, : len(states)], mask[i, : len(states)] = states.float(), True
        told = {"context": context, "context_mask": mask}
        if "pooled" in network.network.condition_keys:
            told["pooled"] = torch.stack([found[caption]["pooled"].float() for caption in captions])
        return told

    @torch.no_grad()
    def _made(
        self, captions: Sequence[str], network: TextNetwork, text: TextConditioning, length: int
    ) -> dict[str, dict[str, Tensor]]:
        """The states of captions, each cut to the tokens that are read, and kept while there is room."""
        made: dict[str, dict[str, Tensor]] = {}
        for i in range(0, len(captions), AT_ONCE):
            part = captions[i : i + AT_ONCE]
            ids = text.ids(part, length).to(network.nothing.device)
            told = {name: value.cpu() for name, value in network.states(ids).items()}
            for row, caption in enumerate(part):
                size = int(told["context_mask"][row].sum())
                states = {"context": _half(told["context"][row, :size])}
                if "pooled" in told:
                    states["pooled"] = _half(told["pooled"][row])
                made[caption] = states
                self._bytes += sum(value.nbytes for value in states.values())
        if self._bytes <= MOST_HELD:
            self._held |= made
        return made

    def _fill(self, network: TextNetwork, text: TextConditioning, length: int) -> None:
        self._filled = True
        tokens = sum(length if network.text.reads_padding else min(text.size(each), length) for each in self.captions)
        if not self.captions or 2 * tokens * text.encoder.config.width > MOST_HELD:
            return
        file = None if self.folder is None else self.folder / f"{self._key(network, text, length)}.safetensors"
        if file is not None and self._read(file):
            return
        made = self._made(self.captions, network, text, length)
        if file is not None:
            self._write(file, [made[caption] for caption in self.captions])

    def _key(self, network: TextNetwork, text: TextConditioning, length: int) -> str:
        """64 hexadecimal digits that are others as soon as the encoder, its tokenizer, a caption or what is kept of them is."""
        facts = text.describe()["encoder"], text.tokenizer, length, network.network.condition_keys, self.captions
        digest = hashlib.sha256(repr(facts).encode())
        for name, value in sorted(network.text.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy().reshape(-1).data)
        return digest.hexdigest()

    def _write(self, file: Path, rows: list[dict[str, Tensor]]) -> None:
        from safetensors.torch import save

        whole = {"context": torch.cat([row["context"] for row in rows])}
        whole["sizes"] = torch.tensor([len(row["context"]) for row in rows])
        if "pooled" in rows[0]:
            whole["pooled"] = torch.stack([row["pooled"] for row in rows])
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, save(whole))
        except OSError:  # without it the next run works them out again
            return

    def _read(self, file: Path) -> bool:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            whole = load(file.read_bytes())
            parts = whole["context"].split(whole["sizes"].tolist())
        except (OSError, SafetensorError, KeyError, RuntimeError):
            return False
        for i, (caption, states) in enumerate(zip(self.captions, parts, strict=True)):
            self._held[caption] = {"context": states, **({"pooled": whole["pooled"][i]} if "pooled" in whole else {})}
        self._bytes = sum(value.nbytes for row in self._held.values() for value in row.values())
        return True


def _half(states: Tensor) -> Tensor:
    limit = torch.finfo(torch.float16).max
    return states.float().clamp(-limit, limit).half()
