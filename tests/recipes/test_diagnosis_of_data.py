"""Data that training would take, and nothing good would come of: each fault is seeded, and named with its number."""

import numpy as np
import pytest
import torch

from unnoise.data.base import Spec
from unnoise.data.inspect import inspect_data
from unnoise.errors import IncompatibleParts
from unnoise.recipes.diagnosis.base import checks
from unnoise.recipes.diagnosis.examine import examine_recipe
from unnoise.recipes.diagnosis.patients import DiffusionPatient
from unnoise.recipes.diagnosis.values import far_out
from unnoise.recipes.recipe import load_any_recipe, load_recipe
from unnoise.recipes.run import Run
from unnoise.recipes.works import work_of

UNET = {"name": "unet", "width": 8, "multipliers": [1, 2, 2], "blocks": 1, "attention": []}
MLP = {"name": "mlp", "width": 8, "depth": 1}
TRAINING = {
    "steps": 200,
    "batch_size": 32,
    "ema": 0.9,
    "validate_every": 100,
    "sample_every": 0,
    "checkpoint_every": 100,
}


def recipe(place, *options, network=MLP, labels=None, **data):
    """A recipe for an array, which is written to a file, or for a source of data by its options."""
    if "x" in data:
        path = place / "data.npz"
        np.savez(path, x=data["x"], **({} if labels is None else {"labels": labels}))
        data = {"name": "array", "path": str(path)}
    return load_recipe({"data": data, "network": network, "training": TRAINING}, options)


def found_in(place, *options, **data):
    return dict(examine_recipe(recipe(place, *options, **data), seconds=0).findings)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# Values far out


def test_one_sample_that_squeezes_all_others_is_named(tmp_path):
    x = normal(400, 2)
    assert "outlier" not in found_in(tmp_path, x=x)
    x[17, 1] = 1e6
    finding = found_in(tmp_path, x=x)["outlier"]
    assert finding.severity == "error"
    assert finding.seen.startswith("sample 17 has the value 1e+06: ")
    times = 1e6 / np.delete(np.abs(x[:, 1] - np.median(x[:, 1])), 17).max()
    assert finding.seen.endswith(f": {times:.2g} times further out than all others")
    left = np.delete(x[:, 1], 17).std() / x[:, 1].std()
    assert finding.cause.startswith(f"brought to one height with it, all others keep {left:.2g} of theirs: ")


def test_a_number_that_stands_for_what_is_missing_is_named_in_arrays_too(tmp_path):
    x = 0.3 * normal(300, 1, 16)
    x[20:40, 0, 3] = -9999
    finding = found_in(tmp_path, x=x)["outlier"]
    assert finding.severity == "error"
    assert finding.seen.startswith("sample 20 has the value -9999, and 19 more such as sample 21 are as strange: ")


def test_one_that_takes_little_from_the_others_is_a_warning(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, (9000, 1))
    x[5] = 90
    assert found_in(tmp_path, x=x)["outlier"].severity == "warning"


def test_one_of_many_channels_is_looked_at_beside_its_usual_values():
    x = torch.from_numpy(normal(200, 100) * np.geomspace(1e-3, 1e3, 100)).float()
    assert far_out(x) is None
    x[3, 1] = 50.0  # small beside most channels
    found = far_out(x)
    assert found.samples == (3,)
    assert found.value == 50.0


LEGITIMATE = {
    "student t": lambda rng, n: rng.standard_t(3, size=(n, 4)),
    "lognormal": lambda rng, n: np.exp(rng.standard_normal((n, 4))),
    "one-hot": lambda rng, n: np.concatenate([np.eye(20)[np.minimum(rng.geometric(0.3, n), 19)], normal(n, 2)], 1),
    "rare event": lambda rng, n: np.concatenate([rng.random((n, 1)) < 0.005, 1e-3 * normal(n, 2)], 1),
    "sound of all volumes": lambda rng, n: rng.standard_normal((n, 1, 64)) * 10 ** rng.uniform(-4, 0, (n, 1, 1)),
    "sound and silence": lambda rng, n: rng.standard_normal((n, 1, 64)) * np.where(rng.random((n, 1, 1)) < 0.5, 1e-5, 1),
    "moments in time": lambda rng, n: 1.7e9 + rng.uniform(0, 1e6, (n, 2)),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEGITIMATE)
@pytest.mark.parametrize("count", [60, 3000])
def test_heavy_tails_rare_events_and_silence_are_not_far_out(kind, count):
    for seed in range(10):
        x = LEGITIMATE[kind](np.random.default_rng(seed), count)
        assert far_out(torch.from_numpy(x.astype(np.float32))) is None


@pytest.mark.parametrize("name", ["digits", "moons", "swiss_roll", "checkerboard", "eight_gaussians", "shapes"])
def test_the_shipped_data_is_well(tmp_path, name):
    found = found_in(tmp_path, name=name, **({"num_points": 2000} if name not in ("digits", "shapes") else {}))
    assert not {"outlier", "tiny-spread", "grey", "channels-last", "labels-at-random"} & set(found)


# Values that all but never change


def test_a_channel_of_which_float32_keeps_a_few_steps_is_named(tmp_path):
    x = normal(300, 2).astype(np.float32)
    x[:, 1] = 0.5 + 1e-6 * normal(300, seed=1)
    finding = found_in(tmp_path, x=x)["tiny-spread"]
    assert finding.severity == "warning"
    std, step = x[:, 1].astype(np.float64).std(), 0.5 * np.finfo(np.float32).eps
    assert finding.seen == f"channel 1 changes by no more than {std:.2g} around 0.5 (standard deviation)"
    assert finding.cause.startswith(
        f"float32 has {std / step:.2g} steps in it there: what is learned is the rounding; "
    )


def test_a_channel_that_is_tiny_around_0_is_a_hint_and_a_small_unit_is_none(tmp_path):
    x = normal(300, 2)
    assert found_in(tmp_path, x=x * [1, 1e-6])["tiny-spread"].severity == "hint"
    assert "tiny-spread" not in found_in(tmp_path, x=x * [1, 1e-3])
    assert "tiny-spread" not in found_in(tmp_path, x=x + 1000)


# Labels


def blobs(count, seed=0):
    """Points around four places, and which each is from."""
    labels = np.random.default_rng(seed).integers(0, 4, count)
    return 4 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])[labels] + normal(count, 2, seed=seed), labels


def test_labels_that_were_mixed_up_are_found(tmp_path):
    x, labels = blobs(800)
    assert "labels-at-random" not in found_in(tmp_path, x=x, labels=labels)
    finding = found_in(tmp_path, x=x, labels=np.random.default_rng(1).permutation(labels))["labels-at-random"]
    assert finding.severity == "warning"
    assert finding.seen.endswith("of samples have the label of their nearest neighbour, as by chance (25%)")
    assert finding.cause.startswith("the labels were mixed up, or are those of other samples: ")
    assert "labels-shifted" in found_in(tmp_path, x=x, labels=np.roll(labels, 1))  # which is another fault
    assert "labels-at-random" not in found_in(tmp_path, x=x, labels=np.roll(labels, 1))


def test_where_neighbours_are_no_nearer_than_others_labels_are_not_called_mixed_up(tmp_path):
    labels = np.random.default_rng(1).integers(0, 2, 800)
    assert "labels-at-random" not in found_in(tmp_path, x=normal(800, 200), labels=labels)
    half = found_in(tmp_path, x=normal(800, 8), labels=labels)["labels-at-random"]
    assert half.cause.startswith("it may be that the labels were mixed up, ")


def test_labels_that_are_few_of_a_kind_or_of_few_samples_are_not_called_mixed_up(tmp_path):
    x, _ = blobs(800)
    assert "labels-at-random" not in found_in(tmp_path, x=x, labels=np.arange(800) // 4)
    mixed = np.random.default_rng(1).integers(0, 2, 60)
    assert "labels-at-random" not in found_in(tmp_path, x=x[:60], labels=mixed)


# Pictures and their channels


def test_grey_pictures_in_colour_are_a_hint(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (100, 1, 8, 8), dtype=np.uint8)
    finding = found_in(tmp_path, x=grey.repeat(3, 1), network=UNET)["grey"]
    assert (finding.severity, finding.seen) == ("hint", "the three channels of all 100 pictures are equal")
    assert finding.fix == ""  # an array has no such option
    assert "grey" not in found_in(tmp_path, x=grey, network=UNET)
    coloured = grey.repeat(3, 1)
    coloured[7, 1, 2, 2] += 1
    assert "grey" not in found_in(tmp_path, x=coloured, network=UNET)


def test_the_fix_of_grey_pictures_that_were_asked_for_in_colour_heals_it(tmp_path):
    from PIL import Image

    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    folder = dict(name="folder", path=str(tmp_path), size=8, cache=False, network=UNET)
    finding = found_in(tmp_path, "data.channels=3", **folder)["grey"]
    assert finding.fix == "data.channels=1"
    assert "grey" not in found_in(tmp_path, "data.channels=3", finding.fix, **folder)


LAST = "samples of shape (8, 8, 3) seem to have their channels last, and are read with channels first"
MOVE = "save numpy.moveaxis(x, -1, 1)"


def test_channels_that_come_last_are_named_by_doctor_and_training_alike(tmp_path):
    x = normal(100, 8, 8, 3)
    checked = recipe(tmp_path, x=x, network=UNET)
    finding = dict(examine_recipe(checked, seconds=0).findings)["channels-last"]
    assert (finding.severity, finding.seen) == ("error", LAST)
    assert finding.cause.endswith(f": {MOVE}")
    told = f"{LAST}: {MOVE} (data of size 8 x 3 is smaller than 4, the stride of 3 levels)"
    with pytest.raises(IncompatibleParts) as refused:
        Run(checked, tmp_path / "run")
    assert str(refused.value) == told
    assert "channels-last" not in found_in(tmp_path, x=np.moveaxis(x, -1, 1), network=UNET)


def test_a_network_that_takes_any_shape_is_trained_with_a_note(tmp_path):
    checked = recipe(tmp_path, x=normal(100, 8, 8, 3))
    assert dict(examine_recipe(checked, seconds=0).findings)["channels-last"].severity == "warning"
    assert f"{LAST}: {MOVE}" in Run(checked, tmp_path / "run").notes
    assert f"S{LAST[1:]}: {MOVE}." in inspect_data(checked.data.load()).warnings


def test_an_autoencoder_says_it_too(tmp_path):
    np.save(tmp_path / "x.npy", normal(100, 8, 8, 3))
    sizes = {"width": 8, "multipliers": [1, 2, 2], "blocks": 1, "latent_channels": 2, "attention": False}
    data = {"name": "array", "path": str(tmp_path / "x.npy")}
    with pytest.raises(IncompatibleParts, match=r"seem to have their channels last, .*: save numpy\.moveaxis"):
        work_of(load_any_recipe({"kind": "autoencoder", "data": data, "autoencoder": sizes}))


@pytest.mark.parametrize("shape", [(3, 8, 8), (4, 8, 3), (8, 8, 2), (8, 8), (3, 8, 8, 3), (64, 64)])
def test_other_shapes_have_their_channels_first(shape):
    assert Spec("array", shape).channels_last == ""


# Settings


@pytest.mark.parametrize(
    ("option", "fine", "check", "fix"),
    [
        ("sampling.guidance=40", "sampling.guidance=12", "guidance", "sampling.guidance=4"),
        ("objective.noise.offset=3", "objective.noise.offset=0.3", "noise-offset", "objective.noise.offset=0.1"),
    ],
)
def test_what_nobody_works_with_is_a_hint(option, fine, check, fix):
    base = load_recipe("digits", ["network.width=8", "objective.condition_dropout=0.1", option])
    (finding,) = checks[check]().look(DiffusionPatient(base))
    assert (finding.severity, finding.fix) == ("hint", fix)
    healthy = load_recipe("digits", ["network.width=8", "objective.condition_dropout=0.1", fine])
    assert list(checks[check]().look(DiffusionPatient(healthy))) == []
