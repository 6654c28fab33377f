"""Times that follow the losses: the same mean, less variance."""

import math

import pytest
import torch

from unnoise.errors import BadOption, RunFolderError
from unnoise.objectives.history import LossHistory
from unnoise.objectives.times import LogNormalTimes, time_densities
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def warmed(sizes, memory=10, uniform=0.001):
    """A history in which every loss of stratum k was sizes[k]."""
    history = LossHistory(len(sizes), memory, uniform, refresh=1)
    stratum = torch.arange(len(sizes)).repeat(memory)
    history.observe(stratum, f64(sizes)[stratum])
    history.update(1)
    return history


def test_each_share_is_drawn_as_often_as_the_root_mean_square_of_its_losses_says():
    history = LossHistory(3, 2, 0.1, refresh=1)
    history.observe(torch.tensor([0, 1, 2, 0, 1, 2]), f64([3.0, 1.0, 0.0, 4.0, 1.0, 0.0]))
    history.update(1)
    size = f64([math.sqrt(12.5), 1.0, 0.0])
    torch.testing.assert_close(history.shares, 0.9 * size / size.sum() + 0.1 / 3, rtol=1e-12, atol=0)


def test_until_every_share_has_enough_losses_all_are_drawn_alike():
    history = LossHistory(2, 10, 0.001, refresh=1)
    history.observe(torch.tensor([0] * 50 + [1] * 9), torch.rand(59))
    history.update(1)
    u = torch.rand(100, dtype=torch.float64)
    where, stratum, importance = history.draw(u)
    assert torch.equal(where, u)
    assert torch.equal(stratum, (2 * u).long())
    assert torch.equal(importance, torch.ones_like(u))
    history.observe(torch.tensor([1]), torch.ones(1))
    history.update(2)
    assert float(history.shares[0]) != 0.5


def test_only_the_newest_losses_count_in_whatever_parts_they_came():
    stratum = torch.randint(0, 4, (500,), generator=torch.Generator().manual_seed(0))
    losses = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole, parts = LossHistory(4, 7, 0.001, 1), LossHistory(4, 7, 0.001, 1)
    whole.observe(stratum, losses)
    for i, part in enumerate(torch.arange(500).split(23)):
        parts.observe(stratum[part], losses[part])
        if i % 3 == 0:
            parts.settle()
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, parts.tensors()[name])
    for k in range(4):
        newest = losses[stratum == k][-7:]
        assert sorted(whole.losses[k].tolist()) == sorted(newest.tolist())


def test_the_density_stands_still_between_two_refreshes():
    history = LossHistory(2, 1, 0.001, refresh=10)
    history.observe(torch.tensor([0, 1]), f64([1.0, 3.0]))
    for step in range(1, 10):
        history.update(step)
        assert history.shares.tolist() == [0.5, 0.5]
    history.update(10)
    assert float(history.shares[1]) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize("sizes", [[1.0, 2.0, 5.0, 0.2], [0.0, 0.0, 1.0, 0.0]])
def test_the_weighted_mean_is_that_of_the_plain_density(sizes):
    history = warmed(sizes, uniform=0.2)
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    where, stratum, importance = history.draw(u)
    assert torch.equal(stratum, (where * 4).long())
    assert bool((where.diff() > 0).all())
    for function in (torch.ones_like, torch.square, lambda x: torch.sin(7 * x)):
        plain, weighted = function(u).mean(), (importance * function(where)).mean()
        torch.testing.assert_close(weighted, plain, rtol=1e-3, atol=1e-5)


def test_the_variance_of_the_mean_falls_where_losses_differ():
    sizes = f64([0.1, 0.1, 0.1, 2.0, 0.1, 5.0, 0.1, 0.1])
    history = warmed(sizes.tolist())
    u = torch.rand(50_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = sizes[(u * 8).long()]
    _, stratum, importance = history.draw(u)
    weighted = importance * sizes[stratum]
    assert float(weighted.mean()) == pytest.approx(float(sizes.mean()), rel=0.01)
    assert float(weighted.var()) < 0.01 * float(plain.var())


def test_of_a_chain_every_level_is_a_share_of_its_own():
    schedule = LinearSchedule()
    times = time_densities.build("adaptive")
    history = times.history(schedule)
    assert len(history.shares) == 1000
    losses = torch.linspace(0.01, 1, 1000, dtype=torch.float64)
    stratum = torch.arange(1000).repeat(10)
    history.observe(stratum, losses[stratum])
    history.update(100)
    where, stratum, importance = history.draw((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    t = times.quantile(where, schedule)
    assert torch.equal((t * 1000).round().long() - 1, stratum)
    shares = torch.bincount(stratum, minlength=1000).double() / 200_000
    torch.testing.assert_close(shares, history.shares, rtol=0, atol=1.1e-5)
    torch.testing.assert_close(importance, 1 / (1000 * history.shares[stratum]), rtol=1e-12, atol=0)


def test_it_may_lie_over_any_other_density_but_itself():
    times = time_densities.build({"name": "adaptive", "base": "log_normal", "strata": 20})
    u = torch.rand(50, dtype=torch.float64)
    assert torch.equal(times.quantile(u, FlowSchedule()), LogNormalTimes().quantile(u, FlowSchedule()))
    assert len(times.history(FlowSchedule()).shares) == 20
    with pytest.raises(BadOption, match="does not adapt itself"):
        time_densities.build({"name": "adaptive", "base": "adaptive"})


def test_what_it_remembers_can_be_taken_up_again():
    history, other = warmed([1.0, 2.0, 3.0]), LossHistory(3, 10, 0.001, 1)
    history.observe(torch.tensor([2, 0]), f64([7.0, 8.0]))
    other.restore(history.tensors())
    for each in (history, other):
        each.observe(torch.tensor([1]), f64([9.0]))
        each.update(2)
    u = torch.rand(100, dtype=torch.float64)
    for mine, yours in zip(history.draw(u), other.draw(u), strict=True):
        assert torch.equal(mine, yours)
    with pytest.raises(RunFolderError, match="other times"):
        LossHistory(4, 10, 0.001, 1).restore(history.tensors())


def test_losses_that_are_not_numbers_change_nothing():
    history = warmed([1.0, 2.0])
    before = history.shares.clone()
    history.observe(torch.tensor([0]), f64([math.nan]))
    history.update(2)
    assert torch.equal(history.shares, before)
