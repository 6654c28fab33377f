"""Brings a network to where and how it is trained."""

import pytest
import torch

from unnoise.errors import BadOption
from unnoise.nn.base import networks
from unnoise.recipes import run as run_module
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.execution import begin_state, checkpoint_blocks, training_dtype
from unnoise.training.machine import MachineSettings
from unnoise.training.memory import kept_bytes
from unnoise.training.settings import TrainingSettings
from unnoise.training.threads import SMALL_STEP, step_operations

CPU = torch.device("cpu")


def dit(seed=0):
    torch.manual_seed(seed)
    cls = networks["dit"]
    network = cls((2, 8, 8), config=cls.Config(width=32, depth=2, heads=2, patch=4))
    for parameter in network.parameters():  # what begins at zero would hide mistakes
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def gradients(network):
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(4, 2, 8, 8, generator=g), torch.randn(4, 2, 8, 8, generator=g)
    (network(x, torch.linspace(0, 900, 4)) - y).square().mean().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_activations_worked_out_again_give_the_same_gradients_and_less_is_kept():
    plain, thrifty = dit(), dit()
    checkpoint_blocks(thrifty)
    a, b = gradients(plain), gradients(thrifty)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-7)
    assert kept_bytes(thrifty, (2, 8, 8), 4) < 0.5 * kept_bytes(plain, (2, 8, 8), 4)
    assert list(thrifty.state_dict()) == list(plain.state_dict())


def test_a_network_without_blocks_has_nothing_to_forget():
    with pytest.raises(BadOption, match="network 'mlp' has no blocks to forget"):
        checkpoint_blocks(networks["mlp"]((2,)))


def test_where_nobody_asked_small_steps_stay_in_float32():
    auto = MachineSettings()
    assert training_dtype(auto, CPU, SMALL_STEP / 2) == torch.float32
    assert training_dtype(MachineSettings(precision="bf16"), CPU, 1.0) == torch.bfloat16
    assert training_dtype(MachineSettings(precision="fp32"), CPU, 10 * SMALL_STEP) == torch.float32


def test_devices_that_are_not_there_are_refused():
    assert MachineSettings(device="cpu").torch_device() == CPU
    with pytest.raises(BadOption, match=r"machine\.device: expected auto, cpu, cuda"):
        MachineSettings(device="toaster").torch_device()
    if not torch.cuda.is_available():
        with pytest.raises(BadOption, match="there is no cuda on this machine: take auto or cpu"):
            MachineSettings(device="cuda").torch_device()


def test_a_batch_larger_than_memory_is_refused_before_the_first_step(monkeypatch):
    monkeypatch.setattr("unnoise.training.execution.free_bytes", lambda device, sharers: 2_000_000)
    with pytest.raises(BadOption, match=r"samples at once need about .* GB, and 0\.0 GB are free"):
        begin_state(dit(), (2, 8, 8), TrainingSettings(batch_size=4096), MachineSettings(), CPU)


def test_a_batch_that_fits_in_bfloat16_is_taken(monkeypatch):
    from unnoise.precision import lower
    from unnoise.training.memory import MARGIN, state_bytes

    low = dit()
    lower(low, torch.bfloat16)
    size = 256
    need = MARGIN * kept_bytes(low, (2, 8, 8), size) + state_bytes(low)
    monkeypatch.setattr("unnoise.training.execution.free_bytes", lambda device, sharers: int(1.1 * need))
    begin_state(dit(), (2, 8, 8), TrainingSettings(batch_size=size), MachineSettings(precision="bf16"), CPU)
    with pytest.raises(BadOption, match="the largest number that fits is"):
        begin_state(dit(), (2, 8, 8), TrainingSettings(batch_size=size), MachineSettings(precision="fp32"), CPU)


@pytest.mark.parametrize(("recordable", "said"), [(True, " and what is recorded of their steps"), (False, "")])
def test_recordings_are_counted_where_a_gpu_will_make_them(monkeypatch, recordable, said):
    monkeypatch.setattr("unnoise.training.execution.free_bytes", lambda device, sharers: 2_000_000)
    machine = MachineSettings(cuda_graphs=True, precision="fp32")
    settings, gpu = TrainingSettings(batch_size=4096), torch.device("cuda", 0)
    with pytest.raises(BadOption, match=rf"^4096 samples at once{said} need"):
        begin_state(dit(), (2, 8, 8), settings, machine, gpu, recordable=recordable)


def test_a_run_that_works_activations_out_again_learns_the_same_and_keeps_less(tmp_path):
    options = [
        "network=dit", "network.width=32", "network.depth=2", "network.heads=2", "network.patch=2", "machine.precision=fp32",
        "training.steps=6", "training.batch_size=16", "training.sample_every=0", "training.validation_size=16",
    ]  # fmt: skip
    weights, kept = [], []
    for thrifty in ("false", "true"):
        run = Run(load_recipe("digits", [*options, f"machine.activation_checkpointing={thrifty}"]), tmp_path / thrifty)
        begun = run.state.masters.vector.clone()
        for _ in run.events():
            pass
        weights.append(run.state.masters.vector)
        kept.append(kept_bytes(run.state.network, run.work.input_shape, 16))
        assert not torch.equal(weights[-1], begun)
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
    assert kept[1] < 0.5 * kept[0]


def test_to_count_operations_compiles_nothing(monkeypatch):
    plain, compiled = dit(), dit()

    def compiler(graph, inputs):
        raise AssertionError("something was compiled")

    compiled.compile(backend=compiler)
    assert step_operations(compiled, (2, 8, 8), 1) == step_operations(plain, (2, 8, 8), 1)


def test_a_compiled_network_learns_as_the_plain_one_does_and_is_kept_for_other_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # which is put back afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    states = []
    for compiled in (False, True):
        cls = networks["mlp"]
        torch.manual_seed(0)
        network = cls((2,), config=cls.Config(width=16, depth=1))
        machine = MachineSettings(compile=compiled, precision="fp32")
        state = begin_state(network, (2,), TrainingSettings(batch_size=8, warmup=0), machine, CPU)
        for step in range(3):
            g = torch.Generator().manual_seed(step)
            x = torch.randn(8, 2, generator=g)
            network(x, torch.linspace(0, 900, 8)).square().mean().backward()
            state.update()
        states.append(state.masters.vector.clone())
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-6)
    assert [file for file in (tmp_path / "compiled").rglob("*") if file.is_file()]


def test_a_run_has_the_threads_and_the_cost_of_the_operations_that_were_counted(monkeypatch, tmp_path):
    state = begin_state(dit(), (2, 8, 8), TrainingSettings(batch_size=2), MachineSettings(), CPU)
    assert state.operations == step_operations(dit(), (2, 8, 8), 2) > 0
    asked = []
    for name in ("threads_for", "StepCost"):
        made = getattr(run_module, name)
        monkeypatch.setattr(run_module, name, lambda *of, made=made: asked.append(of[0]) or made(*of))
    short = ["training.steps=1", "training.validation_size=16", "training.sample_every=0", "network.width=16"]
    run = Run(load_recipe("digits", short), tmp_path / "run")
    list(run.events())
    assert run.state.operations > 0
    assert asked == [run.state.operations] * 2


def test_a_processor_records_nothing():
    state = begin_state(dit(), (2, 8, 8), TrainingSettings(batch_size=2), MachineSettings(cuda_graphs=True), CPU)
    assert not state.memory.records
