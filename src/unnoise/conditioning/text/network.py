"""A network that understands texts: any network that takes tokens, and the encoder that makes them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import torch
from torch import Tensor, nn

from ...nn.base import Condition, Network
from .base import TextEncoder

STATES = ("context", "context_mask", "pooled")
"""What a network is told of a text, of which it takes what it knows."""
PADDING = -1
"""What stands in a batch of token numbers where a text has none."""


def apart(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a `TextNetwork` as those of its network and those of its encoder, each by its own names."""
    names = ("network.", "text.")
    network, text = ({k.removeprefix(n): v for k, v in weights.items() if k.startswith(n)} for n in names)
    return network, text


def together(text: Mapping[str, Tensor], network: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The opposite of `apart`, of either or both."""
    named = {f"network.{name}": value for name, value in (network or {}).items()}
    return named | {f"text.{name}": value for name, value in text.items()}


class TextNetwork(Network):
    """A network with the encoder of its context, which learns beside it or stays as it is.

    A condition may hold texts as numbers of tokens ("text", shape (B, tokens), int64, -1 where there are none) or as what the
    encoder made of them before ("context" and its mask). What asks for nothing is the empty text.

    Args:
        network: Takes a context of the encoder's width.
        text: The encoder.
        nothing: The tokens of the empty text, shape (tokens,), -1 where there are none.
        pad: The token that fills up.
        learned: Whether the encoder learns, too.
    """

    nothing: Tensor

    def __init__(self, network: Network, text: TextEncoder, nothing: Tensor, pad: int, learned: bool) -> None:
        super().__init__(network.shape, network.out_shape, network.num_classes, network.config)
        self.network, self.text, self.pad, self.learned = network, text, pad, learned
        self.any_size = network.any_size  # type: ignore[misc]
        self.registered_name = getattr(network, "registered_name", type(network).__name__)
        self.condition_keys = (*network.condition_keys, "text")
        self.register_buffer("nothing", nothing, persistent=False)
        self._nothing_here = nothing.clone()  # for batches on the processor, which need not wait for a GPU
        self._kept: dict[object, dict[str, Tensor]] = {}
        text.requires_grad_(learned)

    def train(self, mode: bool = True) -> TextNetwork:
        """As of any module; an encoder that does not learn is never in training."""
        super().train(mode)
        if not self.learned:
            self.text.eval()
        self._kept.clear()  # the weights may be others by now
        return self

    def load_state_dict(self, *args: object, **more: object) -> object:
        """As of any module."""
        self._kept.clear()
        return super().load_state_dict(*args, **more)  # type: ignore[arg-type]

    def states(self, ids: Tensor) -> dict[str, Tensor]:
        """What the encoder makes of some texts, as a condition.

        Args:
            ids: Shape (B, tokens), -1 where there are none.

        Returns:
            `context` of shape (B, tokens, width), zeros where there are no tokens, and what else the network takes.
        """
        mask = ids != PADDING
        made = self.text(ids.masked_fill(~mask, self.pad), mask)
        read = torch.ones_like(mask) if self.text.reads_padding else mask
        found = {"context": made * read[..., None], "context_mask": read}
        if "pooled" in self.network.condition_keys:
            found["pooled"] = self.text.pooled(made, mask)
        return found

    def null_condition(self, batch: int, device: torch.device | None = None, without: Container[str] = ()) -> Condition:
        """What asks for nothing: the network's null label, and the empty text; see `Network.null_condition`."""
        null = dict(self.network.null_condition(batch, device, STATES))
        here = device is not None and device.type == "cpu"
        null["text"] = (self._nothing_here if here else self.nothing.to(device)).expand(batch, -1)
        if self.learned and self.training:  # its states are made in the forward pass, which learns from them
            return null
        return {**null, **{k: v.expand(batch, *v.shape[1:]) for k, v in self.empty(device).items()}}

    def empty(self, device: torch.device | None = None) -> dict[str, Tensor]:
        """What the encoder makes of the empty text, of one sample; made once while the weights are the same.

        Args:
            device: Where it is wanted; where the encoder is by default.
        """
        weight = next(self.text.parameters())
        key = weight.device, weight.dtype, device or weight.device
        found = self._kept.get(key)
        if found is None:  # another thread may empty what is kept
            with torch.no_grad():
                self._kept[key] = found = {k: v.to(device) for k, v in self.states(self.nothing[None]).items()}
        return found

    def told(self, cond: Condition | None, batch: int) -> Condition:
        """A condition as the inner network takes it.

        Args:
            cond: With texts, with what was made of them, or with neither.
            batch: Samples.
        """
        found = dict(cond or {})
        ids = found.pop("text", None)
        if "context" not in found:
            if ids is not None:
                found |= self.states(ids)
            elif self.learned and self.training:
                found |= self.states(self.nothing.expand(batch, -1))
            else:
                found |= {name: value.expand(batch, *value.shape[1:]) for name, value in self.empty().items()}
        return found

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction; see `Network.forward`."""
        out: Tensor = self.network(x, noise_level, self.told(cond, len(x)))
        return out

    @torch.no_grad()
    def remember(self, cond: Condition | None) -> Condition | None:
        """With what encoder and network make of a text, once for a whole run; see `Network.remember`."""
        if not cond:
            return cond
        return self.network.remember(self.told(cond, len(next(iter(cond.values())))))

    def checkpointed_blocks(self) -> Sequence[nn.Module]:
        """Those of the network, and of an encoder that learns."""
        return [*self.network.checkpointed_blocks(), *(self.text.checkpointed_blocks() if self.learned else ())]

    def asked_alone(self) -> Sequence[nn.Module]:
        """An encoder that does not learn: it reads captions once, before any step."""
        return () if self.learned else (self.text,)
