"""What every prediction must do on every schedule, over both registries."""

import pytest
import torch
from torch import nn

from unnoise.denoisers.base import denoisers
from unnoise.denoisers.learned_variance import LearnedVarianceDenoiser
from unnoise.errors import IncompatibleParts, ShapeError
from unnoise.process.linear import LinearSchedule

SIGMA_DATA = 0.7


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


class Says(nn.Module):
    """A network that gives a fixed answer and keeps what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, noise_level, cond=None):
        self.x, self.noise_level, self.cond = x, noise_level, cond
        return self.answer

    def null_condition(self, batch, device=None):
        return {"label": torch.full((batch,), 7)}


class Linear(nn.Module):
    """A network whose answer depends on all that it is given, in one way for every sample."""

    def forward(self, x, noise_level, cond=None):
        level = noise_level.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return x.flip(1) * 0.3 + torch.sin(level / 300)


@pytest.fixture(params=list(denoisers))
def cls(request):
    return denoisers[request.param]


@pytest.fixture
def compatible(cls, schedule):
    """The schedule, or another that leaves signal where the prediction needs some and this one does not."""
    if cls.needs_signal and schedule.vanishing:
        with pytest.raises(IncompatibleParts, match="predict v, velocity, x0 or edm"):
            cls(None, schedule)
        return LinearSchedule()
    return schedule


def times(schedule, n):
    """From the smallest trained time to the end, which is included."""
    return torch.cat([torch.linspace(schedule.t_min, 0.9, n - 1, dtype=torch.float64), f64([1.0])])


def draws(shape):
    return torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("shape", [(4, 4), (4, 3, 2, 4)], ids=["points, batch = dimension", "images, batch = width"])
def test_told_the_target_it_returns_the_clean_data(cls, compatible, shape):
    x_0, eps = draws(shape)
    x_0 = SIGMA_DATA * x_0
    t = times(compatible, len(x_0))
    over = [-1, *[1] * (len(shape) - 1)]
    alpha, sigma = compatible.alpha(t).reshape(over), compatible.sigma(t).reshape(over)
    x_t = alpha * x_0 + sigma * eps
    denoiser = cls(None, compatible, SIGMA_DATA)
    denoiser.network = Says(denoiser.target(x_0, eps, t))
    # Noise and score are divided by alpha, down to 5e-5 for the cosine schedule: rounding grows by as much.
    torch.testing.assert_close(denoiser(x_t, t), x_0, rtol=0, atol=1e-10)


def test_the_input_of_the_network_has_unit_variance(cls, compatible):
    x_0, eps = draws((20_000, 2))
    for t in times(compatible, 4):
        x_t = compatible.alpha(t) * SIGMA_DATA * x_0 + compatible.sigma(t) * eps
        network = Says(torch.zeros_like(x_t))
        cls(network, compatible, SIGMA_DATA)(x_t, t)
        # 40,000 numbers: the standard error of their variance is 0.007.
        assert float(network.x.var()) == pytest.approx(1, abs=0.035)


def test_a_time_for_all_and_a_time_for_each_agree(cls, compatible):
    x, _ = draws((3, 3))
    denoiser = cls(Linear(), compatible, SIGMA_DATA)
    for t in times(compatible, 5):
        one, each = denoiser(x, t), denoiser(x, t.expand(3))
        torch.testing.assert_close(one, each, rtol=1e-12, atol=1e-12)
    t = times(compatible, 3)
    for i, alone in enumerate(t):
        torch.testing.assert_close(denoiser(x, t)[i], denoiser(x, alone)[i], rtol=1e-12, atol=1e-12)


def test_the_network_is_told_a_level_for_each_sample(cls, compatible):
    x, _ = draws((3, 2))
    network = Says(x)
    denoiser = cls(network, compatible)
    for t in (f64(0.5), f64([0.5, 0.5, 0.5])):
        denoiser(x, t, {"label": torch.tensor([1, 2, 3])})
        assert network.noise_level.shape == (3,)
        assert network.noise_level.tolist() == pytest.approx([float(compatible.noise_level(f64(0.5)))] * 3, rel=1e-6)
        assert network.cond["label"].tolist() == [1, 2, 3]


def test_coefficients_are_finite_at_both_ends(cls, compatible):
    denoiser = cls(None, compatible, SIGMA_DATA)
    for t in (f64(0.0), f64(1.0), f64([0.0, 0.5, 1.0])):
        for c in denoiser.coefficients(t):
            assert c.shape == t.shape
            assert c.dtype == torch.float64
            assert bool(c.isfinite().all())


def test_clean_data_is_left_alone_but_for_x0_prediction(cls, compatible):
    c = cls(None, compatible, SIGMA_DATA).coefficients(f64(0.0))
    skip, out = (0.0, SIGMA_DATA) if cls.registered_name == "x0" else (1.0, 0.0)
    assert float(c.skip) == pytest.approx(skip, abs=1e-14)
    assert float(c.out) == pytest.approx(out, abs=1e-14)


def test_the_target_is_what_the_coefficients_solve_for(cls, compatible):
    """One error e of the network is an error c_out e of the clean data."""
    x_0, eps = draws((5, 2))
    t = times(compatible, 5)[:-1].repeat(2)[:5]
    c = cls(None, compatible, SIGMA_DATA).coefficients(t)
    x_t = compatible.alpha(t)[:, None] * x_0 + compatible.sigma(t)[:, None] * eps
    denoiser = cls(None, compatible, SIGMA_DATA)
    denoiser.network = Says(denoiser.target(x_0, eps, t) + 1)
    # The error is c_out itself; what is compared loses digits to the size of the skip.
    lost = 1e-9 * float(c.skip.abs().max() + 1)
    torch.testing.assert_close(denoiser(x_t, t) - x_0, c.out[:, None].expand(5, 2), rtol=1e-9, atol=lost)


def test_the_answer_has_the_dtype_of_the_input_and_the_shape_of_the_network_is_checked(cls, compatible):
    x = torch.zeros(2, 3)
    assert cls(Linear(), compatible)(x, f64(0.5)).dtype == torch.float32
    with pytest.raises(ShapeError, match="answer"):
        cls(Says(torch.zeros(2, 4)), compatible)(x, f64(0.5))
    with pytest.raises(ShapeError):
        cls(Linear(), compatible)(x, f64([0.5, 0.5, 0.5]))


def test_a_learned_variance_is_the_same_denoiser_with_a_fraction(cls, compatible):
    x, other = draws((3, 2, 2, 3))
    plain = cls(Says(other), compatible, SIGMA_DATA)
    learned = LearnedVarianceDenoiser(
        cls(Says(torch.cat([other, torch.full_like(other, -0.5)], 1)), compatible, SIGMA_DATA)
    )
    for t in (f64(0.4), f64([0.1, 0.5, 0.9])):
        estimate, fraction = learned.with_variance(x, t)
        torch.testing.assert_close(estimate, plain(x, t), rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(learned(x, t), estimate, rtol=0, atol=0)
        assert bool((fraction == 0.25).all())
    assert plain.with_variance(x, f64(0.4))[1] is None
    assert learned.null_condition(2)["label"].tolist() == plain.null_condition(2)["label"].tolist() == [7, 7]
    with pytest.raises(ShapeError, match="4 output channels"):
        LearnedVarianceDenoiser(plain)(x, f64(0.4))
