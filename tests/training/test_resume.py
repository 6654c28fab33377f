"""A run that is killed and resumed ends with the same bytes as one that was not."""

import errno
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.errors import RunFolderError
from unnoise.model import Model
from unnoise.recipes.metrics import read_metrics
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.checkpoint import (
    checkpoints,
    load_checkpoint,
    newest_whole,
    remove_old,
    remove_partials,
    save_checkpoint,
)
from unnoise.training.loop import Stepped

RUN = """
import os, signal, sys
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.loop import Stepped

folder, kill_at, recipe, *overrides = sys.argv[1:]
for event in Run(load_recipe(recipe, overrides), folder).events():
    if isinstance(event, Stepped) and event.step == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
"""
UNNOISE = "import runpy; runpy.run_module('unnoise', run_name='__main__')"
POINTS = (
    "two-moons-labels", "training.steps=90", "training.checkpoint_every=13", "training.validate_every=30",
    "training.sample_every=45", "training.batch_size=48", "training.validation_size=32", "network.width=24",
)  # fmt: skip
IMAGES = (
    "digits", "training.steps=9", "training.checkpoint_every=2", "training.validate_every=5", "training.sample_every=0",
    "training.batch_size=32", "training.validation_size=16", "network.width=16",
)  # fmt: skip
AVERAGES = (
    *POINTS, "training.ema=[power-0.1, 0.99, halflife-500]", "training.model_average=halflife-500",
    "training.snapshots.every=7", "training.optimizer=muon", "training.decay=trapezoid", "training.weight_decay=0.01",
)  # fmt: skip
DROPOUT = (*IMAGES, "network.dropout=0.3")


@pytest.fixture
def run(interpreters):
    """Trains in a process of its own, which may kill itself after a step, and gives its exit code."""

    def call(folder, *recipe, kill_at=0):
        return interpreters.run(RUN, folder, kill_at, *recipe)

    return call


@pytest.fixture
def base(run, tmp_path):
    """A model to start from."""
    folder = tmp_path / "base" / "run"
    assert run(folder, *IMAGES[:1], "training.steps=4", *IMAGES[2:]) == 0
    return folder


def final_bytes(folder):
    files = [*(folder / "model").iterdir(), max((folder / "checkpoints").iterdir()), *folder.glob("snapshots/*")]
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}


@pytest.mark.parametrize("recipe", [POINTS, DROPOUT, AVERAGES], ids=["points", "images", "averages"])
def test_killed_with_sigkill_at_random_steps_and_resumed_the_weights_are_byte_equal(run, tmp_path, recipe):
    straight, broken = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert run(straight, *recipe) == 0
    steps = int(recipe[1].partition("=")[2])
    for kill_at in sorted(random.Random(os.getpid()).sample(range(1, steps), 2)):
        assert run(broken, *recipe, kill_at=kill_at) == -signal.SIGKILL
    assert run(broken, *recipe) == 0
    a, b = final_bytes(straight), final_bytes(broken)
    assert a == b, "resumed bytes differ"
    losses = [(straight / "metrics.jsonl").read_text(), (broken / "metrics.jsonl").read_text()]
    cut = [[line.split(', "samples_per_second"')[0] for line in text.splitlines()] for text in losses]
    assert cut[0] == cut[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_saves_and_exits_and_the_same_command_goes_on(interpreters, tmp_path, number, code):
    folder = tmp_path / "run"
    options = ("training.steps=100000", "training.checkpoint_every=100000", "training.sample_every=0")
    command = ("train", "spiral", "--out", folder, *options, "training.validate_every=100000")
    process = interpreters.start(UNNOISE, *command)
    deadline = time.monotonic() + 240
    metrics = folder / "metrics.jsonl"
    while not (metrics.is_file() and '"lr"' in metrics.read_text()):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert interpreters.run(UNNOISE, *command) == 2
    assert "another process is training" in interpreters.said.read_text()
    os.kill(process.pid, number)
    process.join()
    said = interpreters.said.read_text()
    assert process.exitcode == code, said
    assert "stopped and saved at step" in said
    found, damaged = newest_whole(folder / "checkpoints")
    assert found is not None
    assert not damaged
    assert found.step >= 50


def test_adapters_beside_a_model_killed_and_resumed_are_byte_equal(run, tmp_path, base):
    lora = ("start.lora.rank=3", "start.lora.dropout=0.2", "start.train=leave,*.bias", "training.lr=1e-2")
    recipe = (*IMAGES[:-1], f"start.model={base}", *lora)
    straight, broken = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert run(straight, *recipe) == 0
    assert run(broken, *recipe, kill_at=random.Random(os.getpid()).randrange(1, 9)) == -signal.SIGKILL
    assert run(broken, *recipe) == 0
    a, b = final_bytes(straight), final_bytes(broken)
    assert "model/lora.safetensors" in a
    assert a == b, "resumed bytes differ"
    held = load_checkpoint(max((straight / "checkpoints").iterdir())).tensors
    own = [name for name in held if "/" in name and ".lora." not in name]
    assert own
    assert all("/leave." in name or ".leave." in name or name.endswith(".bias") for name in own)


@pytest.mark.parametrize("writes", [11, 13])
def test_a_disk_that_fills_up_on_the_way_costs_nothing_older_than_the_last_checkpoint(tmp_path, monkeypatch, writes):
    recipe = load_recipe(POINTS[0], [*POINTS[1:], "training.steps=30", "training.checkpoint_every=5"])
    straight, full = tmp_path / "a" / "run", tmp_path / "b" / "run"
    list(Run(recipe, straight).events())
    left, sync = [writes], os.fsync

    def filling(file):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    with monkeypatch.context() as patched:
        patched.setattr("unnoise.files.os.fsync", filling)
        with pytest.raises(OSError, match="No space left"):
            list(Run(recipe, full).events())
    found, damaged = newest_whole(full / "checkpoints")
    assert not damaged
    assert 5 < found.step < 30
    assert Model.load(full).trained["steps"] in (found.step, found.step - 5)  # the model is written after it
    assert not list(full.rglob("*.partial"))
    list(Run(recipe, full).events())
    assert final_bytes(straight) == final_bytes(full)


def test_a_picture_that_changed_since_a_run_began_stops_it(tmp_path):
    places = [tmp_path / "pictures" / f"{i}.png" for i in range(12)]
    places[0].parent.mkdir()
    for place, pixels in zip(places, np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8), strict=True):
        Image.fromarray(pixels).save(place)
    small = "training.batch_size=4", "training.validation_size=16", "network.width=16", "network.multipliers=[1]"
    steps = "training.steps=6", "training.checkpoint_every=2", "training.sample_every=0", "data.size=8"
    recipe = load_recipe("images", [f"data.path={places[0].parent}", *small, *steps])
    for event in Run(recipe, tmp_path / "run").events():
        if isinstance(event, Stepped) and event.step == 3:
            break
    assert Run(recipe, tmp_path / "run").state.step == 2
    pixels = np.array(Image.open(places[5]))
    pixels[3, 3] ^= 1
    Image.fromarray(pixels).save(places[5])
    with pytest.raises(RunFolderError, match=r"the data has changed since the run in .* was begun: use another --out"):
        Run(recipe, tmp_path / "run")


def test_a_checkpoint_tells_one_flipped_bit(run, tmp_path):
    assert run(tmp_path / "run", *POINTS[:1], "training.steps=2", *POINTS[2:]) == 0
    file = max((tmp_path / "run" / "checkpoints").iterdir())
    load_checkpoint(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        load_checkpoint(file)


def test_new_checkpoints_are_kept_beside_damaged_ones_of_later_steps(tmp_path):
    for step in (900, 1000):
        (tmp_path / f"{step:09d}.safetensors").write_bytes(b"damaged")
    for step in (100, 200, 300):
        save_checkpoint(tmp_path, {"x": torch.ones(2)}, step, {})
        remove_old(tmp_path, step)
        found, damaged = newest_whole(tmp_path)
        assert found is not None
        assert found.step == step
        assert len(damaged) == 2
    save_checkpoint(tmp_path, {"x": torch.ones(2)}, 1100, {})
    remove_old(tmp_path, 1100)
    assert [path.name for path in checkpoints(tmp_path)] == ["000001100.safetensors", "000001000.safetensors"]


def test_what_killed_writers_left_half_written_is_removed(tmp_path):
    (tmp_path / ".000000010.safetensors.123.partial").write_bytes(b"half")
    (tmp_path / "000000009.safetensors").write_bytes(b"whole")
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000000009.safetensors"]


def test_damaged_lines_of_metrics_are_left_out_and_the_others_stay(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\nno JSON\n5\n{"loss": 2}\n\xff\n{"step": 2}\n{"step": 3, "lo')
    assert [line["step"] for line in read_metrics(file)] == [1, 2]


def test_a_run_killed_after_its_last_checkpoint_gets_its_model(run, tmp_path):
    folder = tmp_path / "run"
    short = (*POINTS[:1], "training.steps=4", *POINTS[2:])
    assert run(folder, *short) == 0
    before = final_bytes(folder)
    description = folder / "model" / "model.yaml"
    description.write_text(description.read_text().replace("steps: 4\n", "steps: 3\n"))
    assert run(folder, *short) == 0
    assert final_bytes(folder) == before


def test_a_run_that_was_begun_before_an_option_came_goes_on_with_its_default(run, tmp_path):
    folder = tmp_path / "run"
    assert run(folder, *POINTS, kill_at=20) == -signal.SIGKILL
    recipe = folder / "recipe.yaml"
    lines = recipe.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("  clip:", "  weight_decay:"))]
    assert len(kept) == len(lines) - 2
    recipe.write_text("".join(kept))
    assert run(folder, *POINTS, kill_at=30) == -signal.SIGKILL
    assert run(folder, *POINTS, "training.clip=2.0") not in (0, -signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_ten_times_by_the_clock_and_resumed_the_weights_are_byte_equal(run, tmp_path):
    """Also while a checkpoint, the model or a picture is being written, which takes a good part of the time here."""
    recipe = (
        "digits", "training.steps=90", "training.checkpoint_every=2", "training.validate_every=30",
        "training.sample_every=20", "training.batch_size=16", "training.validation_size=16", "network.width=16",
        "machine.workers=1",
    )  # fmt: skip
    straight, broken = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert run(straight, *recipe) == 0
    told = RUN.replace("    if isinstance", "    print(flush=True)\n    if isinstance")
    chance, reached = random.Random(os.getpid()), [0]
    for _ in range(10):
        command = [sys.executable, "-c", told, broken, "0", *recipe]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            for _ in range(chance.randint(4, 9)):  # events, so that it comes on; three in two steps
                since = time.perf_counter()
                process.stdout.readline()
            time.sleep(chance.uniform(0.0, 1.5) * (time.perf_counter() - since))
            process.kill()
            assert process.wait() == -signal.SIGKILL, "it was through before it was killed: it needs more steps"
        reached.append(max((load_checkpoint(path).step for path in checkpoints(broken / "checkpoints")), default=0))
    assert reached == sorted(reached)
    assert 0 < reached[-1] < 90
    assert run(broken, *recipe) == 0
    assert final_bytes(straight) == final_bytes(broken)
