"""The learned weight of each noise level, and what an objective remembers of it."""

import pytest
import torch

from unnoise.denoisers.v import VDenoiser
from unnoise.errors import RunFolderError
from unnoise.objectives.base import Draws, Prepared
from unnoise.objectives.companion import Companion
from unnoise.objectives.mse import MSEObjective
from unnoise.objectives.uncertainty import LearnedUncertainty
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule


def examples(t):
    x = torch.zeros(len(t), 2)
    return Prepared(x, t.float(), None, x, torch.ones(len(t)), Draws(x, x, t, None))


def drawn(n, seed=0):
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 0.98 + 0.01


def expected(t):
    return 0.02 + torch.exp(-6 * t).float()


def test_it_begins_as_the_plain_loss():
    companion = MSEObjective(uncertainty=True).companion(FlowSchedule())
    prepared, losses = examples(drawn(64)), torch.rand(64)
    assert torch.equal(companion.minimised(losses, prepared), losses)


def test_it_learns_the_logarithm_of_the_loss_to_be_expected_and_then_all_times_count_alike():
    companion = MSEObjective(uncertainty=True).companion(CosineSchedule())
    for step in range(1500):
        t = drawn(64, step)
        # the square of a normal number is as wild as a loss is
        noise = torch.randn(64, generator=torch.Generator().manual_seed(step)).square()
        companion.minimised(expected(t) * noise, examples(t)).mean().backward()
        companion.update(step + 1, 1e-3 if step < 1000 else 1e-4)
    t = torch.linspace(0.05, 0.95, 40, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(companion.uncertainty(t), expected(t).log(), rtol=0, atol=0.25)
    # the gradient of an error of each time is divided by the loss that is to be expected there
    losses = expected(t).requires_grad_()
    (gradient,) = torch.autograd.grad(companion.minimised(losses, examples(t)).sum(), losses)
    assert bool((gradient * losses - 1).abs().max() < 0.3)


def test_one_update_is_that_of_adam():
    companion = MSEObjective(uncertainty=True).companion(FlowSchedule())
    twin = LearnedUncertainty(FlowSchedule())
    adam = torch.optim.Adam(twin.parameters(), lr=1e-2, betas=(0.9, 0.99))
    for step in range(5):
        prepared, losses = examples(drawn(32, step)), torch.rand(32)
        companion.minimised(losses, prepared).mean().backward()
        companion.update(step + 1, 1e-2)
        u = twin(prepared.draws.t)
        (losses / u.exp() + u).mean().backward()
        adam.step()
        adam.zero_grad()
    torch.testing.assert_close(companion.uncertainty.weight, twin.weight, rtol=1e-4, atol=1e-7)


def test_it_is_finite_where_there_is_no_signal_and_where_there_is_no_noise():
    u = LearnedUncertainty(FlowSchedule())
    torch.nn.init.ones_(u.weight)
    assert bool(u(torch.tensor([0.0, 1e-12, 1.0], dtype=torch.float64)).isfinite().all())


def test_the_loss_that_is_validated_is_the_plain_one():
    plain, learned = MSEObjective(), MSEObjective(uncertainty=True)
    denoiser = VDenoiser(torch.nn.Module(), FlowSchedule())
    denoiser.network.forward = lambda x, level, cond=None: 0 * x
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    draws = Draws(x, x.flip(0), drawn(8), None)
    assert torch.equal(
        plain.losses(denoiser, plain.prepare(denoiser, draws)),
        learned.losses(denoiser, learned.prepare(denoiser, draws)),
    )


@pytest.mark.parametrize(
    "objective", [MSEObjective(uncertainty=True), MSEObjective(times="adaptive", uncertainty=True), MSEObjective()]
)
def test_what_goes_beside_a_run_goes_on_as_if_nothing_had_been(objective):
    def walk(companion, steps):
        for step in steps:
            t = drawn(32, step)
            prepared = examples(t)._replace(draws=examples(t).draws._replace(stratum=(t * 100).long()))
            losses = expected(t)
            minimised = companion.minimised(losses, prepared).mean()
            if companion.parameters:
                minimised.backward()
            companion.observe(losses, prepared.draws.stratum)
            companion.update(step + 1, 1e-3)
        return companion

    whole = walk(objective.companion(FlowSchedule()), range(250))
    resumed = objective.companion(FlowSchedule())
    resumed.restore({k: v.clone() for k, v in walk(objective.companion(FlowSchedule()), range(130)).tensors().items()})
    walk(resumed, range(130, 250))
    assert set(whole.tensors()) == set(resumed.tensors())
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name


def test_the_memory_of_another_objective_is_refused():
    with pytest.raises(RunFolderError, match="another objective"):
        Companion().restore(MSEObjective(uncertainty=True).companion(FlowSchedule()).tensors())
