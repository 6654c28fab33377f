"""Makes the pictures of docs/judging.md, and prints the numbers that the page quotes.

python docs/make_judging_pictures.py --train 'cifar10/train-*.parquet' --test cifar10/test.parquet [--only numbers,resize]
    [--few runs/hundred --many runs/cifar10]

`--few` and `--many` are runs of one recipe, of 100 pictures and of all; without them the part on copies is left out. The
network that sees for us is trained once, in a few minutes, and kept in the user's cache.
"""

import argparse
from pathlib import Path

import torch
from torch.nn import functional

from unnoise.data.open import source_of
from unnoise.evaluation.features.base import extractors
from unnoise.evaluation.features.store import reference_features
from unnoise.evaluation.memorisation import copying
from unnoise.evaluation.metrics.base import Cloud, metrics
from unnoise.pictures.bands import bands
from unnoise.recipes.judging.copying import distances_picture
from unnoise.recipes.judging.run import evaluate

PICTURES = Path(__file__).parent / "pictures"
SIZES = (100, 200, 500, 1000, 2000, 5000, 10_000)
AT_ONCE = 2000
LADDER = ("fid", "kid", "precision", "recall", "density", "coverage", "vendi")


class Real:
    """CIFAR-10, and how the network that learned its training part sees it."""

    def __init__(self, train: str, test: str) -> None:
        self.train, self.test = source_of(train).load(), source_of(test).load()
        self.extractor = extractors.build("own").prepare(self.train, _tell)
        self.cloud = Cloud(reference_features(self.train, self.extractor, _tell), self.train.labels)
        self.seen = Cloud(reference_features(self.test, self.extractor, _tell), self.test.labels)

    def look(self, x: torch.Tensor) -> Cloud:
        """Features of other pictures."""
        return Cloud(torch.cat([self.extractor(part) for part in x.split(500)]))


def _tell(what: str, done: int, total: int) -> None:
    if done >= total:
        print(f"  {what}: {total:,}", flush=True)


def numbers(real: Real, arguments: argparse.Namespace) -> None:
    """Real pictures beside real pictures: what the number of samples does to FID, and not to KID."""
    fid, kid = metrics.build("fid"), metrics.build("kid")
    rows = []
    for n in SIZES:
        some = real.seen.take(torch.arange(n))
        a, b = fid.measure(some, real.cloud), kid.measure(some, real.cloud)
        rows.append((n, a, b))
        print(f"{n:>7} FID {a.value:8.3f} ({a.low:.3f} to {a.high:.3f})  infinity {a.details['fid_infinity']:8.3f}"
              f"  KID {b.value:9.5f} ({b.low:.5f} to {b.high:.5f})", flush=True)  # fmt: skip
    x = [n for n, *_ in rows]
    panels = {
        "FID": [(a.value, a.low, a.high) for _, a, _ in rows],
        "KID": [(b.value, b.low, b.high) for *_, b in rows],
    }
    bands(x, panels, xlabel="real pictures in the place of samples").save(PICTURES / "judging-numbers.png")


def resize(real: Real, arguments: argparse.Namespace) -> None:
    """The same real pictures, brought to another size and back by different rules."""
    x = real.test.x[:AT_ONCE].float()
    rules = {
        "as they are": lambda: x,
        "bicubic, antialiased": lambda: _there_and_back(x, mode="bicubic", antialias=True),
        "bilinear, antialiased": lambda: _there_and_back(x, mode="bilinear", antialias=True),
        "bilinear, not antialiased": lambda: _there_and_back(x, mode="bilinear", antialias=False),
        "nearest": lambda: _there_and_back(x, mode="nearest"),
    }
    for name, make in rules.items():
        found = metrics.build("fid").measure(real.look(make().round().clamp(0, 255).to(torch.uint8)), real.cloud)
        print(f"{name:<28} FID {found.value:7.2f} ({found.low:.2f} to {found.high:.2f})", flush=True)


def _there_and_back(x: torch.Tensor, **rule: object) -> torch.Tensor:
    small = functional.interpolate(x, size=(24, 24), **rule)  # type: ignore[arg-type]
    return functional.interpolate(small, size=(32, 32), mode="bicubic", antialias=True)


def ladder(real: Real, arguments: argparse.Namespace) -> None:
    """Real pictures, spoiled in ways that are known: which number sees what."""
    generator = torch.Generator().manual_seed(0)
    x, labels = real.test.x[:AT_ONCE], real.test.labels[:AT_ONCE]
    noise = torch.randn(x.shape, generator=generator)

    def noisy(sigma: float) -> torch.Tensor:
        return (x + sigma * noise).round().clamp(0, 255).to(torch.uint8)

    spoiled = {
        "real": x,
        "blurred a little": _blurred(x, 0.5),
        "blurred": _blurred(x, 1.0),
        "noise of 8 in 255": noisy(8),
        "noise of 24 in 255": noisy(24),
        "5 of 10 classes": real.test.x[torch.isin(real.test.labels, torch.arange(5))][:AT_ONCE],
        "1 of 10 classes": real.test.x[labels.new_tensor(range(len(real.test))).masked_select(real.test.labels == 3)],
        "200 pictures, ten times each": x[: AT_ONCE // 10].repeat(10, 1, 1, 1),
        "training pictures": real.train.x[:AT_ONCE],
    }
    print(f"{'':<30}" + "".join(f"{name:>18}" for name in LADDER))
    for name, pictures in spoiled.items():
        cloud = real.look(pictures)
        cells = []
        for metric in LADDER:
            found = metrics.build(metric).measure(cloud, real.cloud)
            cells.append(f"{found.value:.3g} ± {(found.high - found.low) / 2:.2g}")
        copies = copying(cloud, real.cloud, real.seen.take(torch.arange(8000, 10_000)))
        print(
            f"{name:<30}" + "".join(f"{cell:>18}" for cell in cells) + f"  copies {copies.copies.value:.1%}", flush=True
        )


def _blurred(x: torch.Tensor, sigma: float) -> torch.Tensor:
    at = torch.arange(-3, 4).float()
    weights = torch.exp(-at.square() / (2 * sigma * sigma))
    weights = weights / weights.sum()
    y = functional.pad(x.float(), (3, 3, 3, 3), mode="replicate")
    y = functional.conv2d(y, weights.reshape(1, 1, 1, 7).repeat(3, 1, 1, 1), groups=3)
    y = functional.conv2d(y, weights.reshape(1, 1, 7, 1).repeat(3, 1, 1, 1), groups=3)
    return y.round().clamp(0, 255).to(torch.uint8)


def copies(real: Real, arguments: argparse.Namespace) -> None:
    """A model of 100 pictures beside a model of 50,000 that was trained for the same time."""
    for name, run in (("few", arguments.few), ("many", arguments.many)):
        if run is None:
            continue
        judged = evaluate(
            run, data=arguments.test, n=1000, progress=_tell, features=None, out=f"{run}/evaluation/judging"
        )
        assert judged is not None
        found = judged.result.memorisation
        assert found is not None
        print(f"{name}: {found.sentence}")
        for metric, each in judged.result.estimates.items():
            print(f"  {metric:<12} {each.value:8.4g} ({each.low:.4g} to {each.high:.4g})", flush=True)
        distances_picture(found).save(PICTURES / f"judging-distances-{name}.png")


PARTS = {part.__name__: part for part in (numbers, resize, ladder, copies)}


def main() -> None:
    """Makes all parts, or those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--few")
    parser.add_argument("--many")
    parser.add_argument("--only", default=",".join(PARTS))
    arguments = parser.parse_args()
    real = Real(arguments.train, arguments.test)
    for name in arguments.only.split(","):
        print(f"== {name}")
        PARTS[name](real, arguments)


if __name__ == "__main__":
    main()
