"""What a prompt costs in a run of sampling: the text encoder, the keys and values of its tokens, and guidance.

The text encoder is CLIP's of Stable Diffusion 1.x (77 tokens), the networks are small ones on latents of 4 x 32 x 32; weights are
random, which costs what any do. A run is encoder and steps of Euler for a batch, as `Model.sample` makes them: what can be made
of the prompt alone is made once (see `Network.remember`). Beside it stands the same run with that made anew in every step. Layers
that see the prompt alone are timed and counted by hooks. Contenders take turns, and the least time counts, since whatever else
the machine does only adds to it; a ratio is the median over turns. Times are those of the processor with --clock cpu, by its
threads.

    python benchmarks/conditioning.py [--steps 10] [--batch 1] [--turns 5] [--only dit,mmdit] [--clock cpu] [--json FILE]

    text       share of the text encoder in a guided run of so many steps, prompt and empty text
    kept       share and calls of the prompt's layers (keys, values, the layer before the blocks) in a guided run
    anew       the same where nothing is kept, and by how much that run is longer
    guided     a guided run beside an unguided one, without the encoder; at most 2.05 is asked for
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from unnoise.conditioning.text.clip import ClipTextConfig, ClipTextEncoder
from unnoise.denoisers.velocity import VelocityDenoiser
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.nn.base import networks
from unnoise.placement import placed, precision_of
from unnoise.process.flow import FlowSchedule
from unnoise.samplers import grids
from unnoise.samplers.base import trajectory
from unnoise.samplers.euler import EulerSampler

TARGET = 2.05
LATENTS, TOKENS, WIDTH, SCALE = (4, 32, 32), 77, 768, 4.0
NETWORKS = {
    "dit": {"size": "S", "patch": 2},
    "mmdit": {"depth": 6, "pooled": WIDTH},
    "flux": {"width": 384, "heads": 6, "double_blocks": 4, "single_blocks": 8, "pooled": WIDTH},
    "latent_unet": {"width": 96, "multipliers": (1, 2, 4), "blocks": 1, "attention": (0, 1, 2)},
}


class Meter:
    """Seconds and calls of some layers."""

    def __init__(self, layers, clock):
        self.seconds, self.calls, self.clock = 0.0, 0, clock
        for layer in layers:
            layer.register_forward_pre_hook(lambda *_: setattr(self, "began", clock()))
            layer.register_forward_hook(self._ended)

    def _ended(self, *_):
        self.seconds += self.clock() - self.began
        self.calls += 1

    def take(self):
        """What has come together since the last time."""
        found = self.seconds, self.calls
        self.seconds, self.calls = 0.0, 0
        return found


class Contender:
    """A network with a prompt, and the ways in which it samples."""

    def __init__(self, name, arguments, clock):
        torch.manual_seed(0)
        network = networks[name](
            LATENTS, None, 0, networks.options({"name": name, "context": WIDTH, **NETWORKS[name]})[1]
        )
        for parameter in network.parameters():  # no layer is zero: what is multiplied by nothing may be skipped
            parameter.data += 0.02 * torch.randn_like(parameter)
        self.denoiser = placed(VelocityDenoiser(network, FlowSchedule()), LATENTS, "cpu", arguments.precision).eval()
        inner = self.denoiser.network
        layers = [m for key, m in inner.named_modules() if key == "read" or key.endswith("project_context")]
        self.name, self.arguments, self.clock, self.meter = name, arguments, clock, Meter(layers, clock)
        self.grid = grids.uniform(arguments.steps)

    def run(self, cond, scale, keeps):
        """Seconds of a run, and of them what the layers of the prompt take, with their calls."""
        denoiser, batch = self.denoiser, self.arguments.batch
        cond = {name: cond[name].expand(batch, *cond[name].shape[1:]) for name in denoiser.network.condition_keys}
        x = torch.randn(batch, *LATENTS, generator=torch.Generator().manual_seed(0))
        self.meter.take()
        began = self.clock()
        away = denoiser.null_condition(batch) if scale != 1 else None
        if keeps:
            cond, away = denoiser.remember(cond), denoiser.remember(away)
        guided = Guided(denoiser, ClassifierFreeGuidance(scale), away)
        for _ in trajectory(EulerSampler(), guided, x, self.grid, cond=cond):
            pass
        return self.clock() - began, *self.meter.take()


@torch.no_grad()
def encoded(encoder, clock):
    """Seconds for a prompt and the empty text, and the condition."""
    ids = torch.randint(0, encoder.config.vocabulary, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, TOKENS, dtype=torch.bool)
    began = clock()
    states = encoder(ids, mask)
    pooled = encoder.pooled(states, mask)
    return clock() - began, {"context": states[:1], "pooled": pooled[:1]}


def measured(contender, encoder, turns):
    """The row of a network: least seconds of each kind of run, and ratios within turns."""
    found = {"text": [], "kept": [], "anew": [], "unguided": []}
    _, cond = encoded(encoder, contender.clock)
    contender.run(cond, SCALE, True)  # kernels are compiled and weights laid out on first use
    for _ in range(turns):
        found["text"].append(encoded(encoder, contender.clock)[0])
        found["kept"].append(contender.run(cond, SCALE, True))
        found["anew"].append(contender.run(cond, SCALE, False))
        found["unguided"].append(contender.run(cond, 1.0, True))
    (kept, kept_layers, kept_calls), (anew, anew_layers, anew_calls) = min(found["kept"]), min(found["anew"])
    text = min(found["text"])
    return {
        "network": contender.name,
        "precision": precision_of(contender.denoiser),
        "ms a guided step": 1000 * kept / contender.arguments.steps,
        "text": text / (text + kept),
        "kept": kept_layers / (text + kept),
        "kept calls": kept_calls,
        "anew": anew_layers / (text + anew),
        "anew calls": anew_calls,
        "anew / kept": statistics.median(b[0] / a[0] for a, b in zip(found["kept"], found["anew"], strict=True)),
        "guided / unguided": statistics.median(
            a[0] / b[0] for a, b in zip(found["kept"], found["unguided"], strict=True)
        ),
    }


def shown(rows, arguments):
    print(
        f"{arguments.steps} steps of Euler, batch {arguments.batch}, guidance {SCALE:g}; encoder and network on the processor\n"
    )
    print(
        f"{'network':12} {'ms/step':>8} {'text':>7} {'kept':>14} {'anew':>15} {'anew/kept':>10} {'guided/unguided':>16}"
    )
    for row in rows:
        kept, anew = (f"{row[way]:6.2%} x {row[f'{way} calls']:3}" for way in ("kept", "anew"))
        verdict = "" if row["guided / unguided"] <= TARGET else f"  more than {TARGET}"
        print(
            f"{row['network']:12} {row['ms a guided step']:8.1f} {row['text']:7.1%} {kept:>14} {anew:>15} "
            f"{row['anew / kept']:10.3f} {row['guided / unguided']:16.3f}{verdict}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default=",".join(NETWORKS))
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    clock = time.perf_counter if arguments.clock == "wall" else lambda: time.process_time() / threads
    torch.manual_seed(0)
    encoder = ClipTextEncoder(ClipTextConfig()).eval()
    rows = [measured(Contender(name, arguments, clock), encoder, arguments.turns) for name in arguments.only.split(",")]
    shown(rows, arguments)
    if arguments.json:
        machine = {
            "torch": torch.__version__,
            "threads": threads,
            "machine": platform.processor() or platform.machine(),
        }
        asked = {key: value for key, value in vars(arguments).items() if key != "json"}
        arguments.json.write_text(json.dumps({**machine, **asked, "target": TARGET, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
