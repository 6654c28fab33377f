"""What a run would take."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.errors import BadOption, UnknownName
from unnoise.objectives.mse import preconditioned
from unnoise.recipes.planning import ACCELERATORS, SCALING, plan
from unnoise.recipes.recipe import load_any_recipe, load_recipe
from unnoise.recipes.run import Run
from unnoise.recipes.works import work_of
from unnoise.training.threads import step_operations


@pytest.fixture(scope="module")
def work():
    return work_of(load_recipe("digits", ["network=dit", "network.width=32", "network.depth=2", "network.heads=2",
                                          "network.patch=2", "training.batch_size=64", "training.steps=1000"]))  # fmt: skip


def test_what_can_be_counted_is_counted(work):
    found = plan(work, devices=4, device="h100", price=2.0, seconds=0.2)
    network = preconditioned(work.blueprint.build(0)).network
    weights = sum(p.numel() for p in network.parameters())
    assert found.parameters == weights
    assert found.samples == 64_000
    assert found.batch_per_device == 16
    assert found.checkpoint_bytes == 16 * weights
    assert found.model_bytes == 4 * weights
    assert found.storage_bytes == 2 * found.checkpoint_bytes + 2 * found.model_bytes
    # The rate is the share of the peak that steps reach here, of the peak there.
    assert 0 < found.share_of_peak <= 0.5
    rate = 4 * SCALING * found.share_of_peak * ACCELERATORS["h100"].tflops * 1e12 / (3 * found.forward_operations)
    assert found.samples_per_second == pytest.approx(rate)
    assert found.hours == pytest.approx(64_000 / rate / 3600)
    assert found.price == pytest.approx(2.0 * 4 * found.hours)
    assert found.data_bytes_per_second == pytest.approx(64 * rate)  # 8 x 8 pixels of a byte
    inside = sum(p.numel() for block in network.blocks for p in block.parameters())
    # Small steps compute in float32: blocks come together for each way, the rest once, and all gradients are summed.
    sent = {"ddp": 2 * 4 * weights * 3 / 4, "fsdp": (3 * 4 * inside + 2 * 4 * (weights - inside)) * 3 / 4}
    assert found.network_bytes_per_second == pytest.approx({k: v * rate / 64 for k, v in sent.items()})


def test_the_operations_are_those_of_the_layers(work):
    found = plan(work, seconds=0.1)
    tokens, width = 16, 32
    projections = tokens * (4 * width**2 + 8 * width**2)
    least = 2 * 2 * projections  # two blocks, two operations for each product; attention and modulation come on top
    assert least < found.forward_operations < 1.4 * least


def test_sharing_the_weights_takes_less_memory_and_forgetting_activations_too(work):
    memory = {each.way: each for each in plan(work, devices=4, device="a100", seconds=0.1).memory}
    assert set(memory) == {"ddp", "fsdp", "ddp, activations forgotten", "fsdp, activations forgotten"}
    network = preconditioned(work.blueprint.build(0)).network
    blocks = [sum(p.numel() for p in block.parameters()) for block in network.blocks]
    rest = sum(p.numel() for p in network.parameters()) - sum(blocks)
    # Of six numbers for each weight a quarter; and whole, with gradients, what stands in no block, and two blocks.
    shared = memory["ddp"].state - 3 / 4 * 6 * 4 * (sum(blocks) + rest) + 2 * 4 * (rest + 2 * blocks[0])
    assert memory["fsdp"].state == pytest.approx(shared)
    assert memory["ddp, activations forgotten"].activations < 0.6 * memory["ddp"].activations
    room = 80e9 - memory["ddp"].state
    assert memory["ddp"].fits == math.floor(room / (memory["ddp"].activations / 16))


def test_in_bfloat16_and_in_micro_batches_other_numbers_are_sent():
    options = ["network=dit", "network.width=32", "network.depth=2", "network.heads=2", "network.patch=2"]
    found = {}
    for precision, micro_batch in (("fp32", 0), ("bf16", 0), ("bf16", 4)):
        machine = [f"machine.precision={precision}", f"machine.micro_batch={micro_batch}", "training.batch_size=64"]
        work = work_of(load_recipe("digits", [*options, *machine]))
        planned = plan(work, devices=4, device="h100", seconds=0)
        found[precision, micro_batch] = planned.network_bytes_per_second["fsdp"] / planned.samples_per_second * 64
    network = preconditioned(work.blueprint.build(0)).network
    weights = sum(p.numel() for p in network.parameters())
    inside = sum(p.numel() for block in network.blocks for p in block.parameters())
    assert found["fp32", 0] == pytest.approx((12 * inside + 8 * (weights - inside)) * 3 / 4)
    assert found["bf16", 0] == pytest.approx((8 * inside + 6 * (weights - inside)) * 3 / 4)
    assert found["bf16", 4] == pytest.approx(4 * found["bf16", 0])  # 16 samples of a device in parts of 4


def test_alone_there_is_nobody_to_share_with_or_to_send_to(work):
    found = plan(work, seconds=0.1)
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
    lora = work_of(load_recipe("digits", [f"start.model={model}", "start.lora.rank=2", "training.batch_size=8"]))
    found, whole = plan(lora, devices=2, device="h100", seconds=0), plan(work_of(base), devices=2, seconds=0)
    trained = [p.numel() for p in lora.trainee().network.parameters() if p.requires_grad]
    assert found.parameters == sum(trained) < whole.parameters / 3
    assert found.checkpoint_bytes == 16 * sum(trained)
    assert found.memory[0].state < whole.memory[0].state


def test_bad_input(work):
    with pytest.raises(UnknownName, match="did you mean 'h100'"):
        plan(work, device="h10")
    with pytest.raises(BadOption, match="64 samples a step cannot be shared by 65 devices"):
        plan(work, devices=65)


def test_the_command_prints_a_table(capsys):
    from typer.testing import CliRunner

    from unnoise.cli.main import app

    done = CliRunner().invoke(
        app, ["plan", "spiral", "--gpus", "2", "--device", "h100", "--price", "3", "--seconds", "0"]
    )
    assert done.exit_code == 0, done.output
    assert "at the price given" in done.output
    assert "of the peak (as measured here, half at most)" in done.output
    assert "most samples at once" in done.output
    assert "each device sends" in done.output


def test_data_that_is_streamed_is_planned_as_it_is_trained(tmp_path, monkeypatch, capsys):
    from typer.testing import CliRunner

    from unnoise.cli.main import app

    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "data" / f"{i}.png")
    options = ["network.width=8", "data.size=8", "--seconds", "0", "--stream"]
    done = CliRunner().invoke(app, ["plan", "images", "--data", str(tmp_path / "data"), *options])
    assert done.exit_code == 0, done.output
    assert "B/s of decoded data" in done.output
    refused = CliRunner().invoke(app, ["plan", "spiral", "--stream"])
    assert "--stream is about data of yours: give it with --data" in str(refused.exception)


AUTOENCODER = {
    "kind": "autoencoder", "data": {"name": "digits"}, "loss": {"perceptual": 0.0},
    "autoencoder": {"width": 8, "multipliers": [1, 2], "blocks": 1, "latent_channels": 2, "attention": False},
    "training": {"steps": 100, "batch_size": 32},
}  # fmt: skip


def test_an_autoencoder_is_planned_with_its_adversary():
    work = work_of(load_any_recipe(AUTOENCODER))
    weights = sum(p.numel() for p in work.codec.autoencoder.parameters())
    alone, shared = plan(work, seconds=0.2), plan(work, devices=2, device="h100", seconds=0)
    assert alone.parameters == weights
    assert alone.checkpoint_bytes == 16 * weights
    assert alone.forward_operations == pytest.approx(step_operations(work.codec.autoencoder, (1, 8, 8), 1) / 3)
    assert alone.samples_per_second > 0
    assert alone.hours == pytest.approx(3200 / alone.samples_per_second / 3600)
    ways = ["ddp", "ddp, activations forgotten"]  # an autoencoder is whole on every process
    assert [each.way for each in alone.memory] == [each.way for each in shared.memory] == ways
    assert set(shared.network_bytes_per_second) == {"ddp"}
    adversary = {"width": 4, "layers": 1}
    beside = plan(work_of(load_any_recipe(AUTOENCODER, loss__adversarial=adversary)), seconds=0)
    assert beside.checkpoint_bytes > alone.checkpoint_bytes
    assert beside.model_bytes == alone.model_bytes


@pytest.fixture
def captioned(tmp_path):
    """A recipe of CLIP on twelve captioned pictures."""
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"picture {i} of noise")
    return load_any_recipe({
        "kind": "clip", "data": {"name": "folder", "path": str(tmp_path), "size": 8, "cache": False}, "dim": 16,
        "text": {"encoder": {"name": "transformer", "width": 16, "depth": 2, "heads": 2, "length": 12}},
        "pictures": {"width": 8, "multipliers": [1, 2], "blocks": 1}, "training": {"steps": 10, "batch_size": 6},
    })  # fmt: skip


def test_clip_is_planned_with_both_of_its_towers(captioned):
    work = work_of(captioned)
    found, clip = plan(work, seconds=0.2), work.trainee().network
    assert found.parameters == sum(p.numel() for p in clip.parameters())
    looking = step_operations(clip, (3, 8, 8), 1) / 3  # of the tower that looks, where nothing is told beside a picture
    layers = sum(layer.weight.numel() for layer in clip.text.modules() if isinstance(layer, torch.nn.Linear))
    reading = 2 * work.captions.length * layers  # attention comes on top
    assert reading > 0.05 * looking
    assert reading < found.forward_operations - looking < 1.4 * reading
    assert [each.way for each in found.memory] == ["alone"]
    assert found.samples_per_second > 0
    with pytest.raises(BadOption, match="--gpus: kind clip trains in one process, on one device: leave it 1"):
        plan(work, devices=2)
