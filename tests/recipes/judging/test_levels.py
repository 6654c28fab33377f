"""The loss of a denoiser at each noise level, beside the floor, another model, or the best linear denoiser of the data."""

import json

import numpy as np
import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Dataset, Spec
from unnoise.denoisers.linear import LinearDenoiser
from unnoise.denoisers.x0 import X0Denoiser
from unnoise.errors import IncompatibleParts
from unnoise.model import Model
from unnoise.nn.base import networks
from unnoise.process.base import schedules
from unnoise.recipes.judging.levels import LINEAR, Levels, Reference, measure_levels
from unnoise.recipes.judging.real import RealData
from unnoise.recipes.judging.split import error_parts
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.sampling import SamplingSettings
from unnoise.training.loop import Validated
from unnoise.training.validation import Strata

from ...conftest import make_model

SPEC = Spec("points", (2,))
SPREAD = torch.tensor([1.5, 0.3])
FLOW = schedules.build("flow")


def normal_points(n, seed):
    """Points of a normal distribution of two variances."""
    x = SPREAD * torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return Dataset(x, SPEC)


REAL = RealData(normal_points(4000, 0), normal_points(4000, 0), normal_points(4096, 1))
EXACT = LinearDenoiser(torch.zeros(2), torch.eye(2), SPREAD.double() ** 2, 0.0, FLOW)


class Told(torch.nn.Module):
    """A network that says what the exact denoiser says, and more where it is made to err."""

    def __init__(self, at=0.0, error=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.at, self.error = at, error
        self.t = torch.linspace(0, 1, 4001, dtype=torch.float64)
        self.levels = FLOW.noise_level(self.t)

    def forward(self, x, noise_level, cond=None):
        order = self.levels.argsort()
        t = np.interp(noise_level.double().numpy(), self.levels[order].numpy(), self.t[order].numpy())
        t = torch.from_numpy(t)
        bare = X0Denoiser(None, FLOW, sigma_data=1.0)
        x_t = x.double() / bare.coefficients(t).in_[:, None]
        wrong = self.error * ((t - self.at).abs() < 1 / 32).double()[:, None]
        return (EXACT(x_t, t) + wrong).to(x.dtype)


def model(network=None, prediction="x0"):
    """A model of such points, by default one that knows what can be known."""
    chosen = networks.build({"name": "mlp", "width": 8})
    blueprint = Blueprint(SPEC, IdentityCodec((0.0, 0.0), (1.0, 1.0)), FLOW, prediction, 1.0, False, chosen)
    denoiser = blueprint.build(0)
    if prediction == "x0":
        denoiser.network = network or Told()
    return Model(blueprint, denoiser, SamplingSettings(), {}, "told")


def known(t):
    """The least squared error at some times, from the formula."""
    alpha, sigma = (each(torch.tensor(t, dtype=torch.float64))[:, None] for each in (FLOW.alpha, FLOW.sigma))
    variances = SPREAD.double() ** 2
    return (variances * sigma**2 / (alpha**2 * variances + sigma**2)).mean(1)


def test_on_normal_data_the_linear_denoiser_is_the_floor():
    levels = measure_levels(model(), REAL)
    assert (levels.floor, levels.seen, levels.reference.name) == (None, False, LINEAR)
    linear = torch.tensor(levels.reference.loss.by_time)
    torch.testing.assert_close(linear, known(levels.loss.t).float(), rtol=0.25, atol=0.002)
    assert float(linear.sum()) == pytest.approx(float(known(levels.loss.t).sum()), rel=0.05)
    # A model that knows all that can be known errs as much, at every level, on the same samples with the same noise.
    assert max(abs(each) for each in levels.excess) < 0.03
    assert levels.sentence == (
        f"At no noise level does it err more than {LINEAR}: hold it against another model (--reference)."
    )


def test_the_loss_is_in_the_units_of_what_the_model_predicts():
    velocity = measure_levels(model(prediction="velocity"), REAL).reference.loss
    t = torch.tensor(velocity.t, dtype=torch.float64)
    expected = known(velocity.t) / t**2  # velocity = eps - x_0, which is (x_t - x_0) / t
    torch.testing.assert_close(torch.tensor(velocity.by_time).double()[1:], expected[1:], rtol=0.25, atol=0.01)


def test_the_worst_level_is_where_it_errs_more_than_need_be_and_not_where_the_loss_is_highest():
    levels = measure_levels(model(Told(at=13 / 32, error=0.6)), REAL)
    highest = max(zip(levels.loss.by_time, levels.loss.t, strict=True))[1]
    assert highest > 0.9  # little is known of the data where there is most noise
    assert levels.worst == pytest.approx(13 / 32, abs=1e-3)
    i = levels.loss.t.index(levels.worst)
    assert max(levels.excess) == levels.excess[i] > 0.8
    assert levels.excess[i] == levels.loss.by_time[i] / levels.reference.loss.by_time[i] - 1
    assert levels.sentence == (
        f"It errs most at t = {levels.worst:.2f}, where its loss is {1 + levels.excess[i]:.2f} times that of {LINEAR}."
    )


def test_another_model_is_what_it_is_held_against_whatever_that_predicts():
    spoiled, good = model(Told(at=27 / 32, error=0.4)), model()
    beside = measure_levels(spoiled, REAL, good)
    assert (beside.reference.name, beside.floor, beside.notes) == ("told", None, ())
    assert beside.reference.loss.by_time == pytest.approx(measure_levels(good, REAL).loss.by_time, rel=1e-4)
    assert beside.worst == pytest.approx(27 / 32, abs=1 / 16)
    same = measure_levels(good, REAL, good)
    assert max(map(abs, same.excess)) < 1e-4
    assert same.sentence == "At no noise level does it err more than told."
    other = model(prediction="velocity")
    other.trained["data"] = "0123"
    crossed = measure_levels(good, REAL, other)
    assert crossed.notes == (
        "the reference learned other data, or another share of it: it may have seen what it is tried on",
    )
    # Its estimate of the clean data, by the loss of the model that it is beside.
    draws, losses = measure_levels(other, REAL).loss, crossed.reference.loss
    t = np.array(draws.t)
    assert losses.by_time[1:] == pytest.approx(np.array(draws.by_time)[1:] * t[1:] ** 2, rel=0.1)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            make_model("points"),
            r"makes samples of shape \(2,\) with the labels a, b and not .* without labels: give a model",
        ),
        (make_model("points", labels=()), "works on other latents, or on data scaled otherwise"),
        ("cosine", r"has the process CosineSchedule.* and not FlowSchedule.*: give a model of the same process"),
    ],
)
def test_a_reference_of_something_else_is_refused(other, said):
    if other == "cosine":
        other = model()
        other.denoiser.schedule = schedules.build("cosine")
    with pytest.raises(IncompatibleParts, match=said):
        measure_levels(model(), REAL, other)


def test_data_that_was_learned_has_a_floor_and_needs_nothing_else():
    seen = RealData(REAL.train, REAL.train, None)
    levels = measure_levels(model(), seen)
    assert levels.seen
    assert levels.reference is None
    assert levels.floor is not None
    assert levels.sentence == f"It errs most at t = {levels.worst:.2f}."
    assert measure_levels(model(), seen, model()).floor == levels.floor


def test_what_is_known_is_kept():
    loss, other = Strata(1.0, (1.0, 3.0), (0.2, 0.6)), Strata(1.0, (0.5, 4.0), (0.2, 0.6))
    levels = Levels(loss, None, False, Reference("runs/other", other))
    assert levels.excess == (1.0, -0.25)
    assert levels.plain() == {
        "t": [0.2, 0.6], "loss": [1.0, 3.0], "floor": None, "seen": False,
        "reference": {"name": "runs/other", "loss": [0.5, 4.0]}, "worst": 0.2,
    }  # fmt: skip
    nothing = Levels(loss, None, False, Reference("runs/other", Strata(0.0, (0.0, 0.0), (0.2, 0.6))))
    assert nothing.excess == (0.0, 0.0)


def test_a_reference_is_asked_for_by_its_folder_and_drawn(moons, tmp_path):
    found = error_parts(moons, reference=moons, n=60, steps=2, fine=4, out=tmp_path / "out")
    assert found.levels.reference.name == str(moons)
    assert max(map(abs, found.levels.excess)) < 1e-3
    assert f"At no noise level does it err more than {moons}." in (tmp_path / "out" / "index.html").read_text()


def test_a_model_that_learned_a_variance_is_held_against_the_floor_of_the_squared_error(tmp_path):
    asked = ["objective=hybrid", "objective.vlb_weight=10", "denoiser.learned_variance=true", "process=linear",
             "training.steps=2", "training.validation_size=16", "network.width=16", "tracking.trackers=[]"]  # fmt: skip
    run = Run(load_recipe("spiral", asked), tmp_path / "run")
    assert [event.floor for event in run.events() if isinstance(event, Validated)] == [None, None]
    data = run.train_data.part()
    levels = measure_levels(Model.load(tmp_path / "run" / "model"), RealData(data, data, None))
    assert levels.loss.loss > 0.9 * levels.floor.loss
    with_bound = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["validation_loss"]
    assert levels.loss.loss < 0.5 * with_bound
