"""The shipped recipes for points: as good as the exact denoiser, nearly, after seconds."""

import pytest
import torch

from unnoise.data.base import datasets
from unnoise.denoisers.oracle import DatasetOracle
from unnoise.evaluation.distances import energy_distance
from unnoise.randomness import NoiseSource
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.samplers.base import sample
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler
from unnoise.samplers.grids import uniform


@pytest.fixture(scope="module")
def spiral(tmp_path_factory):
    run = Run(load_recipe("spiral", ["training.sample_every=0"]), tmp_path_factory.mktemp("spiral") / "run")
    for _ in run.events():
        pass
    return run


def test_samples_of_the_spiral_lie_on_it(spiral):
    drawn = spiral.model().sample(2000, steps=20).tensor
    assert float(energy_distance(drawn, spiral.train_data.x)) <= 0.003


def test_samples_of_the_spiral_are_as_near_to_fresh_data_as_those_of_the_exact_denoiser(spiral):
    fresh = datasets.build({"name": "spiral", "num_points": 2000, "seed": 7}).load().x
    drawn = spiral.model().sample(2000, steps=20).tensor
    assert float(energy_distance(drawn, fresh)) <= 0.003


def test_the_exact_denoiser_is_the_better_one_and_the_measure_tells_bad_samples(spiral):
    data, codec, schedule = spiral.train_data.x, spiral.blueprint.codec, spiral.blueprint.process
    oracle = DatasetOracle(codec.encode(data), schedule)
    noise = NoiseSource(0, range(2000)).start((2,))
    x = float(schedule.sigma(torch.ones((), dtype=torch.float64))) * noise
    exact = codec.decode(sample(DPMSolverPPSampler(), oracle, x, uniform(20)))
    assert float(energy_distance(exact, data)) <= 0.0015
    blurred = data[torch.arange(2000) % 300] + 0.3 * noise
    assert float(energy_distance(blurred, data)) > 0.003


def test_the_moons_go_where_their_label_says(tmp_path):
    run = Run(load_recipe("two-moons-labels", ["training.sample_every=0", "training.steps=800"]), tmp_path / "run")
    for _ in run.events():
        pass
    model, data = run.model(), run.train_data
    for label in (0, 1):
        drawn = model.sample(500, label=label, steps=20).tensor
        own, other = data.x[data.labels == label], data.x[data.labels != label]
        assert float(energy_distance(drawn, own)) < 0.02
        assert float(energy_distance(drawn, other)) > 0.3
