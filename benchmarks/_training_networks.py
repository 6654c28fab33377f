"""Who trains a U-Net on 32 x 32 x 3 pictures, and who a DiT-S/4 on 32 x 32 x 4 latents, each in its own loop.

A step is the whole of it: the batch drawn from memory, noise, forward and backward pass, clipping where the peer's script clips,
the optimizer, and the moving average where the peer's trainer keeps one.
"""

import importlib
from functools import partial

import torch
from _training_peers import (
    GIVEN,
    LAST,
    SHIPPED,
    Contender,
    NotBuilt,
    Work,
    azula,
    diffusers,
    draw,
    given,
    loop,
    lucidrains,
    our_network,
    our_run,
    smalldiffusion,
)
from torch import nn
from torch.nn import functional

from unnoise.nn.base import networks
from unnoise.recipes.recipe import read_values

SIDE, SAMPLES = 32, 512
DDPM_UNET = {
    "sample_size": SIDE, "in_channels": 3, "out_channels": 3, "layers_per_block": 2, "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None, "norm_eps": 1e-6, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
}  # fmt: skip
LINEAR = {"process": {"name": "linear"}, "denoiser": {"name": "noise"}}


def pictures():
    """uint8, shape (N, 3, 32, 32)."""
    return torch.randint(
        0, 256, (SAMPLES, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def latents():
    """float32, shape (N, 4, 32, 32)."""
    return torch.randn(SAMPLES, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def scaled(x):
    return x.float() / 127.5 - 1


# --- The loops


def diffusers_loop(network, data, batch, variant, labels=(), lr=1e-4, schedule=None):
    """examples/unconditional_image_generation/train_unconditional.py: AdamW, clipping, EMA.

    `schedule(optimizer, ema)` gives what is called after every update.
    """
    library = diffusers()
    noising = library.DDPMScheduler(num_train_timesteps=1000)
    fused, context = given(variant, network)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=lr, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8, fused=fused or None
    )
    ema = importlib.import_module("diffusers.training_utils").EMAModel(
        network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
    )
    law = None if schedule is None else schedule(optimizer, ema)

    def after():
        if law is not None:
            law()
        ema.step(network.parameters())

    def loss():
        x = draw(data, batch, variant)
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (batch,))
        answer = network(noising.add_noise(x, noise, t), t, *(each[:batch] for each in labels), return_dict=False)[0]
        return functional.mse_loss(answer.float(), noise)

    return loop(loss, optimizer, context, clip=1.0, after=after)


def azula_loop(backbone, next_batch, variant):
    """The loop of its README: EDM preconditioning, Adam. Returns its denoiser and the steps."""
    denoiser = azula("denoise").KarrasDenoiser(backbone=backbone, schedule=azula("noise").VPSchedule())
    fused, context = given(variant, denoiser)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-3, fused=fused or None)

    def loss():
        x = next_batch()
        return denoiser.loss(x, torch.rand(len(x)))

    return denoiser, loop(loss, optimizer, context)


def smalldiffusion_loop(network, data, batch, variant):
    """Its training_loop; where it is given more, the same steps by hand, since it makes its optimizer itself."""
    library = smalldiffusion()
    schedule = library.ScheduleDDPM()
    if variant == SHIPPED:
        loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, drop_last=True)
        for _ in library.training_loop(loader, network, schedule, epochs=10**6):
            yield
        return
    fused, context = given(variant, network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=fused)

    def loss():
        x, sigma, eps, _ = library.generate_train_sample(draw(data, batch, variant), schedule)
        return network.get_loss(x, sigma, eps)

    yield from loop(loss, optimizer, context)


# --- U-Nets


def diffusers_unet(variant, batch):
    network = diffusers().UNet2DModel(**DDPM_UNET)
    steps = diffusers_loop(network, scaled(pictures()), batch, variant)
    return Work(network, (torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1)), steps)


def lucidrains_unet(variant, batch):
    """Its Trainer's step: its own objective, Adam, clipping, EMA every ten steps."""
    from ema_pytorch import EMA

    library = lucidrains()
    network = library.Unet(dim=64, dim_mults=(1, 2, 4, 8), flash_attn=True)
    diffusion = library.GaussianDiffusion(network, image_size=SIDE, timesteps=1000)
    data = scaled(pictures()) / 2 + 0.5
    fused, context = given(variant, diffusion)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99), fused=fused or None)
    ema = EMA(diffusion, beta=0.995, update_every=10)
    steps = loop(lambda: diffusion(draw(data, batch, variant)), optimizer, context, clip=1.0, after=ema.update)
    return Work(network, (torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1)), steps)


class Modulated(nn.Module):
    """azula's network with an embedding of the time made of its own layer."""

    def __init__(self, network, features, frequencies=256):
        super().__init__()
        self.network = network
        encoding = azula("nn.layers").SineEncoding(frequencies, omega=1e3)
        self.embedding = nn.Sequential(
            encoding, nn.Linear(frequencies, features), nn.SiLU(), nn.Linear(features, features)
        )

    def forward(self, x, t):
        return self.network(x, self.embedding(t))


def azula_unet(variant, batch):
    network = azula("nn.unet").UNet(3, 3, hid_channels=(128, 256, 256, 256), hid_blocks=(3, 3, 3, 3), mod_features=512)
    backbone = Modulated(network, 512)
    data = scaled(pictures())
    _, steps = azula_loop(backbone, lambda: draw(data, batch, variant), variant)
    return Work(backbone, (torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1)), steps)


def smalldiffusion_unet(variant, batch):
    network = smalldiffusion().Unet(SIDE, 3, 3, ch=128, ch_mult=(1, 2, 2, 2), attn_resolutions=(16,))
    steps = smalldiffusion_loop(network, scaled(pictures()), batch, variant)
    return Work(network, (torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 1, 1, 1)), steps)


def ours(data, network, variant, batch):
    """unnoise's whole run, with whatever it chooses by itself."""
    if network["name"] not in networks:
        raise NotBuilt(f"unnoise has no network {network['name']}")
    steps, run = our_run(data, network, batch, **LINEAR)
    trained = our_network(run)
    with torch.device("meta"):  # arithmetic is counted on one without memory, and without kernels that no counter knows
        twin = type(trained)(trained.shape, trained.out_shape, trained.num_classes, trained.config)
        inputs = torch.zeros(1, *trained.shape), torch.zeros(1)
    return Work(twin, inputs, steps)


def our_unet(name, variant, batch):
    network = {"name": name} if name == "ddpm_unet" else read_values("cifar10")["network"]
    return ours(pictures(), network, variant, batch)


UNETS = {
    each.name: each
    for each in (
        Contender("diffusers UNet2DModel", (SHIPPED, GIVEN, LAST), diffusers_unet),
        Contender("lucidrains Unet(64)", (SHIPPED, GIVEN, LAST), lucidrains_unet),
        Contender("azula UNet", (SHIPPED, GIVEN, LAST), azula_unet),
        Contender("smalldiffusion Unet", (SHIPPED, GIVEN, LAST), smalldiffusion_unet),
        Contender("unnoise ddpm_unet", (SHIPPED,), partial(our_unet, "ddpm_unet")),
        Contender("unnoise unet", (SHIPPED,), partial(our_unet, "unet")),
    )
}


# --- Transformers: DiT-S/4 on 32 x 32 x 4


def diffusers_dit(variant, batch):
    """Its DiTTransformer2DModel, which has the structure of the reference implementation."""
    network = diffusers().DiTTransformer2DModel(
        num_attention_heads=6,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        num_layers=12,
        sample_size=SIDE,
        patch_size=4,
    )
    labels = torch.zeros(batch, dtype=torch.int64)
    steps = diffusers_loop(network, latents(), batch, variant, (labels,))
    return Work(network, (torch.zeros(1, 4, SIDE, SIDE), torch.zeros(1, dtype=torch.int64), labels[:1]), steps)


class Patched(nn.Module):
    """azula's DiT, which speaks tokens, on pictures."""

    def __init__(self, patch=4):
        super().__init__()
        network = azula("nn.dit").DiT(
            4 * patch**2,
            4 * patch**2,
            mod_features=384,
            pos_channels=2,
            hid_channels=384,
            hid_blocks=12,
            attention_heads=6,
        )
        self.inner, self.patch = network, patch
        self.embedding = Modulated(nn.Identity(), 384).embedding
        places = torch.arange(SIDE // patch, dtype=torch.float32)
        self.register_buffer("places", torch.cartesian_prod(places, places))

    def forward(self, x, t):
        from einops import rearrange

        tokens = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=self.patch, q=self.patch)
        tokens = self.inner(tokens, self.embedding(t), self.places)
        side = SIDE // self.patch
        return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=side, w=side, p=self.patch, q=self.patch)


def azula_dit(variant, batch):
    backbone = Patched()
    data = latents()
    _, steps = azula_loop(backbone, lambda: draw(data, batch, variant), variant)
    return Work(backbone, (torch.zeros(1, 4, SIDE, SIDE), torch.zeros(1)), steps)


def smalldiffusion_dit(variant, batch):
    network = smalldiffusion().DiT(SIDE, channels=4, patch_size=4, depth=12, head_dim=64, num_heads=6)
    steps = smalldiffusion_loop(network, latents(), batch, variant)
    return Work(network, (torch.zeros(1, 4, SIDE, SIDE), torch.ones(1, 1, 1, 1)), steps)


def our_dit(variant, batch):
    return ours(latents(), {"name": "dit", "width": 384, "depth": 12, "heads": 6, "patch": 4}, variant, batch)


TRANSFORMERS = {
    each.name: each
    for each in (
        Contender("diffusers DiTTransformer2DModel", (SHIPPED, GIVEN), diffusers_dit),
        Contender("azula DiT", (SHIPPED, GIVEN), azula_dit),
        Contender("smalldiffusion DiT", (SHIPPED, GIVEN), smalldiffusion_dit),
        Contender("unnoise dit", (SHIPPED,), our_dit),
    )
}
