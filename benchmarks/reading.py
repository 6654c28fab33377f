"""How right the program is that reads pictures of coloured shapes, on pictures that were spoiled in a known way.

A picture is read right where the colour, shape and size of every object are, and no object is missing or too many. The pictures are
half of the training scenes, half of the held-out ones, and spoiled by the very functions that the tests use.

    python benchmarks/reading.py [--number 2000] [--json reading.json]        (a minute on one core)
"""

import argparse
import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "evaluation" / "scenes"))

from conftest import all_at_once, blurred, clean, compressed, noisy

from unnoise.data.shapes import ShapesDataset
from unnoise.evaluation.scenes.reading import read

SPOILED = {
    "as they are": clean,
    "noise, 20 of 255": noisy,
    "blurred, sigma 1": blurred,
    "JPEG, quality 80": compressed,
    "blurred (0.7), noise (12), JPEG (90)": all_at_once,
    "JPEG, quality 50": partial(compressed, quality=50),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2000, help="of pictures")
    parser.add_argument("--json", type=Path, help="write the shares to this file")
    arguments = parser.parse_args()
    half = range(arguments.number // 2)
    pictures = [*ShapesDataset(seed=5).pictures(half), *ShapesDataset(seed=6, split="held_out").pictures(half)]
    known = [Counter((o.thing.colour, o.thing.shape, o.thing.size) for o in each.objects) for each in pictures]
    drawn, shares = ShapesDataset().draw(pictures), {}
    for name, spoil in SPOILED.items():
        seen = [Counter((o.colour, o.shape, o.size) for o in each) for each in read(spoil(drawn))]
        shares[name] = sum(a == b for a, b in zip(known, seen, strict=True)) / len(known)
        print(f"{name:40}{shares[name]:8.2%}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"number": len(known), "right": shares}, indent=1))


if __name__ == "__main__":
    main()
