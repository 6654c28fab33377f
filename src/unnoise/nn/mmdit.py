"""The multimodal diffusion transformer of Stable Diffusion 3: words and places in one attention, each with weights of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..errors import BadOption
from ..options import Checked, option
from .base import Condition, networks
from .joint import JointBlock, JointConfig, JointNetwork
from .patches import positions

HEAD = 64
"""Channels of a head, and channels of the width for each block, of the networks of the paper."""


@dataclass(frozen=True)
class MMDiTConfig(JointConfig):
    """The options of the multimodal transformer.

    As in the paper the depth says how large it is: where width and heads are 0 there are 64 channels for each block, in heads of
    64.

    Raises:
        BadOption: The width is odd, the heads do not divide it, or more blocks attend twice than there are.
    """

    depth: int = option(8, help="blocks", low=1)
    width: int = option(0, help="channels of a token, even; 0: 64 for each block", low=0)
    heads: int = option(0, help="attention heads, a divisor of the width; 0: one for 64 channels", low=0)
    qk_norm: bool = option(False, help="normalise queries and keys: stable at high rates and in large models")
    attend_twice: int = option(0, help="of the first blocks, how many let places attend to places alone, too", low=0)
    position_table: int = option(
        0, help="patches along an axis of a grid out of whose middle positions are taken; 0: count from a corner", low=0
    )
    position_spacing: float = option(1.0, help="from the position of one patch to the next", low=1e-3, high=1e3)

    def __post_init__(self) -> None:
        """Fills in what the depth says, and checks what no single range can say."""
        Checked.__post_init__(self)
        object.__setattr__(self, "width", self.width or HEAD * self.depth)
        object.__setattr__(self, "heads", self.heads or max(1, self.width // HEAD))
        super().__post_init__()
        if self.attend_twice > self.depth:
            raise BadOption(f"attend_twice: there are {self.depth} blocks, got {self.attend_twice}")


STABLE_DIFFUSION_3_MEDIUM = MMDiTConfig(
    depth=24, context=4096, pooled=2048, position_table=192, position_spacing=64 / 192
)
"""2.0 billion parameters, for latents of 16 channels."""

STABLE_DIFFUSION_35_MEDIUM = MMDiTConfig(
    depth=24, context=4096, pooled=2048, qk_norm=True, attend_twice=13, position_table=384, position_spacing=64 / 384
)
"""2.2 billion parameters, for latents of 16 channels."""

STABLE_DIFFUSION_35_LARGE = MMDiTConfig(
    depth=38, context=4096, pooled=2048, qk_norm=True, position_table=192, position_spacing=64 / 192
)
"""8.1 billion parameters, for latents of 16 channels."""


@networks.register("mmdit")
class MMDiT(JointNetwork):
    """A transformer in which words and places attend to each other, steered by the noise level, a label and a vector of the text.

    The network of Stable Diffusion 3 and 3.5 as diffusers' `SD3Transformer2DModel` computes it. Tokens of shape (B, tokens,
    `context`) go by the name "context" in a condition, those of them that are read by "context_mask", and a vector of the text by
    "pooled"; without a context it is a DiT. Reads samples of shape (C, L), (C, H, W) or (C, T, H, W) of any size that the patch
    divides. Blocks are the identity at the start, and the output is zero.

    Words change from block to block with the noise level and the sample, so that of a prompt only their first layer can be kept
    for all steps of a run.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Section 4,
        https://arxiv.org/abs/2403.03206

    Raises:
        IncompatibleParts: The data is not a sequence, image or video, the patch does not divide its size or has another
            number of axes, or the output has another size than the input.
    """

    Config = MMDiTConfig
    config: MMDiTConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: MMDiTConfig | None = None,
    ) -> None:
        super().__init__(shape, out_shape, num_classes, config)
        depth, twice = self.config.depth, self.config.attend_twice
        self.blocks = nn.ModuleList(
            JointBlock(self.config, self.config.qk_norm, twice=i < twice, last=i == depth - 1) for i in range(depth)
        )
        self.initialise()

    def checkpointed_blocks(self) -> Sequence[nn.Module]:
        """All blocks; see `Network.checkpointed_blocks`."""
        return list(self.blocks)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction; see `Network.forward`.

        Raises:
            ShapeError: A tensor has another shape, or there are more patches than the table of positions has.
        """
        places, words, told, mask = self.begin(x, noise_level, cond)
        config = self.config
        where = positions(self.grid(x), config.width, x.device, config.position_table, config.position_spacing)
        places = places + where.to(places.dtype)
        for block in self.blocks:
            places, words = block(places, words, told, mask)
        return self.end(places, told, x)
