"""What a GPU works out is what the processor works out: noise, networks, training, samples. Runs where there is one."""

import numpy as np
import pytest
import torch

from unnoise.model import Model
from unnoise.nn.base import networks
from unnoise.randomness import address, normal_like
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.gradient import Gradient
from unnoise.training.recorded_gradient import RecordedGradient

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

IMAGE = (3, 16, 16)
NETWORKS = {
    "mlp": ((2,), {}),
    "unet": (IMAGE, {"width": 32}),
    "ddpm_unet": (IMAGE, {"width": 32, "multipliers": [1, 2]}),
    "latent_unet": (
        IMAGE,
        {"width": 32, "multipliers": [1, 2], "attention": [0, 1], "context": 24, "scale_shift": True},
    ),
    "dit": (IMAGE, {"width": 64, "depth": 2, "heads": 2, "context": 24, "qk_norm": True}),
    "mmdit": (IMAGE, {"width": 64, "depth": 2, "heads": 2, "context": 24}),
}


@pytest.fixture(autouse=True)
def exact():
    """float32 as it is, and not the coarser one of matrix units, which convolutions take by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def far(a, b):
    """The relative distance of two tensors."""
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


def test_noise_is_that_of_the_processor():
    samples, like = np.array([0, 3, 2**40 + 1]), torch.empty(3, 4, 5, dtype=torch.float64)
    key = address(3, "noise")
    here, there = normal_like(key, samples, like), normal_like(key, samples, like.cuda())
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_networks_and_their_gradients_are_those_of_the_processor(name, dtype, most):
    from unnoise.precision import lower

    shape, options = NETWORKS[name]
    torch.manual_seed(0)
    kind = networks[name]
    network = kind(shape, None, 0, kind.Config(**options))
    for parameter in network.parameters():  # also of what is zero at first
        torch.nn.init.normal_(parameter, std=0.05)
    x, level = torch.randn(4, *shape), torch.linspace(10, 900, 4)
    cond = {"context": torch.randn(4, 7, 24)} if "context" in network.condition_keys else None
    results = []
    for device, kept in (("cpu", torch.float32), ("cuda", dtype)):
        twin = kind(shape, None, 0, kind.Config(**options))
        twin.load_state_dict(network.state_dict())
        twin.to(device)
        lower(twin, kept)
        told = None if cond is None else {k: v.to(device, kept) for k, v in cond.items()}
        out = twin(x.to(device, kept), level.to(device), told)
        out.float().square().mean().backward()
        results.append((out, torch.cat([p.grad.float().flatten() for p in twin.parameters() if p.grad is not None])))
    (out, gradient), (out_there, gradient_there) = results
    assert far(out_there, out) < most
    assert far(gradient_there, gradient) < 2 * most


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_there_ends_where_training_here_does(tmp_path, optimizer):
    options = [
        "training.steps=10", "training.batch_size=32", "training.sample_every=0", "training.validation_size=64",
        "network.width=16", "network.blocks=1", "machine.precision=fp32", f"training.optimizer={optimizer}",
    ]  # fmt: skip
    ends = []
    for device in ("cpu", "cuda"):
        run = Run(load_recipe("digits", [*options, f"machine.device={device}"]), tmp_path / device)
        begin = run.state.masters.vector.cpu().clone()
        list(run.events())
        ends.append(run.state.masters.vector.cpu() - begin)
    assert far(ends[1], ends[0]) < (0.01 if optimizer == "adamw" else 0.05)  # Newton-Schulz is in bfloat16 there


@pytest.mark.parametrize(("network", "precision"), [("unet", "fp32"), ("dit", "bf16")])
def test_a_recorded_run_is_the_plain_one(tmp_path, monkeypatch, network, precision):
    options = [
        "training.steps=12", "training.batch_size=32", "training.sample_every=0", "training.validation_size=64",
        "training.log_every=4", "training.optimizer=muon", f"machine.precision={precision}", "machine.device=cuda",
        *(["network.width=16"] if network == "unet" else ["network.width=64", "network.depth=2", "network.heads=2"]),
    ]  # fmt: skip
    ends = []
    for records in ("false", "true"):
        recipe = load_recipe("digits", [f"network={network}", *options, f"machine.cuda_graphs={records}"])
        run = Run(recipe, tmp_path / records)
        begin = run.state.masters.vector.clone()
        made, gradient = [], run.trainee.gradient
        monkeypatch.setattr(run.trainee, "gradient", lambda state: made.append(gradient(state)) or made[-1])  # noqa: B023
        list(run.events())
        assert isinstance(made[0], RecordedGradient if records == "true" else Gradient)
        if records == "true":
            assert any(recording._recorded for _, recording in made[0]._known.values())
            assert run.state.memory.plan.turned._recorded
        ends.append(run.state.masters.vector - begin)
    assert (
        far(ends[1], ends[0]) < 0.05
    )  # Newton-Schulz in bfloat16 makes much of the last digits, also of two plain runs


def test_a_compiled_run_is_the_plain_one_to_rounding(tmp_path, monkeypatch):
    from unnoise.training import compiling

    short = {
        "machine__device": "cuda", "machine__precision": "fp32", "training__steps": 6, "training__validation_size": 50,
        "training__sample_every": 0, "training__checkpoint_every": 3, "training__lr": 1e-4, "training__batch_size": 32,
        "network": {"name": "dit", "width": 64, "depth": 2, "heads": 2, "patch": 2},
    }  # fmt: skip
    plain = Run(load_recipe("digits", **short, machine__compile=False), tmp_path / "plain")
    list(plain.events())
    for name in ("WORTH", "FASTER"):  # whatever the trial finds, the compiled network is kept
        monkeypatch.setattr(compiling, name, {"WORTH": 0.0, "FASTER": 1e9}[name])
    compiled = Run(load_recipe("digits", **short), tmp_path / "compiled")
    (trial,) = (event for event in compiled.events() if isinstance(event, compiling.CompileTrial))
    assert trial.pays, str(trial)
    print(trial)
    assert far(compiled.state.masters.vector, plain.state.masters.vector) < 1e-4


def test_a_recorded_gradient_is_the_plain_one(tmp_path):
    options = ["training.batch_size=32", "training.validation_size=64", "network.width=16", "machine.precision=fp32"]
    run = Run(load_recipe("digits", [*options, "machine.device=cuda", "machine.cuda_graphs=true"]), tmp_path / "run")
    recorded, stream, vector = (
        run.trainee.gradient(run.state),
        run.trainee.examples(run.state),
        run.state.gradients.vector,
    )
    run.trainee.module.train()
    for step in range(6):  # three as they are, then recorded and replayed
        batch = stream.step(step, run.device)
        losses, mine = recorded.add(batch, 1 / 32), vector.clone()
        vector.zero_()
        plain, other = recorded.plain.add(batch, 1 / 32), vector.clone()
        vector.zero_()
        assert far(losses, plain) < 1e-5
        assert far(mine, other) < 1e-4


def test_a_run_goes_on_elsewhere_to_the_same_weights(tmp_path):
    options = [
        "training.steps=10", "training.batch_size=32", "training.sample_every=0", "training.validation_size=64",
        "training.checkpoint_every=5", "network.width=16", "network.blocks=1", "machine.precision=fp32",
    ]  # fmt: skip
    run = Run(load_recipe("digits", [*options, "machine.device=cuda"]), tmp_path / "run")
    list(run.events(lambda: run.state.step >= 5))
    assert run.state.step == 5
    moved = Run(load_recipe("digits", [*options, "machine.device=cpu"]), tmp_path / "run")
    list(moved.events())
    whole = Run(load_recipe("digits", [*options, "machine.device=cpu"]), tmp_path / "whole")
    list(whole.events())
    assert moved.state.step == 10
    assert far(moved.state.masters.vector, whole.state.masters.vector) < 1e-3


def test_samples_are_those_of_the_processor():
    model = Model.load("ready")
    here = model.sample(4, prompt="a large red circle", steps=6, seed=1)
    there = model.on("cuda", "fp32").sample(4, prompt="a large red circle", steps=6, seed=1)
    difference = (here.tensor.float() - there.tensor.cpu().float()).abs()
    assert float(difference.mean()) < 0.5  # grey levels of 255


def test_a_sample_does_not_depend_on_its_batch():
    model = Model.load("ready").on("cuda", "fp32")
    many = model.sample(5, prompt="a blue star", steps=6, seed=1)
    few = model.sample(2, prompt="a blue star", steps=6, seed=1)
    difference = (many.tensor[:2].cpu().float() - few.tensor.cpu().float()).abs()
    assert float(difference.mean()) < 0.05
