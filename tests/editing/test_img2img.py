"""Image to image: the strength is a time of the process, and what comes of it is what the closed form says."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.autoencoder import AutoencoderCodec
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.editing.img2img import LEVELS, grid_of
from unnoise.errors import BadOption
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.model import Model
from unnoise.nn.autoencoder import AutoencoderConfig
from unnoise.nn.base import networks
from unnoise.process.base import scales, schedules
from unnoise.randomness import NoiseSource
from unnoise.samplers.base import samplers
from unnoise.samplers.grids import GRIDS, make_grid
from unnoise.samples import read_recipe
from unnoise.sampling import SamplingSettings, previews

from ..conftest import make_model

PROCESSES = ["linear", "cosine", "flow", "variance_exploding"]


@pytest.fixture(scope="module")
def model():
    return make_model("image")


@pytest.fixture(scope="module")
def points():
    return make_model("points")


@pytest.fixture(scope="module")
def latents():
    """A model of the latents of an autoencoder, both untrained."""
    config = AutoencoderConfig(width=4, multipliers=(1, 2), blocks=1, latent_channels=2)
    codec = AutoencoderCodec.untrained((3, 8, 8), config, IdentityCodec.pixels())
    network = networks.build({"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1})
    blueprint = Blueprint(Spec("image", (3, 8, 8)), codec, schedules.build("flow"), "velocity", 1.0, False, network)
    return Model(blueprint, blueprint.build(0), SamplingSettings(steps=3))


def pictures(n, shape=(1, 6, 6)):
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def calls_of(model):
    """A list that grows by one with every call of the model's network, and what takes the watch off again."""
    calls = []
    hook = model.denoiser.network.register_forward_hook(lambda *_: calls.append(1))
    return calls, hook.remove


# The ends


def test_at_strength_0_the_picture_comes_back_as_it_is_and_no_network_is_asked(model, points, latents):
    for each, given in ((model, pictures(3)), (latents, pictures(3, (3, 8, 8))), (points, points.sample(3).tensor)):
        calls, stop = calls_of(each)
        made = each.sample(3, image=given, strength=0, keep_frames=True)
        assert torch.equal(made.tensor, given)
        assert len(made.frames) == 1
        assert torch.equal(each.replay(made.recipe).tensor, given)
        assert not calls
        stop()


def test_at_strength_1_the_picture_counts_for_what_is_left_of_data_there():
    for process, alpha in (("flow", 0.0), ("linear", scales(schedules.build("linear"), 1.0)[0])):
        model = make_model("image", process=process)
        bare, edited = (
            list(model.previews(2, steps=3, seed=4, **told)) for told in ({}, {"image": pictures(2), "strength": 1})
        )
        given = model.blueprint.codec.encode(pictures(2))
        torch.testing.assert_close(edited[0].z, bare[0].z + alpha * given, rtol=0, atol=1e-6)
        if alpha == 0:
            assert torch.equal(edited[-1].z, bare[-1].z)
        else:
            assert alpha > 0.001
            assert not torch.equal(edited[0].z, bare[0].z)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("strength", [1e-5, 0.05, 0.6, 1.0])
def test_it_begins_at_the_noise_level_of_the_strength_with_the_noise_of_the_sample(process, strength):
    model = make_model("points", process=process)
    given = model.sample(4).tensor
    begun, *_, end = model.previews(3, image=given[1:], strength=strength, steps=5, seed=7, first=1)
    assert begun.t == strength
    at = torch.tensor(strength, dtype=torch.float64)
    alpha, sigma = float(model.denoiser.schedule.alpha(at)), float(model.denoiser.schedule.sigma(at))
    eps = NoiseSource(7, range(1, 4)).start((2,), torch.float64)
    x_0 = model.blueprint.codec.encode(given[1:].double())
    torch.testing.assert_close(begun.z.double(), alpha * x_0 + sigma * eps, rtol=1e-6, atol=1e-6)
    assert torch.isfinite(end.z).all()
    if strength == 1e-5 and process != "variance_exploding":  # there some noise is in the data from the start
        torch.testing.assert_close(end.x, given[1:], rtol=0, atol=0.05)


# The closed form: data is one Gaussian, so that a run is a linear map of what it begins from

MEAN, SPREAD, GIVEN = (1.0, -2.0), 0.5, (0.3, 0.4)


def edits(process, sampler, strength, n, steps, grid="log_snr"):
    schedule = schedules.build(process)
    f64 = lambda values: torch.tensor(values, dtype=torch.float64)
    oracle = GaussianMixtureOracle(f64([MEAN]), f64([SPREAD]), f64([1.0]), schedule)
    times = grid_of({"grid": grid, "steps": steps, "strength": strength}, schedule, 1.0)
    noise = NoiseSource(3, range(n))
    x_0 = f64(GIVEN).expand(n, 2)
    run = previews(oracle, ClassifierFreeGuidance(), sampler, times, noise, (2,), lambda z: z, x_0=x_0)
    begun, *_, end = run
    return scales(schedule, strength), begun.z.double(), end.z.double()


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("strength", [0.15, 0.5, 0.9])
def test_deterministic_samplers_end_where_the_exact_flow_does(process, strength):
    (alpha, sigma), begun, end = edits(process, samplers.build("heun"), strength, 50, 250)
    mean = torch.tensor(MEAN, dtype=torch.float64)
    shrinks = SPREAD / math.hypot(alpha * SPREAD, sigma)
    torch.testing.assert_close(end, mean + shrinks * (begun - alpha * mean), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("process", "strength"), [("linear", 0.3), ("flow", 0.6), ("cosine", 0.8)])
def test_stochastic_samplers_end_in_the_posterior_of_what_they_begin_from(process, strength):
    n = 4000
    (alpha, sigma), _, end = edits(process, samplers.build("ddpm"), strength, n, 300)
    variance = (alpha * SPREAD) ** 2 + sigma**2
    share = alpha * SPREAD**2 / variance  # of how far the picture lies from the mean of the data
    mean, given = (torch.tensor(each, dtype=torch.float64) for each in (MEAN, GIVEN))
    expected = mean + share * alpha * (given - mean)
    spread = math.sqrt((share * sigma) ** 2 + (SPREAD * sigma) ** 2 / variance)
    torch.testing.assert_close(end.mean(0), expected, rtol=0, atol=4 * spread / math.sqrt(n) + 0.005)
    torch.testing.assert_close(
        end.std(0), torch.full((2,), spread, dtype=torch.float64), rtol=4 / math.sqrt(2 * n) + 0.015, atol=0
    )


# Times and calls


@pytest.mark.parametrize("process", ["linear", "flow"])
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("strength", [0.03, 0.3, 0.6, 1.0])
def test_every_grid_begins_at_the_strength_and_never_stands_still(process, name, strength):
    schedule = schedules.build(process)
    if name in LEVELS and not schedule.num_steps:
        with pytest.raises(BadOption, match="has no levels"):
            grid_of({"grid": name, "steps": 3, "strength": strength}, schedule, 0.7)
        return
    for steps in (1, 2, 7, 30):
        grid = grid_of({"grid": name, "steps": steps, "strength": strength}, schedule, 0.7)
        assert len(grid) == steps + 1
        assert (grid.diff() < 0).all()
        assert grid[-1] == 0
        if name in LEVELS:
            levels = (grid * schedule.num_steps).tolist()
            assert levels == pytest.approx([round(level) for level in levels], abs=1e-9)
            assert round(levels[0]) <= round(strength * schedule.num_steps)
        if name not in ("leading", "linspace"):
            assert float(grid[0]) == pytest.approx(strength, abs=0 if name != "trailing" else 1e-12)
        if strength == 1:
            assert torch.equal(grid, make_grid(name, steps, schedule, sigma_data=0.7))


def test_more_steps_than_there_are_levels_below_the_strength_are_refused():
    with pytest.raises(BadOption, match=r"30 levels of the chain lie at or below strength 0\.03, got 31 steps"):
        grid_of({"grid": "trailing", "steps": 31, "strength": 0.03}, schedules.build("linear"), 1.0)


@pytest.mark.parametrize("name", sorted(samplers))
def test_as_many_calls_are_made_as_are_declared_and_as_many_steps_as_asked_for(points, name):
    calls, stop = calls_of(points)
    request = points.settle(2, image=[0.5, -1.0], strength=0.4, sampler=name, steps=6)
    last = [each for each in points.previews(2, image=[0.5, -1.0], strength=0.4, sampler=name, steps=6)][-1]
    stop()
    declared = samplers.build(name).network_calls(grid_of(request, points.denoiser.schedule, 0.7))
    assert declared in (None, len(calls))
    assert (last.step, last.t) == (6, 0.0)
    assert torch.isfinite(last.x).all()


# Samples of a seed


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm"])
def test_sample_k_is_sample_k_alone_and_in_any_batch(points, latents, sampler):
    given = points.sample(7).tensor
    told = {
        "label": "b",
        "guidance": 2.0,
        "strength": 0.5,
        "sampler": sampler,
        "seed": 5,
        "blend": {"seed": 9, "share": 0.3},
    }
    whole = points.sample(7, image=given, **told).tensor
    pairs = points.sample(7, image=given, batch_size=2, **told).tensor
    alone = points.sample(1, image=given[4:5], first=4, **told).tensor
    torch.testing.assert_close(pairs, whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone[0], whole[4], rtol=1e-4, atol=1e-4)
    seen = pictures(3, (3, 8, 8))
    many = latents.sample(3, image=seen, strength=0.5, sampler=sampler).tensor.int()
    one = latents.sample(1, image=seen[2], first=2, strength=0.5, sampler=sampler).tensor.int()
    assert (many[2] - one[0]).abs().max() <= 1


def test_what_is_not_said_is_a_strength_of_0_6_and_other_strengths_are_other_samples(points):
    given = points.sample(2).tensor
    told = [points.sample(2, image=given, seed=3, **more) for more in ({}, {"strength": 0.6}, {"strength": 0.3})]
    assert told[0].recipe["strength"] == 0.6
    assert torch.equal(told[0].tensor, told[1].tensor)
    far = [float((each.tensor - given).norm()) for each in told]
    assert 0 < far[2] < far[0]


def test_given_times_say_the_strength_themselves(points):
    made = points.sample(2, image=[0.5, -1.0], grid=[0.4, 0.1])
    assert (made.recipe["strength"], made.recipe["steps"]) == (0.4, 2)
    assert torch.equal(points.replay(made.recipe).tensor, made.tensor)
    with pytest.raises(BadOption, match=r"the times of the grid begin at 0\.4"):
        points.sample(1, image=[0.5, -1.0], grid=[0.4, 0.1], strength=0.5)


# Files


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.npz", "x.gif"])
def test_a_file_alone_is_enough_to_make_it_again(model, tmp_path, name):
    given = pictures(2)
    made = model.sample(2, image=given, strength=0.4, label="a", guidance=2.0, seed=3, keep_frames=name == "x.gif")
    (file,) = made.save(tmp_path / name)
    recipe = read_recipe(file)
    assert recipe == dict(made.recipe)
    (again,) = model.replay(recipe).save(tmp_path / f"again{file.suffix}")
    assert again.read_bytes() == file.read_bytes()


def test_each_file_of_a_folder_is_made_again_from_the_pictures_of_its_batch(model, tmp_path):
    made = model.sample(5, image=pictures(5), strength=0.4, batch_size=2)
    files = made.save(tmp_path / "all")
    assert len(read_recipe(files[3])["image"]) == 2
    (again,) = model.replay(read_recipe(files[3])).save(tmp_path / "again.png")
    assert again.read_bytes() == files[3].read_bytes()


def test_a_recipe_without_its_strength_is_damaged(model):
    recipe = dict(model.sample(1, image=pictures(1), strength=0.4).recipe)
    del recipe["strength"]
    with pytest.raises(Exception, match="says nothing of strength"):
        model.replay(recipe)


def test_latents_are_edited_in_their_own_space(latents):
    given = pictures(1, (3, 8, 8))
    begun = next(iter(latents.previews(1, image=given, strength=0.25, seed=2)))
    eps = NoiseSource(2, [0]).start((2, 4, 4))
    torch.testing.assert_close(begun.z, 0.75 * latents.blueprint.codec.encode(given) + 0.25 * eps)


def test_labels_and_guidance_steer_edits_too(model):
    told = {"image": pictures(1), "strength": 0.7, "seed": 1}
    made = [model.sample(1, label=label, guidance=3.0, **told).tensor for label in ("a", "b", None)]
    assert not torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


# What is refused


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"strength": 0.5}, "strength: says how much of a picture"),
        ({"image": 0, "strength": 2}, "strength: must be at most 1"),
        ({"image": 0, "strength": -0.1}, "strength: must be at least 0"),
        ({"image": 0, "strength": float("nan")}, "strength: must be at least 0"),
        ({"image": 0, "strength": "much"}, "strength: "),
        ({"image": 0, "grid": {"name": "uniform", "start": 0.4}}, "grid.start: "),
        ({"image": 0, "sampler": "tuned"}, "sampler tuned: it has times for the whole way"),
        ({"image": 0, "n": 3}, None),
        ({"image": [0, 0], "n": 3}, "image: expected one, or one for each of 3 samples, got 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(model, told, message):
    one = pictures(1)[0]
    if "image" in told:
        told = {**told, "image": [one, one] if isinstance(told["image"], list) else one}
    if message is None:  # one picture is for all samples
        assert len(model.sample(**told)) == 3
        return
    with pytest.raises(BadOption, match=message) as caught:
        model.sample(**told)
    assert "\n" not in str(caught.value)


def test_a_model_of_arrays_begins_from_arrays(points):
    blueprint = replace(points.blueprint, spec=Spec("array", (2,), ("a", "b")))
    model = Model(blueprint, points.denoiser, points.sampling)
    given = np.array([0.25, -0.5])
    assert model.sample(1, image=given, strength=0).tensor[0].tolist() == given.tolist()
    for wrong in (np.zeros(3), np.zeros((1, 2, 2)), np.array(["a", "b"]), np.array([np.inf, 0.0])):
        with pytest.raises(BadOption, match="image: "):
            model.sample(1, image=wrong)
