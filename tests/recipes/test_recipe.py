"""Recipes as values."""

import pytest

from unnoise.errors import BadOption
from unnoise.objectives.mse import MSEObjective
from unnoise.recipes.recipe import load_recipe


def test_overrides_leave_the_values_they_were_given_as_they_were():
    values = {"data": "spiral", "network": {"name": "mlp", "width": 8}, "training": {"steps": 5}}
    before = {key: dict(each) if isinstance(each, dict) else each for key, each in values.items()}
    assert load_recipe(values, training__lr=0.5, network__width=16).training.lr == 0.5
    assert values == before


def test_another_prediction_keeps_the_options_that_all_predictions_have():
    learned = ["objective=hybrid", "denoiser.learned_variance=true", "process=linear", "denoiser=velocity"]
    recipe = load_recipe("spiral", learned)
    assert recipe.denoiser.name == "velocity"
    assert recipe.denoiser.learned_variance


def test_recipes_from_before_there_were_several_averages_optimizers_and_laws_mean_what_they_meant():
    old = {
        "lr": 2.0, "warmup": 100, "decay": "linear", "betas": [0.9, 0.99], "weight_decay": 0.0, "ema": 0.998,
        "steps": 1100, "batch_size": 64, "clip": 1.0,
    }  # fmt: skip
    recipe = load_recipe({"data": "spiral", "network": "mlp", "training": old})
    assert recipe.training.learning_rate(49) == 1.0
    assert recipe.training.learning_rate(600) == 1.0
    assert [average.name for average in recipe.training.ema] == ["exponential-0.998"]
    assert recipe.training.optimizer.registered_name == "adamw"
    described = recipe.describe()["training"]
    assert {key: described[key] for key in old} == {**old, "decay": {"name": "linear", "floor": 0.0}}
    assert load_recipe(recipe.describe()) == recipe


def test_averages_optimizer_and_law_are_chosen_on_the_command_line():
    texts = [
        "training.ema=[0.999, power-0.1]", "training.model_average=power-0.1", "training.snapshots.every=50",
        "training.optimizer=muon", "training.optimizer.momentum=0.9", "training.decay=inverse_sqrt",
        "training.decay.reference=1e6", "training.counted_in=images", "training.warmup=12800",
    ]  # fmt: skip
    training = load_recipe("digits", texts).training
    assert list(training.averages) == ["power-0.1", "exponential-0.999", "power-0.05"]
    assert training.optimizer.momentum == 0.9
    assert training.learning_rate(49) == training.lr / 2
    assert training.learning_rate(100) == training.lr
    assert training.learning_rate(10**8 // 128) == pytest.approx(training.lr / 10, rel=1e-5)


def test_a_model_average_that_the_run_does_not_keep_is_refused():
    with pytest.raises(BadOption, match=r"training\.model_average: no average of this run is called 'power-0.2'"):
        load_recipe("digits", ["training.ema=[0.999, power-0.1]", "training.model_average=power-0.2"])


def test_options_of_a_part_that_is_not_named_are_those_of_the_default():
    recipe = load_recipe({"data": {"name": "moons"}, "network": {"name": "mlp"}}, ["objective.noise.pairing=8"])
    assert recipe.objective == MSEObjective(noise={"pairing": 8})
    with pytest.raises(BadOption, match=r"objective\.vlb_weight: there is no such option"):
        load_recipe({"data": {"name": "moons"}, "network": {"name": "mlp"}}, ["objective.vlb_weight=1"])
