"""A run on shards: killed and resumed, with any number of workers, it ends with the same bytes; a bad shard loses nothing."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

from unnoise.errors import DataError, RunFolderError
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.checkpoint import newest_whole
from unnoise.training.loop import Stepped

pytestmark = pytest.mark.usefixtures("empty_cache")

RUN = """
import os, signal, sys
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.loop import Stepped

folder, kill_at, *overrides = sys.argv[1:]
for event in Run(load_recipe("images", overrides), folder).events():
    if isinstance(event, Stepped) and event.step == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """48 random pictures of 8 x 8 with two labels, in 6 tar shards."""
    rng, place = np.random.default_rng(0), tmp_path_factory.mktemp("shards")
    for k in range(6):
        with tarfile.open(place / f"{k}.tar", "w") as tar:
            for i in range(8):
                stream = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
                add(tar, f"{k}-{i}.png", stream.getvalue())
                add(tar, f"{k}-{i}.cls", str(i % 2).encode())
    return place


def options(shards, workers=0):
    return [
        "data.name=shards", f"data.path={shards}", "data.flips=true", "data.window=4", "data.mixing=3",
        "network.width=16", "network.blocks=1",
        "network.multipliers=[1, 1]", "training.steps=14", "training.batch_size=9", "training.checkpoint_every=4",
        "training.validate_every=5", "training.validation_size=16", "training.validation_share=0.1",
        "training.sample_every=0", f"machine.workers={workers}",
    ]  # fmt: skip


def final_bytes(folder):
    files = [*(folder / "model").iterdir(), max((folder / "checkpoints").iterdir())]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def straight(shards, tmp_path_factory):
    """What a run ends with that nothing happened to, and whose data nobody reads ahead."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    for _ in Run(load_recipe("images", options(shards)), folder).events():
        pass
    return final_bytes(folder)


def test_killed_and_resumed_with_another_number_of_workers_the_weights_are_byte_equal(
    interpreters, shards, straight, tmp_path
):
    assert interpreters.run(RUN, tmp_path / "broken", 6, *options(shards, 2)) == -signal.SIGKILL
    for _ in Run(load_recipe("images", options(shards, 1)), tmp_path / "broken").events():
        pass
    assert straight == final_bytes(tmp_path / "broken")


def test_by_itself_a_run_reads_ahead_where_there_are_processors_and_ends_with_the_same_bytes(
    shards, straight, tmp_path, monkeypatch
):
    for there, workers in ((1, 0), (3, 2)):
        monkeypatch.setattr("unnoise.training.prefetch.processors", lambda n=there: n)
        before, seen = children(), 0
        run = Run(load_recipe("images", options(shards, "auto")), tmp_path / str(there))
        for event in run.events():
            if isinstance(event, Stepped) and event.step == 5:
                seen = len(children() - before)
        assert seen - 1 == workers  # one is who lists them
        assert straight == final_bytes(tmp_path / str(there))


def test_a_run_of_an_older_version_goes_on_with_the_workers_that_it_has_now(shards, tmp_path):
    events = Run(load_recipe("images", options(shards)), tmp_path / "run").events()
    for event in events:
        if isinstance(event, Stepped) and event.step == 5:
            break
    events.close()
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "  workers: 0\n" in text
    assert load_recipe(tmp_path / "run" / "recipe.yaml").machine.workers == 0
    assert Run(load_recipe("images", options(shards, "auto")), tmp_path / "run").state.step == 4


def test_a_run_whose_worker_is_killed_saves_and_says_why_and_goes_on(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.training.prefetch.MOST_AHEAD", 1)  # so that not all of the run is ready by then
    larger = ["data.size=32", "training.batch_size=32", "training.steps=24", "network.width=8"]
    run = Run(load_recipe("images", [*options(shards, 1), *larger]), tmp_path / "run")
    with pytest.raises(DataError, match=r"a worker that reads the data was ended by SIGKILL while it read \d\.tar"):
        kill_a_worker_after_two_steps(run)
    found, damaged = newest_whole(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert not damaged
    assert found.step == run.state.step >= 2
    for name in ("run", "straight"):
        for _ in Run(load_recipe("images", [*options(shards), *larger]), tmp_path / name).events():
            pass
    assert final_bytes(tmp_path / "straight") == final_bytes(tmp_path / "run")


def kill_a_worker_after_two_steps(run):
    before = children()
    for event in run.events():
        if isinstance(event, Stepped) and event.step == 2:
            for pid in children() - before:
                with contextlib.suppress(ProcessLookupError):  # the one that listed them is gone
                    os.kill(pid, signal.SIGKILL)


LOSES_ITS_READER = """
import contextlib, os, signal, subprocess, sys
from unnoise.errors import DataError
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training import prefetch
from unnoise.training.loop import Stepped
from unnoise.training.parallel import connected, leave, told_by_torchrun

prefetch.MOST_AHEAD = 1
out, *options = sys.argv[1:]
checked = load_recipe("images", options)
with connected(checked.machine.torch_device(told_by_torchrun().local_rank)) as processes:
    run = Run(checked, out, processes=processes)
    try:
        for event in run.events():
            if isinstance(event, Stepped) and event.step == 2 and processes.rank == 1:
                listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True)
                for pid in listed.stdout.split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
    except DataError as error:
        print(f"told: stood at {run.state.step}: {error}")
leave()
"""


LARGER = [
    "data.size=32", "training.batch_size=32", "training.steps=24", "training.checkpoint_every=24", "network.width=8",
    "machine.precision=fp32",
]  # fmt: skip


@pytest.fixture(scope="module")
def larger_straight(shards, tmp_path_factory):
    """The weights of one process whose worker nobody kills."""
    folder = tmp_path_factory.mktemp("larger") / "run"
    for _ in Run(load_recipe("images", [*options(shards, 1), *LARGER]), folder).events():
        pass
    return newest_whole(folder / "checkpoints")[0].part("weights/")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_processes_of_which_one_loses_its_worker_stop_at_one_step_and_save_it(
    interpreters, shards, larger_straight, tmp_path, parallel
):
    recipe = [*options(shards, 1), *LARGER, f"machine.parallel={parallel}"]
    interpreters.together(2, LOSES_ITS_READER, tmp_path / "run", *recipe)
    told = interpreters.told()
    found, damaged = newest_whole(tmp_path / "run" / "checkpoints")
    assert not damaged
    assert 2 <= found.step < 24
    why = "process 1 of 2: a worker that reads the data was ended by SIGKILL while it read"
    assert [line.startswith(f"told: stood at {found.step}: {why}") for line in told] == [True, True], told
    for _ in Run(load_recipe("images", recipe), tmp_path / "run").events():
        pass
    end = newest_whole(tmp_path / "run" / "checkpoints")[0].part("weights/")
    assert max(float((end[name] - value).abs().max()) for name, value in larger_straight.items()) < 1e-5


def children():
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return {int(pid) for pid in found.stdout.split()}


def test_ctrl_c_saves_and_ends_the_workers_too(shards, tmp_path):
    command = [sys.executable, "-m", "unnoise", "train", "images", "--out", tmp_path / "run", *options(shards, 2)]
    long = ["training.steps=100000", "training.log_every=1", "training.checkpoint_every=100000", "data.size=32"]
    process = subprocess.Popen([*command, *long], stderr=subprocess.PIPE, text=True, start_new_session=True)
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.is_file() and '"lr"' in metrics.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of the group
    said = process.communicate(timeout=120)[1]  # which a worker that is left would hold open
    assert process.returncode == 130, said
    assert "stopped and saved at step" in said
    assert newest_whole(tmp_path / "run" / "checkpoints")[0] is not None


def test_a_shard_that_changed_since_a_run_began_stops_it(shards, tmp_path):
    shards = shutil.copytree(shards, tmp_path / "shards")
    events = Run(load_recipe("images", options(shards)), tmp_path / "run").events()
    for event in events:
        if isinstance(event, Stepped) and event.step == 5:
            break
    events.close()
    content = bytearray((shards / "3.tar").read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    (shards / "3.tar").write_bytes(content)
    with pytest.raises(RunFolderError, match="the data has changed since the run"):
        Run(load_recipe("images", options(shards)), tmp_path / "run")
