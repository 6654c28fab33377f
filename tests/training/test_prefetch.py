"""Examples that workers read ahead are those that the loop works out itself, and a worker that dies stops the run well."""

import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.codecs.identity import IdentityCodec
from unnoise.data.shards import ShardsDataset
from unnoise.data.spiral import SpiralDataset
from unnoise.denoisers.noise import NoiseDenoiser
from unnoise.errors import DataError
from unnoise.objectives.history import LossHistory
from unnoise.objectives.mse import MSEObjective
from unnoise.process.linear import LinearSchedule
from unnoise.training.draws import DrawStream
from unnoise.training.machine import MachineSettings
from unnoise.training.parallel import ALONE, Processes
from unnoise.training.prefetch import PrefetchedStream, workers_for

pytestmark = pytest.mark.usefixtures("empty_cache")

CPU = torch.device("cpu")


@pytest.fixture
def shards(tmp_path):
    """40 random pictures of 8 x 8 in 5 tar shards."""
    rng = np.random.default_rng(0)
    (tmp_path / "shards").mkdir()
    for k in range(5):
        with tarfile.open(tmp_path / "shards" / f"{k}.tar", "w") as tar:
            for i in range(8):
                path = tmp_path / f"{k}-{i}.png"
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
                tar.add(path, path.name)
    return tmp_path / "shards"


def stream(data, workers, batch_size=6, **options):
    codec = IdentityCodec.pixels() if data.spec.kind == "image" else IdentityCodec.standardizing(data.part().x)
    denoiser = NoiseDenoiser(None, LinearSchedule())
    draws = DrawStream(data, codec, denoiser, MSEObjective(**options), batch_size, 3)
    draws.block_steps = min(draws.block_steps, 4)  # so that the tests see several blocks
    return PrefetchedStream(draws, workers)


def run(stream, steps):
    for step in range(steps):
        stream.step(step, CPU)


def same(one, other):
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("inputs", "target", "noise_level", "weight")
    )


@pytest.mark.parametrize(
    ("there", "processes", "workers"),
    [(1, 1, 0), (2, 1, 1), (4, 1, 3), (5, 1, 4), (64, 1, 4), (2, 2, 0), (8, 4, 1), (64, 8, 4), (4, 8, 0)],
)
def test_where_nobody_says_how_many_workers_there_are_as_many_as_have_a_processor(
    shards, monkeypatch, there, processes, workers
):
    monkeypatch.setattr("unnoise.training.prefetch.processors", lambda: there)
    together = Processes(0, 2 * processes, 0, processes)  # on two machines
    assert MachineSettings().workers == "auto"
    stored, held = ShardsDataset(str(shards)).load(), SpiralDataset(num_points=50).load()
    assert workers_for("auto", stored, together) == workers
    assert workers_for("auto", held, together) == 0
    assert [workers_for(n, each, ALONE) for n in (0, 7) for each in (stored, held)] == [0, 0, 7, 7]


def test_noise_that_is_dealt_out_within_groups_is_the_same_with_workers(shards):
    data = ShardsDataset(str(shards), window=4).load()
    alone, ahead = (stream(data, workers, noise={"pairing": 8}) for workers in (0, 2))
    for step in range(12):
        assert same(alone.step(step, CPU), ahead.step(step, CPU)), step
    ahead.close()


def test_times_that_follow_the_losses_before_are_drawn_when_their_step_comes(shards):
    data = ShardsDataset(str(shards), window=4).load()
    streams = [stream(data, workers) for workers in (0, 2)]
    for each in streams:
        each.stream.history, each.stream.block_steps = LossHistory(4, 6, 0.1, refresh=2), 2
    ahead = PrefetchedStream(streams[1].stream, 2)  # now with a history
    for step in range(24):
        one, other = streams[0].step(step, CPU), ahead.step(step, CPU)
        assert same(one, other), step
        for each in (streams[0], ahead):
            history = each.stream.history
            history.observe(one.draws.stratum, 1 + 9 * (one.draws.stratum == 3).double())
            history.settle()
            if step % 2:
                history.shares = torch.tensor([0.1, 0.1, 0.1, 0.7]) if step % 4 == 1 else torch.full((4,), 0.25)
    for each in (streams[1], ahead):
        each.close()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("augmented", [False, True])
def test_the_examples_are_the_same_for_any_number_of_workers(shards, workers, augmented):
    data = ShardsDataset(str(shards), window=4, mixing=3, flips=augmented, shift=augmented).load()
    alone, ahead = stream(data, 0), stream(data, workers)
    for step in range(30):
        assert same(alone.step(step, CPU), ahead.step(step, CPU)), step
    ahead.close()


def test_the_thread_of_data_in_memory_changes_nothing_either():
    data = SpiralDataset(num_points=50).load()
    alone, ahead = stream(data, 0), stream(data, 2)
    for step in range(30):
        assert same(alone.step(step, CPU), ahead.step(step, CPU))
    ahead.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_made_for_steps_after_the_last_and_a_run_goes_back_from_there(shards, workers):
    data = ShardsDataset(str(shards), window=4).load()
    whole, short = stream(data, 0), stream(data, workers)
    asked, take = [], short.stream.read
    short.stream.read = lambda indices: asked.append(len(indices)) or take(indices)
    short.stream.until(6)
    for step in (0, 3, 5, 4, 1, 5):
        assert same(whole.step(step, CPU), short.step(step, CPU)), step
    assert {24, 12} == set(asked)  # of a block of four steps, and of the two that are left
    short.close()


def test_a_run_may_go_on_anywhere_and_go_back(shards):
    data = ShardsDataset(str(shards), window=4).load()
    alone, ahead = stream(data, 0), stream(data, 2)
    for step in (17, 18, 30, 5, 6, 7, 8, 9):
        assert same(alone.step(step, CPU), ahead.step(step, CPU)), step
    ahead.close()


def test_a_worker_that_is_killed_is_told_in_one_line_that_names_a_shard(shards):
    ahead = stream(ShardsDataset(str(shards), window=4).load(), 2)
    ahead.step(0, CPU)
    for worker in ahead._reading.pool._workers:
        os.kill(worker.process.pid, signal.SIGKILL)
    with pytest.raises(
        DataError, match=r"was ended by SIGKILL while it read \d\.tar \(sample \d+ ...\).*fewer machine.workers"
    ):
        run(ahead, 200)
    ahead.close()


def test_a_shard_that_is_gone_is_named_by_whatever_worker_misses_it(shards):
    data = ShardsDataset(str(shards), window=4, mixing=2).load()
    ahead = stream(data, 2)
    for file in shards.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"\d\.tar cannot be read: No such file"):
        run(ahead, 20)
    ahead.close()


def test_broken_pictures_are_replaced_alike_by_any_number_of_workers_and_noted(shards):
    whole = bytearray((shards / "2.tar").read_bytes())
    head = whole.index(b"\x89PNG")  # of its first picture
    whole[head : head + 48] = bytes(48)
    (shards / "2.tar").write_bytes(whole)
    data = ShardsDataset(str(shards), window=4).load()
    alone, ahead = stream(data, 0), stream(data, 2)
    for step in range(14):
        assert same(alone.step(step, CPU), ahead.step(step, CPU))
    assert data.skipped == ("2.tar sample 0 (2-0): cannot identify image file; replaced by its neighbour",)
    ahead.close()


def test_what_is_closed_or_forgotten_leaves_no_process_behind(shards):
    data = ShardsDataset(str(shards), window=4).load()
    for forget in (False, True):
        ahead = stream(data, 2)
        ahead.step(0, CPU)
        processes = [worker.process for worker in ahead._reading.pool._workers]
        assert all(process.poll() is None for process in processes)
        if not forget:
            ahead.close()
        del ahead
        assert all(process.poll() is not None for process in processes)


def alive(pid):
    """Whether a process runs; one that has ended and that nobody asked for does not."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_worker_ends_when_its_parent_is_killed(shards, tmp_path):
    code = f"""
import sys, time
from unnoise.data.shards import ShardsDataset
from unnoise.data.streaming.workers import ReadingPool
pool = ReadingPool(ShardsDataset({str(shards)!r}).load().reader, 2)
print(*[worker.process.pid for worker in pool._workers], flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.kill()
    parent.communicate()
    for pid in workers:
        for _ in range(300):
            if not alive(pid):
                break
            time.sleep(0.1)
        assert not alive(pid)
