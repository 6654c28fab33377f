"""CLIP: features that were learned beside captions, which the CMMD distance is measured in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.base import Dataset, Spec
from ...errors import DataError
from ...options import option
from .base import FeatureSource, Progress, extractors
from .hugging_face import find_model, read_model, renamed, setting
from .looking import is_picture, refuse_unless_picture
from .transformer_extractor import TransformerExtractor
from .vision_transformer import Architecture, VisionTransformer
from .weights import check_device, fill

MEAN = 0.48145466, 0.4578275, 0.40821073
STD = 0.26862954, 0.26130258, 0.27577711
LAYER = r"vision_model\.encoder\.layers\.(\d+)\."
NAMES = (
    (r"vision_model\.embeddings\.class_embedding", "class_token"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "positions"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", "patches.weight"),
    (r"vision_model\.pre_layrnorm\.(.*)", r"norm_in.\1"),
    (r"vision_model\.post_layernorm\.(.*)", r"norm_out.\1"),
    (r"visual_projection\.weight", "projection.weight"),
    (LAYER + r"self_attn\.q_proj\.(.*)", r"layers.\1.query.\2"),
    (LAYER + r"self_attn\.k_proj\.(.*)", r"layers.\1.key.\2"),
    (LAYER + r"self_attn\.v_proj\.(.*)", r"layers.\1.value.\2"),
    (LAYER + r"self_attn\.out_proj\.(.*)", r"layers.\1.out.\2"),
    (LAYER + r"layer_norm([12])\.(.*)", r"layers.\1.norm\2.\3"),
    (LAYER + r"mlp\.fc1\.(.*)", r"layers.\1.mlp.enter.\2"),
    (LAYER + r"mlp\.fc2\.(.*)", r"layers.\1.mlp.leave.\2"),
)


@extractors.register("clip")
@dataclass(frozen=True)
class ClipFeatures(FeatureSource):
    """The projected embedding of CLIP's vision tower, of length 1, from a local folder of Hugging Face's layout.

    Pictures become colour, their shorter side the tower's by Pillow's bicubic filter, rounded, their middle square is taken,
    and CLIP's own mean and standard deviation are taken out. CMMD is measured with ViT-L/14 at 336 pixels.

    References:
        Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021),
        https://arxiv.org/abs/2103.00020; Rethinking FID (Jayasumana et al., 2024), Section 4, https://arxiv.org/abs/2401.09603
    """

    path: str = option("", help="a folder with config.json and model.safetensors; empty looks in the user's caches")
    model: str = option("openai/clip-vit-large-patch14-336", help="which model is looked for in the caches")
    unit: bool = option(True, help="bring embeddings to length 1, as CMMD does")
    device: str = option("cpu", help="where the network runs: cpu, cuda or mps")

    def suits(self, spec: Spec) -> bool:
        """Whether samples are pictures of 1, 3 or 4 channels."""
        return is_picture(spec)

    def prepare(self, data: Dataset, progress: Progress | None = None) -> TransformerExtractor:
        """See `FeatureSource.prepare`."""
        refuse_unless_picture(data.spec, "clip")
        device, folder = check_device(self.device), find_model(self.path, self.model)
        settings, tensors, file = read_model(folder)
        found = renamed(tensors, NAMES)
        sizes = _architecture(settings, found, folder)
        for name in found.keys() & {"class_token", "positions"}:
            found[name] = found[name].reshape(1, -1, found[name].shape[-1])
        network = VisionTransformer(sizes)
        fill(network, found, file)
        side = sizes.positions * sizes.patch
        return TransformerExtractor(network, "clip", side, MEAN, STD, folder.name, device, self.unit)


def _architecture(settings: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Architecture:
    vision = settings.get("vision_config", settings)
    if settings.get("model_type") not in ("clip", "clip_vision_model") or not isinstance(vision, dict):
        raise DataError(f"{folder} holds a model of type {settings.get('model_type')!r}, and 'clip' is wanted")
    projection = tensors.get("projection.weight")
    if projection is None or projection.ndim != 2:
        raise DataError(
            f"{folder} has no weight 'visual_projection.weight': give CLIP whole, or its tower with projection"
        )

    def of(name: str, default: Any) -> Any:
        return setting(vision, name, default, folder)

    activation, patch = of("hidden_act", "quick_gelu"), of("patch_size", 32)
    if activation not in ("gelu", "quick_gelu"):
        raise DataError(f"{folder}: hidden_act is {activation!r}, and only 'gelu' and 'quick_gelu' are known")
    return Architecture(
        width=of("hidden_size", 768),
        depth=of("num_hidden_layers", 12),
        heads=of("num_attention_heads", 12),
        hidden=of("intermediate_size", 3072),
        patch=patch,
        positions=of("image_size", 224) // patch,
        eps=of("layer_norm_eps", 1e-5),
        activation=activation,
        like_clip=True,
        projected=len(projection),
    )
