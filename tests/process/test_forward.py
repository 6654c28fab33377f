"""The forward process against worked numbers and against itself."""

import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, ShapeError
from unnoise.process.chain import jump
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.forward import add_noise, convert, noise_step
from unnoise.process.linear import LinearSchedule
from unnoise.process.scaled_linear import ScaledLinearSchedule
from unnoise.process.sigmoid import SigmoidSchedule
from unnoise.process.tabulated import TabulatedSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule

INDICES = torch.tensor([0, 250, 500, 750, 999])


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("x", "beta", "eps", "expected"), [(0.8, 0.1, -0.3, 0.66408), (0.5, 0.04, 1.5, 0.78990)])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_one_step_gives_the_worked_numbers(x, beta, eps, expected, as_tensor):
    beta = torch.tensor(beta, dtype=torch.float64) if as_tensor else beta
    found = noise_step(f64([[x]]), f64([[eps]]), beta)
    assert float(found) == pytest.approx(expected, abs=5e-6)


def test_the_linear_schedule_gives_the_worked_alpha_bars_and_snrs():
    bars = LinearSchedule().alpha_bars[INDICES]
    snr = bars / (1 - bars)
    assert bars.tolist() == pytest.approx([0.9999, 0.52142, 0.07780, 0.0033002, 4.0358e-5], rel=2e-4)
    assert snr.tolist() == pytest.approx([9999.0, 1.0895, 0.08436, 0.0033111, 4.036e-5], rel=1e-4)
    t = (INDICES + 1).double() / 1000
    torch.testing.assert_close(LinearSchedule().log_snr(t).exp(), snr, rtol=1e-9, atol=0)


def test_the_cosine_schedule_gives_the_worked_snrs():
    bars = CosineSchedule().alpha_bars[INDICES]
    snr = (bars / (1 - bars)).tolist()
    assert snr[0] == pytest.approx(24221.33, abs=0.005)
    assert snr[1:4] == pytest.approx([5.4888, 0.96961, 0.16710], abs=5e-5)
    assert float(bars[4]) == pytest.approx(2.4e-9, rel=0.02)
    assert CosineSchedule().betas[-3:].tolist() == pytest.approx([0.556, 0.750, 0.999], abs=5e-4)


def test_noisy_data_has_the_worked_numbers():
    np.random.seed(42)
    eps = np.random.randn(2)
    assert eps.tolist() == pytest.approx([0.496714, -0.138264], abs=5e-7)
    x_0 = f64([-0.75, 1.20]).expand(5, 2)
    x_t = add_noise(x_0, torch.from_numpy(eps).expand(5, 2), LinearSchedule(), (INDICES + 1).double() / 1000)
    expected = [[-0.74500, 1.19856], [-0.19795, 0.77087], [0.26781, 0.20193], [0.45281, -0.06910], [0.49194, -0.13064]]
    assert x_t.tolist() == [pytest.approx(row, abs=6e-6) for row in expected]


def test_the_signal_equals_the_noise_where_the_source_says():
    for schedule, level in ((LinearSchedule(), 258), (CosineSchedule(), 495)):
        bars = schedule.alpha_bars
        snr = bars / (1 - bars)
        assert int((snr - 1).abs().argmin()) in (level - 1, level, level + 1)


def test_the_scaled_linear_schedule_is_that_of_stable_diffusion():
    s = ScaledLinearSchedule()
    ratio = ((1 - s.alpha_bars) / s.alpha_bars).sqrt()
    # sigma_min and sigma_max of k-diffusion for SD 1.5
    assert float(ratio[0]) == pytest.approx(0.0292, abs=5e-5)
    assert float(ratio[-1]) == pytest.approx(14.6146, abs=5e-4)


def test_the_sigmoid_schedule_follows_its_formula():
    t = np.arange(1, 1001) / 1000
    expected = (1 / (1 + np.exp(-3 + 6 * t)) - 1 / (1 + np.exp(3))) / (1 / (1 + np.exp(-3)) - 1 / (1 + np.exp(3)))
    np.testing.assert_allclose(SigmoidSchedule().alpha_bars.numpy(), expected, atol=1e-14)
    with pytest.raises(BadOption, match="more than start"):
        SigmoidSchedule(start=1.0, end=1.0)


def test_the_flow_is_a_straight_line_and_its_shift_is_that_of_the_paper():
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(FlowSchedule().sigma(t), t, rtol=0, atol=0)
    torch.testing.assert_close(FlowSchedule().alpha(t), 1 - t, rtol=0, atol=0)
    torch.testing.assert_close(FlowSchedule(3.0).sigma(t), 3 * t / (1 + 2 * t))
    torch.testing.assert_close(FlowSchedule(3.0).alpha(t) + FlowSchedule(3.0).sigma(t), torch.ones_like(t))


def test_the_variance_exploding_schedule_runs_from_exactly_0_to_sigma_max_through_edms_curve():
    s = VarianceExplodingSchedule()
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    curve = (0.002 ** (1 / 7) + t * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    torch.testing.assert_close(s.sigma(t), (curve - 0.002) * 80 / (80 - 0.002), rtol=1e-9, atol=1e-12)
    assert float(s.sigma(f64(s.t_min))) == pytest.approx(0.002, rel=1e-12)
    with pytest.raises(BadOption, match="sigma_max"):
        VarianceExplodingSchedule(1.0, 1.0)


@pytest.mark.parametrize("values", [(), (1.0, 0.5), (0.5, 0.5), (0.5, 0.6), (0.5, -0.1), (float("nan"),)])
def test_a_table_that_does_not_fall_is_refused(values):
    with pytest.raises(BadOption):
        TabulatedSchedule(values)


def test_a_table_may_come_as_a_tensor():
    assert TabulatedSchedule.of(torch.tensor([0.5, 0.25])) == TabulatedSchedule((0.5, 0.25))
    assert TabulatedSchedule((0.5, 0.0)).vanishing


def test_iterated_steps_have_the_moments_of_the_closed_form():
    schedule = LinearSchedule(50, 0.01, 0.3)
    # mean and variance of x_k for x_0 = 2, carried by the step itself: what it does to 2, and to noise alone
    mean, variance = f64([[2.0]]), 0.0
    for k, beta in enumerate(schedule.betas):
        keep = float(noise_step(f64([[1.0]]), f64([[0.0]]), beta))
        add = float(noise_step(f64([[0.0]]), f64([[1.0]]), beta))
        mean, variance = noise_step(mean, f64([[0.0]]), beta), keep**2 * variance + add**2
        bar = float(schedule.alpha_bars[k])
        assert float(mean) == pytest.approx(2 * bar**0.5, rel=1e-12)
        assert variance == pytest.approx(1 - bar, rel=1e-12)


def test_each_sample_takes_its_own_step_when_batch_and_dimension_agree():
    x, eps = torch.ones(2, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    stepped = noise_step(x, eps, f64([0.0, 0.75]))
    assert stepped.tolist() == [[1.0, 1.0], [0.5, 0.5]]
    noisy = add_noise(x, eps, FlowSchedule(), f64([0.0, 0.75]))
    assert noisy.tolist() == [[1.0, 1.0], [0.25, 0.25]]


def test_times_and_noise_of_another_shape_are_refused():
    x = torch.zeros(4, 2)
    with pytest.raises(ShapeError, match=r"\(\) or \(4,\)"):
        add_noise(x, x, FlowSchedule(), f64([0.1, 0.2]))
    with pytest.raises(ShapeError, match="eps"):
        add_noise(x, torch.zeros(4, 1), FlowSchedule(), f64(0.1))
    with pytest.raises(ShapeError, match="eps"):
        noise_step(x, torch.zeros(1, 2), 0.1)
    with pytest.raises(ShapeError, match="noise"):
        convert(torch.zeros(4, 1), x, FlowSchedule(), f64(0.1), have="noise", want="v")


def test_noisy_data_keeps_the_dtype_of_the_data():
    x = torch.zeros(4, 2)
    assert add_noise(x, x, FlowSchedule(), f64([0.1, 0.2, 0.3, 0.4])).dtype == torch.float32
    assert noise_step(x, x, f64(0.1)).dtype == torch.float32


def test_a_jump_over_one_level_has_the_variances_of_the_chain():
    s = LinearSchedule()
    for k in (1, 500, 999):
        bar, before, beta = float(s.alpha_bars[k]), float(s.alpha_bars[k - 1]), float(s.betas[k])
        found = jump(bar**0.5, (1 - bar) ** 0.5, before**0.5, (1 - before) ** 0.5)
        assert found.beta == pytest.approx(beta, rel=1e-9)
        assert found.posterior == pytest.approx(beta * (1 - before) / (1 - bar), rel=1e-9)


def test_two_jumps_are_one_jump():
    s = FlowSchedule()
    (a_r, s_r), (a_s, s_s), (a_t, s_t) = ((float(s.alpha(f64(t))), float(s.sigma(f64(t)))) for t in (0.2, 0.5, 0.9))
    # Var(x_t | x_r) = Var(x_t | x_s) + (alpha_t / alpha_s)^2 Var(x_s | x_r)
    direct = jump(a_t, s_t, a_r, s_r).beta
    assert direct == pytest.approx(
        jump(a_t, s_t, a_s, s_s).beta + (a_t / a_s) ** 2 * jump(a_s, s_s, a_r, s_r).beta, rel=1e-12
    )


@pytest.mark.parametrize("options", [{"num_steps": 1}, {"num_steps": 2}])
@pytest.mark.parametrize("cls", [LinearSchedule, CosineSchedule, SigmoidSchedule, ScaledLinearSchedule])
def test_a_chain_of_one_or_two_levels_is_a_chain(cls, options):
    s = cls(**options)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    assert s.alpha_bars.shape == (options["num_steps"],)
    assert bool((s.alpha(t).diff() < 0).all())
