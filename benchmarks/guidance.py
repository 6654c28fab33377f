"""Guidance rules side by side where everything is known: how far they overshoot the class, and what spread they leave it.

Half of the data is N(-1, 1/4), half N(1, 1/4); the class at 1 is asked for. The denoisers and the classifier are exact, DDIM
makes 1,000 steps, and a cell says mean and standard deviation of the samples: 1 and 0.5 would be the class itself. The first row
is that of the notes that the project began with, from samples of an independent program.

    python benchmarks/guidance.py [--quick] [--json guidance.json]        (about ten minutes on one core)
"""

import argparse
import json
import time

from unnoise.evaluation.overshoot import ExactClassifier, land, two_classes
from unnoise.guidance.apg import AdaptiveProjectedGuidance
from unnoise.guidance.autoguidance import AutoGuidance
from unnoise.guidance.cfg_pp import CFGPlusPlus
from unnoise.guidance.cfg_zero_star import CFGZeroStar
from unnoise.guidance.classifier import ClassifierGuidance
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.guidance.dynamic_thresholding import DynamicThresholding

SCALES = 0, 1, 2, 3, 5, 7.5, 10, 15
REFERENCE = {
    0: (-0.01, 1.109), 1: (0.995, 0.494), 2: (1.318, 0.355), 3: (1.517, 0.311), 5: (1.803, 0.271), 7.5: (2.071, 0.247),
    15: (2.641, 0.220),
}  # fmt: skip

OTHERS = 15
EXACT, WIDE = two_classes(), two_classes(others=OTHERS)
BLURRED, BLURRED_WIDE = two_classes(std=0.7), two_classes(std=0.7, others=OTHERS)

RULES = {
    "classifier_free": lambda g: ClassifierFreeGuidance(g),
    "classifier, exact": lambda g: ClassifierGuidance(ExactClassifier(EXACT), g),
    "  of an unconditional model": lambda g: ClassifierGuidance(ExactClassifier(EXACT), g, conditional=False),
    "classifier_free, rescale 0.7": lambda g: ClassifierFreeGuidance(g, rescale=0.7),
    "classifier_free, interval 0.2 0.5": lambda g: ClassifierFreeGuidance(g, interval=(0.2, 0.5)),
    "classifier_free, interval 0 0.4": lambda g: ClassifierFreeGuidance(g, interval=(0.0, 0.4)),
    "dynamic_thresholding, bound 2": lambda g: DynamicThresholding(g, bound=2.0),
    "apg": lambda g: AdaptiveProjectedGuidance(g),
    "apg, parallel 1, norm 0.3": lambda g: AdaptiveProjectedGuidance(g, parallel=1.0, norm_threshold=0.3),
    "apg, parallel 0.3": lambda g: AdaptiveProjectedGuidance(g, parallel=0.3),
    "cfg_zero_star": lambda g: CFGZeroStar(g),
    "cfg_zero_star, zero_share 0": lambda g: CFGZeroStar(g, zero_share=0.0),
    "autoguidance, weaker sees 0.7": lambda g: AutoGuidance(BLURRED, g),
}
IN_SPACE = {
    "classifier_free": lambda g: ClassifierFreeGuidance(g),
    "classifier_free, rescale 0.7": lambda g: ClassifierFreeGuidance(g, rescale=0.7),
    "classifier_free, rescale 1": lambda g: ClassifierFreeGuidance(g, rescale=1.0),
    "dynamic_thresholding, bound 2": lambda g: DynamicThresholding(g, bound=2.0),
    "apg": lambda g: AdaptiveProjectedGuidance(g),
    "apg, norm 0.3": lambda g: AdaptiveProjectedGuidance(g, norm_threshold=0.3),
    "cfg_zero_star": lambda g: CFGZeroStar(g),
    "classifier_free, interval 0.2 0.5": lambda g: ClassifierFreeGuidance(g, interval=(0.2, 0.5)),
    "classifier, exact": lambda g: ClassifierGuidance(ExactClassifier(WIDE), g),
    "autoguidance, weaker sees 0.7": lambda g: AutoGuidance(BLURRED_WIDE, g),
}
LAMBDAS = 0, 0.1, 0.2, 0.4, 0.6, 0.8, 1
STEPS = 10, 20, 50, 100


def table(heads, rows):
    """Prints a table, and returns its cells as numbers."""
    found = []
    print(f"{'':<34}" + "".join(f"{head:>15}" for head in heads), flush=True)
    for name, cells in rows:
        shown, line = [], f"{name:<34}"
        for head, cell in zip(heads, cells, strict=True):
            landing = cell()
            line += f"{'':>15}" if landing is None else f"{landing[0]:>9.3f} {landing[1]:.3f}"
            shown.append({"at": head, "mean": landing and landing[0], "std": landing and landing[1]})
        print(line, flush=True)
        found.append({"rule": name.strip(), "cells": shown})
    return found


def landed(rule, steps, oracle=EXACT):
    """A cell: mean and standard deviation."""

    def cell():
        end = land(rule, oracle, steps=steps)
        return end.mean, end.std

    return cell


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 steps instead of 1,000")
    parser.add_argument("--json", help="write everything to this file")
    arguments = parser.parse_args()
    steps, begin = 100 if arguments.quick else 1000, time.perf_counter()
    print(f"mean and standard deviation by guidance scale, DDIM with {steps} steps")
    rows = [("from the notes (samples)", [lambda g=g: REFERENCE.get(g) for g in SCALES])]
    rows += [(name, [landed(rule(g), steps) for g in SCALES]) for name, rule in RULES.items()]
    by_scale = table(SCALES, rows)
    print(f"\nthe same beside {OTHERS} coordinates N(0, 1/4) that say nothing of the class")
    in_space = table(
        SCALES, [(name, [landed(rule(g), steps, WIDE) for g in SCALES]) for name, rule in IN_SPACE.items()]
    )
    print("\ncfg_pp by its own scale, lambda in the paper: what it does depends on the number of steps")
    rows = [(f"cfg_pp, {n} steps", [landed(CFGPlusPlus(scale), n) for scale in LAMBDAS]) for n in STEPS]
    rows.append(
        (
            f"  {STEPS[1]} steps, {OTHERS} coordinates more",
            [landed(CFGPlusPlus(each), STEPS[1], WIDE) for each in LAMBDAS],
        )
    )
    by_lambda = table(LAMBDAS, rows)
    print(f"\n{time.perf_counter() - begin:.0f} s")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(
                {"steps": steps, "by_scale": by_scale, "in_space": in_space, "by_lambda": by_lambda}, file, indent=1
            )


if __name__ == "__main__":
    main()
