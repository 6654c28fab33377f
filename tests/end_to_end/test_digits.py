"""The main job, whole: the shipped recipe learns the real digits, and what it draws is what was asked for."""

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from unnoise.data.base import datasets
from unnoise.evaluation.distances import sliced_wasserstein
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.loop import Validated


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = Run(load_recipe("digits", ["training.sample_every=0"]), tmp_path_factory.mktemp("digits") / "run")
    validated = [event for event in run.events() if isinstance(event, Validated)]
    return run.model(), validated


@pytest.fixture(scope="module")
def data():
    return datasets.build("digits").load()


def test_a_classifier_of_the_real_digits_agrees_with_the_label_asked_for(trained, data):
    model, _ = trained
    pixels, labels = data.x.flatten(1).numpy() / 255, data.labels.numpy()
    judge = SVC(C=10, gamma=0.02).fit(pixels[::2], labels[::2])
    assert judge.score(pixels[1::2], labels[1::2]) > 0.97, "the judge itself must know digits"
    asked = [i % 10 for i in range(500)]
    drawn = model.sample(500, label=asked, guidance=2.0, steps=20, seed=1)
    agreed = (judge.predict(drawn.tensor.flatten(1).numpy() / 255) == np.array(asked)).mean()
    assert agreed >= 0.97


def test_unconditional_samples_lie_as_near_to_the_data_as_two_halves_of_it_nearly(trained, data):
    model, _ = trained
    x = data.x.double() / 255
    halves = []
    for seed in range(5):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        halves.append(float(sliced_wasserstein(x[order[: len(x) // 2]], x[order[len(x) // 2 :]])))
    drawn = model.sample(1000, guidance=1.0, steps=20, seed=2).tensor.double() / 255
    assert float(sliced_wasserstein(drawn, x)) <= 1.6 * float(np.mean(halves))


def test_the_loss_falls_towards_the_bayes_floor_and_stays_above_it(trained):
    _, validated = trained
    losses = [event.loss.loss for event in validated]
    floor = validated[-1].floor.loss
    assert all(loss > floor for loss in losses)
    assert losses[-1] < 0.35 * losses[0]
    assert 0.05 < floor < 0.2
    by_time = np.array(validated[-1].loss.by_time) - np.array(validated[-1].floor.by_time)
    assert (by_time > -0.02).all()


def test_guidance_makes_digits_surer_and_less_diverse(trained, data):
    model, _ = trained
    spreads = []
    for guidance in (0.0, 1.0, 3.0, 8.0):
        drawn = model.sample(128, label=3, guidance=guidance, steps=20, seed=3).tensor.double().flatten(1)
        spreads.append(float(torch.pdist(drawn).mean()))
    assert spreads[0] > spreads[1] > spreads[2] > spreads[3]
