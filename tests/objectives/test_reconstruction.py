"""What an autoencoder learns: each term by itself, and the adversary that has its say in proportion."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from unnoise.errors import BadOption, RunFolderError
from unnoise.nn.autoencoder import Autoencoder, AutoencoderConfig
from unnoise.objectives.adversary import AdversarialSettings, Adversary
from unnoise.objectives.companion import Companion
from unnoise.objectives.reconstruction import ReconstructionLoss

SMALL = AutoencoderConfig(width=4, multipliers=(1, 1), blocks=1, latent_channels=2, attention=False)
SETTINGS = AdversarialSettings(weight=0.5, start=3, width=4, layers=1)


def autoencoder(config=SMALL):
    torch.manual_seed(0)
    return Autoencoder(2, 1, config)


def batch(n=4):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_terms_are_what_the_formula_says():
    module, x = autoencoder(), batch()
    noise = torch.randn(4, 2, 4, 4)
    mean, std = module.moments(x)
    made = module.decode(mean + std * noise)
    distance = lambda a, b: (a - b).abs().amax((1, 2, 3))
    found = ReconstructionLoss(pixel="l2", perceptual=0.3, kl=1e-3)(module, x, noise, distance)
    torch.testing.assert_close(found.made, made)
    divergence = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).flatten(1).sum(1)
    expected = (made - x).square().mean((1, 2, 3)) + 0.3 * distance(made, x) + 1e-3 / 64 * divergence
    torch.testing.assert_close(found.losses, expected)
    sized = ReconstructionLoss(perceptual=0.3, kl=1e-3)(module, x)
    torch.testing.assert_close(sized.made, module(x))
    torch.testing.assert_close(sized.shown, (module(x) - x).abs().mean((1, 2, 3)))


def test_without_divergence_latents_are_told_and_not_drawn():
    plain = AutoencoderConfig(**{**vars(SMALL), "variational": False})
    for config in (SMALL, plain):
        module, x = autoencoder(config), batch()
        found = ReconstructionLoss(kl=0.0)(module, x, torch.randn(4, 2, 4, 4))
        assert torch.equal(found.made, module(x))
        assert found.kl is None
    ReconstructionLoss(kl=0.0).check(variational=False)
    with pytest.raises(BadOption, match=r"loss\.kl: must be 0 with autoencoder\.variational=false"):
        ReconstructionLoss().check(variational=False)


# The adversary


def adversary(seed=0):
    return Adversary(SETTINGS, (1, 8, 8), (1, 4, 3, 3), seed)


def slopes(module, x, found, against):
    """The gradients of both terms at the last layer, worked out one by one."""
    last = module.decoder.leave.weight
    objections = -against.discriminator(found.made).flatten(1).mean(1)
    parts = found.shown.sum() / 4, objections.sum() / 4
    return [torch.autograd.grad(part, last, retain_graph=True)[0] for part in parts]


def test_it_counts_in_proportion_to_the_gradients_of_the_step_before():
    module, x, against = autoencoder(), batch(), adversary()
    found = ReconstructionLoss()(module, x)
    rest, own = slopes(module, x, found, against)
    for part in (slice(0, 1), slice(1, 4)):  # in micro batches
        some = ReconstructionLoss()(module, x[part])
        objections = against.objection(some.made) / 4
        added = against.weigh(some.shown.sum() / 4, objections, module.decoder.leave.weight)
        assert float(added.detach()) == 0  # nothing is known yet
        against.learn(x[part], some.made, 1 / 4)
    against.update(4, 1e-3)
    balance = float(rest.norm() / (own.norm() + 1e-4))
    assert float(against.balance) == pytest.approx(balance, rel=1e-4)
    objections = against.objection(found.made) / 4
    added = against.weigh(found.shown.sum() / 4, objections, module.decoder.leave.weight)
    assert float(added.detach()) == pytest.approx(0.5 * balance * float(objections.sum().detach()), rel=1e-4)


def test_it_learns_the_hinge_loss_and_the_autoencoder_leaves_it_alone():
    module, x, against = autoencoder(), batch(), adversary()
    found = ReconstructionLoss()(module, x)
    parameters = list(against.discriminator.parameters())
    total = found.losses.sum() + against.weigh(
        found.shown.sum(), against.objection(found.made), module.decoder.leave.weight
    )
    torch.autograd.backward(total, inputs=list(module.parameters()))
    assert all(p.grad is None for p in parameters)
    before = [p.grad.clone() for p in module.parameters()]
    against.learn(x, found.made, 1 / 4)
    assert all(torch.equal(p.grad, old) for p, old in zip(module.parameters(), before, strict=True))
    real, made = against.discriminator(x), against.discriminator(found.made.detach())
    loss = ((1 - real).clamp(min=0) + (1 + made).clamp(min=0)).mean() / 2
    for p, expected in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-4, atol=1e-6)


def test_it_tells_real_from_made_after_some_steps_and_waits_for_its_turn():
    against, x = adversary(), batch()
    made = x.flip(0) * 0.1
    assert [against.active(step) for step in (0, 2, 3, 9)] == [False, False, True, True]
    untrained = [p.clone() for p in against.parameters]
    against.update(3, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(untrained, against.parameters, strict=True))
    for step in range(3, 43):
        against.learn(x, made, 1 / 4)
        against.update(step + 1, 1e-2)
    assert (against.discriminator(x).mean() - against.discriminator(made).mean()) > 1


def test_what_it_remembers_goes_into_another_one():
    against, other, x = adversary(), adversary(5), batch()
    against.learn(x, -x, 1 / 4)
    against.update(4, 1e-2)
    other.restore(against.tensors())
    for each in (against, other):
        each.learn(x, -x, 1 / 4)
        each.update(5, 1e-2)
    found, expected = other.tensors(), against.tensors()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(name.startswith("adversary/") for name in expected)
    with pytest.raises(RunFolderError, match="of another objective"):
        adversary().restore(Companion().tensors())
