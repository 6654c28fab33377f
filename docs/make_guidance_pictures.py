"""Makes the picture of docs/guidance.md: how far guidance rules overshoot two known classes, and what spread they leave.

python docs/make_guidance_pictures.py        (under a minute on one core)
"""

from pathlib import Path

from unnoise.evaluation.overshoot import land, two_classes
from unnoise.guidance.apg import AdaptiveProjectedGuidance
from unnoise.guidance.autoguidance import AutoGuidance
from unnoise.guidance.cfg_zero_star import CFGZeroStar
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.guidance.dynamic_thresholding import DynamicThresholding
from unnoise.pictures.curves import lines
from unnoise.pictures.strip import strip
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler

PICTURES = Path(__file__).parent / "pictures"
SCALES = (1, 1.5, 2, 3, 4, 5, 7, 10)
OTHERS = 15
RULES = {
    "classifier_free": lambda g: ClassifierFreeGuidance(g),
    "  rescale 0.7": lambda g: ClassifierFreeGuidance(g, rescale=0.7),
    "  interval 0 0.4": lambda g: ClassifierFreeGuidance(g, interval=(0.0, 0.4)),
    "dynamic_thresholding": lambda g: DynamicThresholding(g, bound=2.0),
    "apg": lambda g: AdaptiveProjectedGuidance(g),
    "cfg_zero_star": lambda g: CFGZeroStar(g),
    "autoguidance": lambda g: AutoGuidance(two_classes(std=0.7, others=OTHERS), g),
}


def main() -> None:
    """Writes the picture."""
    exact, overshoot, spread = two_classes(others=OTHERS), {}, {}
    for name, rule in RULES.items():
        ends = [
            land(rule(g), exact, sampler=DPMSolverPPSampler(), steps=50, grid="log_snr", starts=501) for g in SCALES
        ]
        overshoot[name] = SCALES, [end.overshoot for end in ends]
        spread[name] = SCALES, [end.spread for end in ends]
        print(name, [f"{end.overshoot:.2f} {end.spread:.2f}" for end in ends], flush=True)
    panels = [
        lines(overshoot, "guidance scale", "mean beyond the class's centre"),
        lines(spread, "guidance scale", "spread, as a share of the class's"),
    ]
    strip(panels).quantize(64).save(PICTURES / "guidance.png", optimize=True)


if __name__ == "__main__":
    main()
