"""The state of a run: masters in one piece of memory, whatever the network computes in."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unnoise.errors import BadOption, RunFolderError
from unnoise.training.averages import ExponentialAverage, PowerAverage
from unnoise.training.flat import Flat
from unnoise.training.optimizers.base import optimizers
from unnoise.training.settings import SnapshotSettings, TrainingSettings
from unnoise.training.state import Averaged, TrainState

SETTINGS = TrainingSettings(lr=1e-2, warmup=0, decay="constant", clip=0.5, ema=0.9)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 16, 5)
    )


def trained(dtype, steps=5, settings=SETTINGS):
    network = net()
    state = TrainState(network, settings, dtype)
    for step in range(steps):
        x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(step)).to(dtype)
        network(x).float().square().mean().backward()
        state.update()
    return state


def test_views_keep_the_order_in_memory_of_what_they_are_like():
    like = {
        "a": torch.randn(3, 5),
        "b": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "c": torch.tensor(1.0),
    }
    flat = Flat(like)
    flat.fill(list(like.values()))
    for view, tensor in zip(flat.views, like.values(), strict=True):
        assert torch.equal(view, tensor)
        assert view.stride() == tensor.stride()
        assert view.storage_offset() % 16 == 0
    twin = flat.another()
    assert not twin.vector.any()
    assert twin.vector.data_ptr() != flat.vector.data_ptr()


def test_float32_updates_are_those_of_torchs_adamw_with_clipping():
    state, network = trained(torch.float32), net()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, betas=SETTINGS.betas, weight_decay=0.0)
    average = [p.detach().clone() for p in network.parameters()]
    for step in range(5):
        x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        network(x).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        memory = SETTINGS.ema[0].kept(step, SETTINGS.batch_size)
        average = [memory * a + (1 - memory) * p.detach() for a, p in zip(average, network.parameters(), strict=True)]
    for mine, theirs, mean, its in zip(
        state.parameters, network.parameters(), state.average.views, average, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(mean, its, rtol=1e-5, atol=1e-6)


def test_a_network_in_bfloat16_has_masters_that_remember_what_it_rounds():
    state = trained(torch.bfloat16)
    assert state.network[0].weight.dtype == torch.bfloat16
    assert state.network[1].weight.dtype == torch.float32
    assert {view.dtype for view in state.masters.views} == {torch.float32}
    for parameter, master in zip(state.parameters, state.masters.views, strict=True):
        assert torch.equal(parameter, master.to(parameter.dtype))
    tiny = TrainingSettings(lr=1e-6, warmup=0, decay="constant", clip=0.0)
    moved = trained(torch.bfloat16, settings=tiny)
    rounded = moved.network[4].weight == net()[4].weight.bfloat16()
    assert rounded.float().mean() > 0.95  # too little for bfloat16 to see
    assert (moved.masters.views[4] != net()[4].weight).float().mean() > 0.95


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_that_was_saved_goes_on_as_if_nothing_had_been(dtype):
    straight, first = trained(dtype, 8), trained(dtype, 5)
    second = TrainState(net(1), SETTINGS, dtype)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()}, first.step)
    for step in range(5, 8):
        x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(step)).to(dtype)
        second.network(x).float().square().mean().backward()
        second.update()
    a, b = straight.tensors(), second.tensors()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_micro_batches_add_up_to_the_batch():
    whole, parts = TrainState(net().double(), SETTINGS), TrainState(net().double(), SETTINGS)
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    (whole.network(x).square().mean(1).sum() / 8).backward()
    for some in x.split(3):
        (parts.network(some).square().mean(1).sum() / 8).backward()
        parts.accumulate()
    whole.update()
    parts.update()
    torch.testing.assert_close(whole.masters.vector, parts.masters.vector, rtol=0, atol=1e-13)


def test_frozen_weights_are_no_part_of_it():
    network = net()
    network[0].weight.requires_grad_(False)
    before = network[0].weight.clone()
    state = TrainState(network, SETTINGS)
    assert "0.weight" not in state.names
    network(torch.randn(2, 3, 4, 4)).square().mean().backward()
    state.update()
    assert torch.equal(network[0].weight, before)
    assert torch.equal(state.ema_weights()["0.weight"], before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_within_averaged_the_network_has_the_average_and_after_it_its_own(dtype):
    state = trained(dtype)
    own = [p.detach().clone() for p in state.parameters]
    with Averaged(state):
        for parameter, mean in zip(state.parameters, state.average.views, strict=True):
            assert torch.equal(parameter, mean.to(parameter.dtype))
    assert all(torch.equal(p, o) for p, o in zip(state.parameters, own, strict=True))


@pytest.mark.parametrize("optimizer", list(optimizers))
def test_several_averages_and_any_optimizer_go_on_as_if_nothing_had_been(optimizer):
    settings = replace(
        SETTINGS, optimizer=optimizers.build(optimizer), ema=(PowerAverage(0.1), ExponentialAverage(0.5)),
        model_average="exponential-0.5", snapshots=SnapshotSettings(every=3, lengths=(0.1, 0.05)), weight_decay=0.1,
    )  # fmt: skip
    straight, first = trained(torch.float32, 8, settings), trained(torch.float32, 5, settings)
    second = TrainState(net(1), settings)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()}, first.step)
    for step in range(5, 8):
        x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        second.network(x).float().square().mean().backward()
        second.update()
    a, b = straight.tensors(), second.tensors()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert {"ema/0.weight", "power-0.1/0.weight", "power-0.05/0.weight"} <= set(a)
    assert len({float(straight.ema_weights(name)["4.weight"].norm()) for name in ("", *settings.averages)}) == 3
    assert torch.equal(straight.ema_weights()["4.weight"], straight.ema_weights("exponential-0.5")["4.weight"])


def test_snapshots_hold_the_averages_that_were_asked_for_in_the_numbers_that_were_asked_for():
    settings = replace(SETTINGS, snapshots=SnapshotSettings(every=2, lengths=(0.1, 0.05), precision="fp16"))
    state = trained(torch.bfloat16, settings=settings)
    found = state.snapshot()
    assert set(found) == {f"power-{length}/{name}" for length in (0.1, 0.05) for name in state.names}
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    size = sum(tensor.numel() for tensor in found.values()) * 2
    assert size == settings.snapshots.size(sum(p.numel() for p in state.parameters))
    exact = state.ema_weights("power-0.1")["4.weight"]
    torch.testing.assert_close(found["power-0.1/4.weight"].float(), exact, rtol=1e-3, atol=1e-6)
    assert [step for step in range(1, 8) if settings.snapshots.due(step, 7)] == [2, 4, 6, 7]
    assert settings.snapshots.count(7) == 4


def test_averages_live_in_float32_whatever_the_network_computes_in():
    state = trained(torch.bfloat16, settings=replace(SETTINGS, ema=(PowerAverage(0.1), ExponentialAverage(0.9))))
    assert {flat.vector.dtype for flat in state.averages.values()} == {torch.float32}
    weights = {name: state.ema_weights(name)["4.weight"] for name in state.averages}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all((tensor != tensor.bfloat16().float()).any() for tensor in weights.values())


def test_checkpoints_of_version_0_1_can_be_gone_on_from():
    state = trained(torch.float32)
    old = state.tensors()
    count = old.pop("updates")
    old.update({f"updates/{name}": count.clone() for name in state.names})
    state.restore(old, 5)
    assert float(state.memory.updates) == 5


def test_weights_of_another_network_are_refused_with_the_first_that_differs():
    state = trained(torch.float32)
    tensors = state.tensors()
    tensors["weights/0.weight"] = torch.zeros(1)
    with pytest.raises(RunFolderError, match=r"another network \(it differs in weights/0.weight\)"):
        state.restore(tensors, 1)


def test_an_optimizer_of_whole_matrices_is_called_by_its_name_where_weights_are_shared_out(monkeypatch):
    monkeypatch.setattr("unnoise.training.state.local", lambda p: p.detach())
    with pytest.raises(BadOption) as refused:
        TrainState(net(), replace(SETTINGS, optimizer="muon"))
    assert str(refused.value) == "training.optimizer: muon needs whole matrices: set machine.parallel=ddp"
