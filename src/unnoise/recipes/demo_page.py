"""The page of the demo: what diffusion does, told with pictures and numbers that were all made a moment ago."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from ..pictures.curves import schedule_curves
from ..pictures.grid import image_grid
from ..pictures.page import Page, Picture
from ..pictures.points import scatter
from ..pictures.strip import strip
from ..process.base import Schedule
from ..process.cosine import CosineSchedule
from ..process.linear import LinearSchedule
from .demo_findings import GOOD_SCALE, Findings, GuidanceRow, StepsRow, Trained
from .gallery import (
    forward_strip,
    labelled_rows,
    limits_of,
    loss_by_time_picture,
    run_loss_picture,
    schedules_side_by_side,
)
from .score_field import score_field

WIDE = 900  # CSS pixels: the column of the page
HALF = 430  # two of these fit beside each other


def write_page(found: Findings, out: Path) -> Path:
    """Writes `index.html` into a folder and gives back its path."""
    page = Page(
        "From noise to data",
        "What a diffusion model is, shown on points in the plane and on handwritten digits. `unnoise demo` made all "
        "pictures on this page and measured all of its numbers.",
    )
    _forward(page, found)
    _schedules(page, found)
    _training(page, found)
    _scores(page, found)
    _reverse(page, found)
    _steps(page, found)
    _guidance(page, found)
    _labels(page, found)
    _again(page, found, out)
    return page.save(out / "index.html")


def _forward(page: Page, found: Findings) -> None:
    linear = LinearSchedule()
    page.heading("1. Destroying data is easy")
    page.text(
        f"""
        Take data: here {len(found.spiral.data):,} points on a spiral. Add a little random noise to each point, shrink
        the result a little, and do it again, {linear.num_steps:,} times. In the end nothing is left of the spiral;
        the points might have come from a random number generator. This is the **forward process**. There is nothing
        to learn in it.

        It has a closed form, so one can jump to any time *t* at once:
        """
    )
    page.code("x_t = α · x_0 + σ · noise")
    page.text(
        """
        At t = 0 there is only data, at t = 1 only noise. ᾱ = α² is the share of the signal that is left, and SNR =
        α²/σ² says how much louder the signal is than the noise. The noise is the same in every picture of a row;
        there is only more of it.
        """
    )
    alt = "A row of pictures in which the data dissolves into noise"
    page.picture(forward_strip(found.spiral.data, None, linear), "A spiral dissolves.", alt, WIDE)
    caption = "Images are points too, with one coordinate for each pixel, so the same formula dissolves digits."
    page.picture(forward_strip(found.digits.data, None, linear), caption, alt, WIDE)


def _schedules(page: Page, found: Findings) -> None:
    schedules: dict[str, Schedule] = {"linear": LinearSchedule(), "cosine": CosineSchedule()}
    page.heading("2. How fast? Linear beside cosine")
    page.text(
        """
        How much signal is left at which time is a choice, the **schedule**. The linear one, of the first diffusion
        models, destroys most of the data early and then spends a third of its time on what is nearly all noise already. The cosine
        one gives every stage its share. Compare the columns: same points, same noise, same time.
        """
    )
    times = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
    side = schedules_side_by_side(found.spiral.data, None, schedules, times)
    page.picture(side, "Cosine keeps the spiral for longer.", "Two rows of dissolving spirals", WIDE)
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    curves = {name: (t, each.alpha(t), each.sigma(t), each.log_snr(t)) for name, each in schedules.items()}
    caption = (
        "The same two schedules as curves. What matters for learning is the right one: how fast the signal drowns."
    )
    page.picture(schedule_curves(curves), caption, "Curves of signal, noise and log SNR over time", 800)


def _training(page: Page, found: Findings) -> None:
    page.heading("3. Learning to undo it")
    page.text(
        f"""
        Now the way back. A neural network is shown noisy data and the time, and is asked for one thing: **what was
        the clean data?** The loss is its squared error. That is the whole training; every example is made on the spot
        from a sample, a random time and fresh noise.

        Can the error become 0? No. Many different clean samples might have become the same noisy one, and the best
        that any network can do is to answer with their average. What is then left of the error is the **Bayes
        floor**, the dashed line. For a data set that is small enough the best answer can be computed exactly, as the
        average of all {len(found.spiral.data):,} points or {len(found.digits.data):,} digits, each weighted by how
        likely it became what is seen. How good a network is shows in how far it stays *above the floor*, not above 0.
        """
    )
    both = (found.spiral, found.digits)
    page.columns(
        [Picture(run_loss_picture(each.folder, each.name), width=HALF, alt=f"Loss of {each.name}") for each in both]
    )
    page.table(
        [
            "model",
            "weights",
            "steps",
            "samples seen",
            "samples a second",
            "validation loss",
            "Bayes floor",
            "above the floor",
        ],
        [_trained_row(each) for each in both],
        "The validation loss is measured on fixed noise"
        + (
            " and on the training data, for which the floor holds."
            if not any(e.facts["held_out"] for e in both)
            else "."
        ),
    )
    page.text(
        """
        One number hides where the work is. Each bar below is the loss at one stretch of time: the pale part nobody
        can remove, and what stands above the black mark the network has not learned. Towards t = 1 nothing can be
        seen in the noise, the average of all data is the best answer, and the floor is soon reached. Towards t = 0
        the floor drops, because so little noise leaves only one sample of the *training data* possible, and the exact
        answer is to know that one by heart. A network that did so could only repeat its data; its distance from this
        floor is what lets it invent. (The loss is measured on a limited number of samples, so a bar may also end a
        little below its mark by chance.)
        """
    )
    page.columns(
        [Picture(loss_by_time_picture(e.folder, e.name), width=HALF, alt=f"Loss by time of {e.name}") for e in both]
    )


def _trained_row(trained: Trained) -> list[str]:
    facts = trained.facts
    loss, floor = facts["validation_loss"], facts.get("bayes_floor")
    return [
        trained.name,
        f"{trained.model.parameters():,}",
        f"{facts['step']:,}",
        f"{facts['step'] * facts['batch_size']:,}",
        f"{facts['samples_per_second']:,.0f}",
        f"{loss:.4f}",
        "" if floor is None else f"{floor:.4f}",
        "" if floor is None else f"{loss - floor:.4f}",
    ]


def _scores(page: Page, found: Findings) -> None:
    page.heading("4. What it has learned: which way the data lies")
    page.text(
        """
        Whoever knows the clean data on average also knows in which direction there is more data: from the noisy point
        towards that average. The arrow `(αD−x)/σ²`, with D the network's answer, is called the **score**, the slope
        of the logarithm of the density. The upper row is what the network has learned, the lower one what is exact
        for these points; *error* is the distance between the two on noisy data, relative to the exact arrows.

        With much noise (right) all arrows point to the middle: from there, the spiral is one blob. With less, they
        find the arms. With very little (left), the exact arrows lead back to *single training points*; a network that
        copied them could only repeat its data, and being smoother than that is what lets it make new points. In
        corners where noisy data never comes the network was never asked, and its arrows mean nothing.
        """
    )
    picture = score_field(found.spiral.model, data=found.spiral.data)
    page.picture(picture, "Learned and exact score.", "Arrows that point towards a spiral, in two rows", 860)


def _reverse(page: Page, found: Findings) -> None:
    page.heading("5. From noise to data")
    page.text(
        """
        To make new data, start from pure noise and follow the arrows: ask the network for the clean data, go a small
        part of the way there, and ask again. On the left is x on its way, on the right what the network thinks it
        will become. Watch the right side: at first it shows the average of everything, then it makes up its mind.
        """
    )
    alt = "Animation: noise on the left turns into data, the estimate beside it becomes sharp"
    page.columns(
        [
            Picture(found.animations["spiral"], "Points find the spiral; the data is drawn in grey.", alt, HALF),
            Picture(found.animations["digits"], "Digits, two of each, come out of grey noise.", alt, HALF),
        ]
    )


def _steps(page: Page, found: Findings) -> None:
    counts = [row.steps for row in found.steps["spiral"] if row.steps]
    page.heading(f"6. How many steps? {counts[-2]} against {counts[-1]}")
    page.text(
        f"""
        With this sampler, a step costs one call of the network, so fewer steps are faster. With a single one we get
        the network's first guess, the average. Below, {counts[-2]} and {counts[-1]} steps start from the same noise;
        whether the picture is worth {counts[-1] // counts[-2]} times the work, the numbers say.

        Two distances compare the samples with the data, and are 0 only where the two are distributed alike: the
        **energy distance**, and the **sliced Wasserstein distance**, which is how far samples must be moved, averaged
        over random directions. Any limited number of samples differs a little from the data. The first row therefore
        gives what as many samples *drawn from the data itself* reach on average; to be closer than that is luck.
        """
    )
    for trained in (found.spiral, found.digits):
        rows = found.steps[trained.name]
        shown = [_samples_picture(trained, row) for row in rows]
        picture = strip(shown, [_named(row) for row in rows])
        words = f"{trained.name}: the data, then the same noise in {', '.join(map(str, counts[:-1]))} and {counts[-1]} steps."
        page.picture(picture, words, width=WIDE)
        sampler = trained.model.sampling.sampler.registered_name
        page.table(
            ["steps", "network calls", "seconds", "energy distance", "sliced Wasserstein"],
            [_steps_row(row) for row in rows],
            f"{trained.name}: {len(rows[0].samples):,} samples with the sampler `{sampler}`, all in one batch"
            + (
                ", the labels in turn, without guidance; pixels go from −1 to 1."
                if trained.data.labels is not None
                else "."
            ),
        )


def _named(row: StepsRow) -> str:
    return "data" if not row.steps else f"{row.steps} step{'s' if row.steps > 1 else ''}"


def _steps_row(row: StepsRow) -> list[str]:
    distances = [f"{row.energy:.4f}", f"{row.sliced:.4f}"]
    return ["data, drawn anew", "", "", *distances] if not row.steps else [
        str(row.steps), str(row.calls), f"{row.seconds:.2f}", *distances
    ]  # fmt: skip


def _samples_picture(trained: Trained, row: StepsRow) -> Image.Image:
    if trained.data.spec.kind == "image":
        return image_grid(row.samples[:20], 5, 5)
    return scatter(row.samples[:1000], 230, limits_of(trained.data.spec, trained.data.x), radius=1.2)


def _guidance(page: Page, found: Findings) -> None:
    rows = found.guidance
    page.heading("7. Asking for something: guidance")
    page.text(
        """
        The digit model was also told which digit it sees, and now and then it was not, so it can answer with and
        without a label. **Guidance** uses both: it takes the answer without the label and goes towards the answer
        with it, g times as far. g = 0 ignores the label, g = 1 is the plain answer with it, and g > 1 exaggerates
        what the label changes.

        Exaggeration has a price. The table measures both sides of it. **Recognised** is the share of samples that the
        three most similar real digits take for the digit that was asked for, with its 95 % interval. **Diversity** is
        how far samples of one label lie from each other, relative to real digits: 1 is as diverse as the data, 0 all
        the same. At g = 0 it is that of all digits mixed, whatever was asked for.
        """
    )
    page.columns(
        [
            Picture(
                image_grid(row.samples[:40], 10, 5, gap=3),
                f"g = {row.scale:g}: recognised {row.adherence.value:.1%}, diversity {row.diversity:.2f}",
                f"Digits 0 to 9 in columns, at guidance {row.scale:g}",
                HALF,
            )
            for row in rows
        ]
    )
    page.table(
        ["guidance g", "recognised", "95 % interval", "diversity"], [_guidance_row(row) for row in rows], _judged(found)
    )


def _guidance_row(row: GuidanceRow) -> list[str]:
    a = row.adherence
    return [f"{row.scale:g}", f"{a.value:.1%}", f"{a.low:.1%} to {a.high:.1%}", f"{row.diversity:.2f}"]


def _judged(found: Findings) -> str:
    n = found.guidance[0].adherence.trials
    chance = f"{1 / found.digits.data.spec.num_classes:.0%}"
    judge = ""
    if found.classifier is not None:
        c = found.classifier
        judge = f" The judge itself is right on {c.value:.1%} of {c.trials} real digits that it was not told."
    return f"{n} samples a row, the digits asked for in turn, so pure chance would be recognised in {chance}.{judge}"


def _labels(page: Page, found: Findings) -> None:
    assert found.by_label is not None
    names = found.digits.data.spec.class_names
    page.heading("8. Ten of each")
    made, real = found.nearest
    page.text(
        f"""
        Each row asks for one digit, at guidance {GOOD_SCALE:g}. Are they copies? The median distance of these images
        to the nearest image of the data is {made:.1f} grey levels of 255 (root mean square over the pixels). Between
        an image of the data and its nearest neighbour there it is {real:.1f}. A copy would be at 0.
        """
    )
    page.picture(labelled_rows(found.by_label, names), "", "Ten rows of generated digits, from 0 to 9", 560)


def _again(page: Page, found: Findings, out: Path) -> None:
    spiral, digits = found.spiral.folder, found.digits.folder
    page.heading("9. Make it yourself")
    page.text(
        f"""
        Two trained models stand in `{out / "runs"}`. Everything on this page can be made with these commands, and the
        same command always makes the same picture. Sampling and measuring for this page took {found.seconds:.0f}
        seconds.
        """
    )
    page.code(
        f"unnoise train spiral --out {spiral}\n"
        f"unnoise train digits --out {digits}\n"
        f"unnoise draw schedules spiral -o schedules.png\n"
        f"unnoise draw loss {digits} -o loss.png\n"
        f"unnoise draw score {spiral} --data spiral -o score.png\n"
        f"unnoise draw reverse {spiral} -o spiral.gif\n"
        f"unnoise sample {digits} -n 100 --label all --guidance {GOOD_SCALE:g} -o digits.png\n"
        f"unnoise demo --out {out}"
    )
    page.text("Or from Python:")
    page.code(
        "import unnoise\n\n"
        f'model = unnoise.train("digits", out="{digits}")\n'
        f'model = unnoise.load("{digits}")\n'
        f"threes = model.sample(16, label=3, guidance={GOOD_SCALE:g}, seed=0)\n"
        'threes.save("threes.png")'
    )
