"""A step of sampling with a U-Net of Stable Diffusion 1.5's shape at 512 x 512, and its decoder; the weights are random.

The U-Net sees two latents of 4 x 64 x 64 and the states of 77 words for each, one of them empty: guidance by one batched call.
"""

import torch
from _training_peers import BF16, SHIPPED, Contender, Work, diffusers
from torch import nn

from unnoise.nn import autoencoder
from unnoise.nn.latent_unet import STABLE_DIFFUSION_1, LatentUNet
from unnoise.nn.packing import pack
from unnoise.precision import compute_dtype, keep_freed_memory, lower

LAST = "bf16, channels last" if BF16 else "channels last"
GUIDANCE = 7.5
UNET = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "cross_attention_dim": 768,
    "block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
DECODER = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2, "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4, "sample_size": 512,
}  # fmt: skip


def with_random_weights(make):
    """A network whose weights are drawn once, without the time of its own initialisation."""
    with torch.device("meta"):
        network = make()
    network.to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.fill_(1.0) if weight.ndim == 1 and name.endswith("weight") else weight.normal_(std=0.02)
    return network.eval().requires_grad_(False)


def for_variant(network, variant):
    if variant == SHIPPED:
        return torch.float32
    keep_freed_memory()
    dtype = torch.bfloat16 if BF16 else torch.float32
    network.to(dtype).to(memory_format=torch.channels_last)
    return dtype


def guided(answer):
    """One guided prediction a step, of one latent."""
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        while True:
            without, asked = answer(torch.cat([x, x])).float().chunk(2)
            without + GUIDANCE * (asked - without)
            yield


def repeated(call):
    with torch.inference_mode():
        while True:
            call()
            yield


def diffusers_unet(variant, batch):
    network = with_random_weights(lambda: diffusers().UNet2DConditionModel(**UNET))
    dtype = for_variant(network, variant)
    words, t = torch.randn(2, 77, 768).to(dtype), torch.tensor(500)

    def answer(x):
        entered = x.to(dtype)
        if variant != SHIPPED:
            entered = entered.contiguous(memory_format=torch.channels_last)
        return network(entered, t, encoder_hidden_states=words, return_dict=False)[0]

    return Work(*counted(lambda: diffusers().UNet2DConditionModel(**UNET), "unet"), guided(answer), calls=2.0)


def counted(make, kind):
    """A twin without memory, and inputs, to count arithmetic on."""
    with torch.device("meta"):
        network = make()
        x = torch.zeros(1, 4, 64, 64)
        inputs = (x, torch.zeros(1), torch.zeros(1, 77, 768)) if kind == "unet" else (x,)
    return network, inputs


class Decoder(nn.Module):
    """The half of an AutoencoderKL that makes pictures."""

    def __init__(self):
        super().__init__()
        whole = diffusers().AutoencoderKL(**DECODER)
        self.widen, self.decoder = whole.post_quant_conv, whole.decoder

    def forward(self, z):
        return self.decoder(self.widen(z))


def diffusers_decoder(variant, batch):
    network = with_random_weights(Decoder)
    dtype = for_variant(network, variant)
    z = torch.randn(1, 4, 64, 64).to(dtype)
    if variant != SHIPPED:
        z = z.contiguous(memory_format=torch.channels_last)
    return Work(*counted(Decoder, "decoder"), repeated(lambda: network(z)), calls=1.0)


def as_sampled(network):
    """A network as models place it for sampling, and what it computes in."""
    keep_freed_memory()
    dtype = compute_dtype("auto", torch.device("cpu"))
    lower(network, dtype)
    pack(network)
    return network, dtype


def our_unet(variant, batch):
    make = lambda: LatentUNet((4, 64, 64), config=STABLE_DIFFUSION_1)
    network, dtype = as_sampled(with_random_weights(make))
    level, cond = torch.full((2,), 500.0), {"context": torch.randn(2, 77, 768).to(dtype)}
    twin, (x, one, words) = counted(make, "unet")
    return Work(twin, (x, one, {"context": words}), guided(lambda x: network(x.to(dtype), level, cond)), calls=2.0)


def our_decoder(variant, batch):
    network, dtype = as_sampled(with_random_weights(autoencoder.Decoder))
    z = torch.randn(1, 4, 64, 64).to(dtype)
    return Work(*counted(autoencoder.Decoder, "decoder"), repeated(lambda: network(z)), calls=1.0)


LATENT = {
    each.name: each
    for each in (
        Contender("diffusers UNet2DConditionModel", (SHIPPED, LAST), diffusers_unet),
        Contender("unnoise latent_unet", (SHIPPED,), our_unet),
        Contender("diffusers AutoencoderKL decoder", (SHIPPED, LAST), diffusers_decoder),
        Contender("unnoise autoencoder decoder", (SHIPPED,), our_decoder),
    )
}
