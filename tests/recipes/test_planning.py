"""What a run would take."""

import math

import pytest

from unnoise.errors import BadOption, UnknownName
from unnoise.objectives.mse import preconditioned
from unnoise.recipes.diffusion_work import DiffusionWork
from unnoise.recipes.planning import ACCELERATORS, SCALING, plan
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run, prepare


@pytest.fixture(scope="module")
def prepared():
    return prepare(load_recipe("digits", ["network=dit", "network.width=32", "network.depth=2", "network.heads=2",
                                          "network.patch=2", "training.batch_size=64", "training.steps=1000"]))  # fmt: skip


def test_what_can_be_counted_is_counted(prepared):
    found = plan(prepared, devices=4, device="h100", price=2.0, seconds=0.2)
    network = preconditioned(prepared.blueprint.build(0)).network
    weights = sum(p.numel() for p in network.parameters())
    assert found.parameters == weights
    assert found.samples == 64_000
    assert found.batch_per_device == 16
    assert found.checkpoint_bytes == 16 * weights
    assert found.model_bytes == 4 * weights
    assert found.storage_bytes == 2 * found.checkpoint_bytes + 2 * found.model_bytes
    # The rate is the share of the peak that steps reach here, of the peak there.
    rate = 4 * SCALING * found.share_of_peak * ACCELERATORS["h100"].tflops * 1e12 / (3 * found.forward_operations)
    assert found.samples_per_second == pytest.approx(rate)
    assert found.hours == pytest.approx(64_000 / rate / 3600)
    assert found.price == pytest.approx(2.0 * 4 * found.hours)
    assert found.data_bytes_per_second == pytest.approx(64 * rate)  # 8 x 8 pixels of a byte
    sent = {"ddp": 2 * 4 * weights * 3 / 4, "fsdp": 8 * weights * 3 / 4}
    assert found.network_bytes_per_second == pytest.approx({k: v * rate / 64 for k, v in sent.items()})


def test_the_operations_are_those_of_the_layers(prepared):
    found = plan(prepared, seconds=0.1)
    tokens, width = 16, 32
    projections = tokens * (4 * width**2 + 8 * width**2)
    least = 2 * 2 * projections  # two blocks, two operations for each product; attention and modulation come on top
    assert least < found.forward_operations < 1.4 * least


def test_sharing_the_weights_takes_less_memory_and_forgetting_activations_too(prepared):
    memory = {each.way: each for each in plan(prepared, devices=4, device="a100", seconds=0.1).memory}
    assert set(memory) == {"ddp", "fsdp", "ddp, activations forgotten", "fsdp, activations forgotten"}
    assert memory["fsdp"].state < 0.3 * memory["ddp"].state
    assert memory["ddp, activations forgotten"].activations < 0.6 * memory["ddp"].activations
    room = 80e9 - memory["ddp"].state
    assert memory["ddp"].fits == math.floor(room / (memory["ddp"].activations / 16))


def test_alone_there_is_nobody_to_share_with_or_to_send_to(prepared):
    found = plan(prepared, seconds=0.1)
    assert all(not each.way.startswith("fsdp") for each in found.memory)
    assert set(found.network_bytes_per_second.values()) == {0}
    assert found.price is None


def test_adapters_beside_a_model_are_all_that_is_trained(tmp_path):
    small = ["network=dit", "network.width=32", "network.depth=2", "network.heads=2", "network.patch=2"]
    base = load_recipe("digits", [*small, "training.steps=1", "training.batch_size=4", "training.sample_every=0",
                                  "training.validation_size=16"])  # fmt: skip
    model = tmp_path / "base"
    for _ in Run(base, model).events():
        pass
    lora = prepare(load_recipe("digits", [f"start.model={model}", "start.lora.rank=2", "training.batch_size=8"]))
    found, whole = plan(lora, devices=2, device="h100", seconds=0), plan(prepare(base), devices=2, seconds=0)
    trained = [p.numel() for p in DiffusionWork(lora).trainee().network.parameters() if p.requires_grad]
    assert found.parameters == sum(trained) < whole.parameters / 3
    assert found.checkpoint_bytes == 16 * sum(trained)
    assert found.memory[0].state < whole.memory[0].state


def test_bad_input(prepared):
    with pytest.raises(UnknownName, match="did you mean 'h100'"):
        plan(prepared, device="h10")
    with pytest.raises(BadOption, match="64 samples a step cannot be shared by 65 devices"):
        plan(prepared, devices=65)


def test_the_command_prints_a_table(capsys):
    from typer.testing import CliRunner

    from unnoise.cli.main import app

    done = CliRunner().invoke(
        app, ["plan", "spiral", "--gpus", "2", "--device", "h100", "--price", "3", "--seconds", "0"]
    )
    assert done.exit_code == 0, done.output
    assert "at the price given" in done.output
    assert "most samples at once" in done.output
    assert "each device sends" in done.output
