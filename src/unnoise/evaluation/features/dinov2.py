"""DINOv2: features learned without labels from many pictures, which agree with people more often than Inception's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.base import Dataset, Spec
from ...errors import DataError
from ...options import option
from .base import FeatureSource, Progress, extractors
from .hugging_face import find_model, read_model, renamed, setting
from .looking import is_picture, refuse_unless_picture
from .transformer_extractor import TransformerExtractor
from .vision_transformer import Architecture, VisionTransformer
from .weights import check_device, fill

SIDE = 224
IMAGENET_MEAN = 0.485, 0.456, 0.406
IMAGENET_STD = 0.229, 0.224, 0.225
LAYER = r"(?:dinov2\.)?encoder\.layer\.(\d+)\."
NAMES = (
    (r"(?:dinov2\.)?embeddings\.cls_token", "class_token"),
    (r"(?:dinov2\.)?embeddings\.position_embeddings", "positions"),
    (r"(?:dinov2\.)?embeddings\.patch_embeddings\.projection\.(.*)", r"patches.\1"),
    (r"(?:dinov2\.)?layernorm\.(.*)", r"norm_out.\1"),
    (LAYER + r"attention\.attention\.(query|key|value)\.(.*)", r"layers.\1.\2.\3"),
    (LAYER + r"attention\.output\.dense\.(.*)", r"layers.\1.out.\2"),
    (LAYER + r"layer_scale(\d)\.lambda1", r"layers.\1.scale\2"),
    (LAYER + r"mlp\.(?:fc1|weights_in)\.(.*)", r"layers.\1.mlp.enter.\2"),
    (LAYER + r"mlp\.(?:fc2|weights_out)\.(.*)", r"layers.\1.mlp.leave.\2"),
    (LAYER + r"(norm[12])\.(.*)", r"layers.\1.\2.\3"),
)


@extractors.register("dinov2")
@dataclass(frozen=True)
class Dinov2Features(FeatureSource):
    """The class token of DINOv2 after its last normalisation, from a local folder of Hugging Face's layout.

    Pictures become colour, their shorter side 224 by Pillow's bicubic filter, rounded, their middle square is taken, and the
    mean and standard deviation of ImageNet are taken out. For square pictures this is what dgm-eval and EDM2 do.

    References:
        DINOv2: Learning Robust Visual Features without Supervision (Oquab et al., 2023), https://arxiv.org/abs/2304.07193;
        Exposing flaws of generative model evaluation metrics (Stein et al., 2023), Section 3, https://arxiv.org/abs/2306.04675
    """

    path: str = option("", help="a folder with config.json and model.safetensors; empty looks in the user's caches")
    model: str = option("facebook/dinov2-large", help="which model is looked for in the caches")
    device: str = option("cpu", help="where the network runs: cpu, cuda or mps")

    def suits(self, spec: Spec) -> bool:
        """Whether samples are pictures of 1, 3 or 4 channels."""
        return is_picture(spec)

    def prepare(self, data: Dataset, progress: Progress | None = None) -> TransformerExtractor:
        """See `FeatureSource.prepare`."""
        refuse_unless_picture(data.spec, "dinov2")
        device, folder = check_device(self.device), find_model(self.path, self.model)
        settings, tensors, file = read_model(folder)
        sizes = _architecture(settings, folder)
        network = VisionTransformer(sizes)
        fill(network, renamed(tensors, NAMES), file)
        side = SIDE - SIDE % sizes.patch
        return TransformerExtractor(network, "dinov2", side, IMAGENET_MEAN, IMAGENET_STD, folder.name, device)


def _architecture(settings: dict[str, Any], folder: Path) -> Architecture:
    if settings.get("model_type") != "dinov2":
        raise DataError(f"{folder} holds a model of type {settings.get('model_type')!r}, and 'dinov2' is wanted")

    def of(name: str, default: Any) -> Any:
        return setting(settings, name, default, folder)

    width, patch, gated = of("hidden_size", 768), of("patch_size", 14), of("use_swiglu_ffn", False)
    if not gated and of("hidden_act", "gelu") != "gelu":
        raise DataError(f"{folder}: hidden_act is {settings['hidden_act']!r}, and only 'gelu' is known of DINOv2")
    hidden = width * of("mlp_ratio", 4)
    return Architecture(
        width=width,
        depth=of("num_hidden_layers", 12),
        heads=of("num_attention_heads", 12),
        hidden=(hidden * 2 // 3 + 7) // 8 * 8 if gated else hidden,  # two thirds, because the gate is as large again
        patch=patch,
        positions=of("image_size", 224) // patch,
        eps=of("layer_norm_eps", 1e-6),
        activation="swiglu" if gated else "gelu",
        like_clip=False,
        biased=of("qkv_bias", True),
    )
