"""Recipes as values."""

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
