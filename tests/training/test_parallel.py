"""Several processes train what one would have trained, and any number of them goes on from what any other number wrote."""

import errno
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, RunFolderError
from unnoise.nn.base import networks
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.checkpoint import newest_whole
from unnoise.training.parallel import ALONE, Processes, connected, first_to_say, told_by_torchrun
from unnoise.training.settings import TrainingSettings
from unnoise.training.shares import read_facts
from unnoise.training.state import TrainState

from ..conftest import port_for_others

RECIPE = (
    "digits", "training.checkpoint_every=10", "training.validate_every=20", "training.sample_every=0",
    "training.batch_size=30", "training.validation_size=16", "network.width=16", "network.multipliers=[1, 2]", "network.blocks=1",
    "machine.precision=fp32", "training.steps=20",
)  # fmt: skip


UNNOISE = "import runpy; runpy.run_module('unnoise', run_name='__main__')"


def train(out, *options):
    for _ in Run(load_recipe(RECIPE[0], [*RECIPE[1:], *options]), out).events():
        pass
    return newest_whole(Path(out) / "checkpoints")[0]


@pytest.fixture
def train_together(interpreters):
    """Trains in several processes, as under torchrun."""

    def call(processes, out, *options):
        interpreters.together(processes, UNNOISE, "train", *RECIPE, *options, "--out", out)
        return newest_whole(out / "checkpoints")[0]

    return call


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(tmp_path_factory.mktemp("alone") / "run")


def furthest(a, b, *prefixes):
    """The largest difference between two checkpoints: of the weights and averages, or of what has such names."""
    parts = [(a.part(prefix), b.part(prefix)) for prefix in prefixes or ("weights/", "ema/")]
    assert all(x.keys() == y.keys() for x, y in parts)
    return max(float((x[name] - y[name]).abs().max()) for x, y in parts for name in x)


def scores(checkpoint):
    return checkpoint.facts["scores"]["validation_loss"]


WAYS = {
    "micro batches": (1, ["machine.micro_batch=7"]),
    "three processes in micro batches": (3, ["machine.micro_batch=4"]),
    # 30 samples are 7, 8, 7 and 8: some have a micro batch more; and looking at the average must not change what is learned.
    "four processes that share the weights": (
        4,
        ["machine.parallel=fsdp", "machine.micro_batch=7", "training.validate_every=3"],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_twenty_steps_shared_out_are_those_of_one_process(train_together, alone, tmp_path, way):
    processes, options = WAYS[way]
    folder = tmp_path / "run"
    shared = train(folder, *options) if processes == 1 else train_together(processes, folder, *options)
    assert shared.step == 20
    assert furthest(alone, shared) < 1e-6
    assert scores(shared) == pytest.approx(scores(alone), rel=1e-5)
    assert (tmp_path / "run" / "model" / "model.yaml").is_file()


def test_matrices_that_two_processes_turn_by_turns_end_where_one_brings_them(train_together, tmp_path):
    ours = "training.optimizer=muon", "training.steps=8"
    one, two = train(tmp_path / "one", *ours), train_together(2, tmp_path / "two", *ours)
    # An orthogonal matrix magnifies what the order of sums does to small singular values.
    assert furthest(one, two) < 1e-5


STEADY = ("training.decay=constant",)
FSDP = ("machine.parallel=fsdp",)
CHANGES = {
    "two that share the weights, then three, then one": ((2, FSDP), (3, FSDP), (1, ())),
    "one, then two that share the weights, then two that have all of them": ((1, ()), (2, FSDP), (2, ())),
}


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    """Of one process whose learning rate does not depend on how many steps there will be."""
    return train(tmp_path_factory.mktemp("steady") / "run", *STEADY)


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_goes_on_with_another_number_of_processes_and_another_way_of_sharing(
    train_together, steady, tmp_path, change
):
    folder = tmp_path / "run"
    for steps, (processes, sharing) in zip((6, 12, 20), CHANGES[change], strict=True):
        options = (*STEADY, *sharing, f"training.steps={steps}")
        reached = train(folder, *options) if processes == 1 else train_together(processes, folder, *options)
        assert reached.step == steps
        assert (reached.path.suffix == ".sharded") == (sharing == FSDP)
        # The recipe differs in its steps alone, as when a run is lengthened.
        recipe = folder / "recipe.yaml"
        longer = {6: 12, 12: 20}.get(steps, steps)
        recipe.write_text(recipe.read_text().replace(f"  steps: {steps}\n", f"  steps: {longer}\n", 1))
    # The optimizer's memory, too: a step of AdamW without it would be many times as long as this.
    assert furthest(steady, reached, "") < 1e-6
    assert scores(reached) == pytest.approx(scores(steady), rel=1e-5)


LOSES_A_WORKER = """
import os, signal, sys
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.loop import Stepped
from unnoise.training.parallel import connected, leave, told_by_torchrun

out, recipe, *options = sys.argv[1:]
checked = load_recipe(recipe, options)
with connected(checked.machine.torch_device(told_by_torchrun().local_rank)) as processes:
    for event in Run(checked, out, processes=processes).events():
        first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if isinstance(event, Stepped) and event.step == 15 and processes.rank == 1 and first_life:
            os.kill(os.getpid(), signal.SIGKILL)
leave()
"""


def test_a_lost_worker_is_started_again_and_nothing_is_lost(alone, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(LOSES_A_WORKER)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    command = [*torchrun, str(script), str(tmp_path / "run"), *RECIPE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, damaged = newest_whole(tmp_path / "run" / "checkpoints")
    assert found.step == 20
    assert not damaged
    assert furthest(alone, found) < 1e-6


LOSES_A_MACHINE = """
import os, signal, sys
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.loop import Stepped
from unnoise.training.parallel import connected, leave, told_by_torchrun

out, recipe, *options = sys.argv[1:]
checked = load_recipe(recipe, options)
with connected(checked.machine.torch_device(told_by_torchrun().local_rank)) as processes:
    print("processes", processes.count, flush=True)
    for event in Run(checked, out, processes=processes).events():
        if isinstance(event, Stepped) and event.step == 15 and processes.rank == 1:
            for lost in (os.getppid(), os.getpid()):
                os.kill(lost, signal.SIGKILL)
leave()
"""


def test_a_run_goes_on_with_the_machines_that_are_left(alone, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(LOSES_A_MACHINE)
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3",
        "--rdzv-backend=c10d", "--rdzv-id=run",
    ]  # fmt: skip
    # The others meet at the host, which need not be there before them; and so short a last call is enough, as they start together.
    conf = "--rdzv-conf=last_call_timeout=10,keep_alive_interval=1,keep_alive_max_attempt=5,is_host="
    with port_for_others() as port, (tmp_path / "told").open("w+") as told:
        torchrun.append(f"--rdzv-endpoint=localhost:{port}")
        commands = [[*torchrun, conf + host, str(script), str(tmp_path / "run"), *RECIPE] for host in ("true", "false")]
        stays = subprocess.Popen(commands[0], stdout=told, stderr=subprocess.PIPE, text=True)
        leaves = subprocess.Popen(commands[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        errors = stays.communicate()[1]
        assert stays.returncode == 0, errors
        assert leaves.wait() == -signal.SIGKILL
        told.seek(0)
        assert told.read().split("\n") == ["processes 2", "processes 1", ""]
    found, damaged = newest_whole(tmp_path / "run" / "checkpoints")
    assert found.step == 20
    assert not damaged
    assert furthest(alone, found) < 1e-6


SPOILT = """
import sys
import torch
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training import lookout
from unnoise.training.loop import Diverged
from unnoise.training.parallel import connected, leave, told_by_torchrun

out, how, recipe, *options = sys.argv[1:]
checked, most_unseen = load_recipe(recipe, options), lookout.most_unseen
if how == "gradient":
    lookout.most_unseen = lambda _, settings: most_unseen(torch.device("cuda"), settings)
with connected(checked.machine.torch_device(told_by_torchrun().local_rank)) as processes:
    run = Run(checked, out, processes=processes)
    network, forward = run.state.network, run.state.network.forward

    def spoilt(*asked):
        answer = forward(*asked)
        once = network.training and run.state.step == 15 and float(run.state.rate) == 1
        if not once or processes.rank < processes.count - 1:
            return answer
        return answer * torch.nan if how == "loss" else answer + (0 * answer).square().sum().sqrt()

    network.forward = spoilt
    [(event, back)] = [(event, run.state.step) for event in run.events() if isinstance(event, Diverged)]
    assert (event.step, event.seen, back) == (16, 16 if how == "loss" else 20, 10), (event, back)
    print("told:", event.what)
leave()
"""


TOLD = {
    "loss": {1: "the loss is nan: 30 of the batch's 30 samples have none", 2: "the loss is nan: 15 of the batch's 30"},
    "gradient": dict.fromkeys((1, 2), "the norm of its gradient is nan: the largest loss of the batch's 30 samples is"),
}


@pytest.mark.parametrize("how", TOLD)
def test_all_processes_go_back_together_where_the_loss_or_gradient_of_one_is_no_number(interpreters, tmp_path, how):
    ends, named = [], []
    for count in (1, 2):
        out = tmp_path / str(count)
        interpreters.said = tmp_path / f"said by {count}"
        interpreters.together(count, SPOILT, out, how, *RECIPE)
        told = interpreters.told()
        assert len(told) == count
        assert all(TOLD[how][count] in line for line in told)
        named.append({re.search(r"number (\d+) of the training data", line)[1] for line in told})
        ends.append(newest_whole(out / "checkpoints")[0])
    assert [end.step for end in ends] == [20, 20]
    assert [float(end.tensors["rate"]) for end in ends] == [0.5, 0.5]
    assert furthest(*ends) < 1e-6
    assert all(len(each) == 1 for each in named)
    assert how == "loss" or named[0] == named[1]


OTHER_DATA = """
import os, sys
import torch
from unnoise.errors import DataError
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.parallel import connected, leave, told_by_torchrun

out, here, recipe, *options = sys.argv[1:]
os.chdir(os.path.join(here, str(told_by_torchrun().rank)))
with connected(torch.device("cpu")) as processes:
    try:
        Run(load_recipe(recipe, options), out, processes=processes)
    except DataError as error:
        print("told:", error)
    else:
        print("begun")
leave()
"""


def test_a_process_with_other_data_than_the_first_one_is_named_before_anything_is_trained(interpreters, tmp_path):
    points = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        np.save(tmp_path / str(rank) / "points.npy", points)
    command = tmp_path / "run", tmp_path, "spiral", "data.name=array", "data.path=points.npy", "training.batch_size=4"
    interpreters.together(2, OTHER_DATA, *command)
    assert interpreters.said.read_text().count("begun") == 2
    points[7, 1] += 1e-3
    np.save(tmp_path / "1" / "points.npy", points)
    interpreters.together(2, OTHER_DATA, *command)
    told = interpreters.told()
    where = platform.node()
    assert told == 2 * [
        f"told: process 1 of 2, on {where}, has other data than the first one: give all machines the same files"
    ]


CANNOT_MEASURE = """
import sys
import torch
from unnoise.errors import DataError
from unnoise.recipes.judging.while_training import Watcher
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.parallel import connected, leave

def measure(*_):
    raise DataError("too few samples")

Watcher.measure = measure
out, recipe, *options = sys.argv[1:]
with connected(torch.device("cpu")) as processes:
    try:
        for _ in Run(load_recipe(recipe, options), out, processes=processes).events():
            pass
    except DataError as error:
        print("told:", processes.rank, error)
        leave()
    except RuntimeError:  # of gloo, whose other process is gone
        leave()
"""


def test_the_first_process_saves_what_was_learned_where_it_alone_cannot_go_on(interpreters, tmp_path):
    options = "training.steps=20", "training.batch_size=8", "training.validation_size=16", "training.sample_every=0"
    run = tmp_path / "run"
    interpreters.together(2, CANNOT_MEASURE, run, "spiral", *options, "evaluation.every=96")
    assert "told: 0 too few samples" in interpreters.said.read_text()
    found, damaged = newest_whole(run / "checkpoints")
    assert (found.step, damaged) == (12, [])
    assert all(torch.isfinite(tensor).all() for tensor in found.tensors.values())


def test_shares_that_were_cut_short_are_passed_over(tmp_path):
    folder = tmp_path / "000000010.sharded"
    folder.mkdir()
    (folder / "__0_0.distcp").write_bytes(b"1234")
    (folder / "facts.json").write_text('{"step": 10, "sizes": {"__0_0.distcp": 5}, "facts": {}}')
    with pytest.raises(ValueError, match=r"__0_0\.distcp is missing or cut short"):
        read_facts(folder)
    found, damaged = newest_whole(tmp_path)
    assert found is None
    assert len(damaged) == 1


def test_every_sample_of_a_batch_is_one_processes():
    for count in (1, 2, 3, 7):
        parts = [Processes(rank, count).share(29) for rank in range(count)]
        assert [p for first, last in parts for p in range(first, last)] == list(range(29))


def test_more_processes_than_samples_are_refused():
    with pytest.raises(BadOption, match="3 samples cannot be shared by 4 processes: start at most 3"):
        Processes(0, 4).share(3)


def test_a_line_is_first_said_by_whoever_comes_first_in_each_life_of_the_processes(monkeypatch):
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True)
    told = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert [first_to_say("a") for _ in range(2)] == [True, True]  # nobody keeps what was said
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert [first_to_say(line) for line in "abab"] == [True, True, False, False]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert [first_to_say(line) for line in "aa"] == [True, False]


@pytest.mark.slow
def test_an_error_that_all_processes_know_is_told_once_and_one_that_one_knows_by_that_one(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    unnoise = [sys.executable, "-m", "unnoise", "train", "spiral", "--out", str(tmp_path / "run")]
    told = subprocess.run([*torchrun, *unnoise, "training.batch_size=1"], capture_output=True, text=True)
    assert told.returncode != 0
    line = "unnoise: training.batch_size: 1 samples cannot be shared by 2 processes: start at most 1"
    assert [each for each in told.stderr.splitlines() if each.startswith("unnoise: ")] == [line]
    script = 'test "$RANK" = 0 && exec sleep 60; exec "$@" training.steps=-1'  # the first process knows of nothing
    told = subprocess.run([*torchrun, "sh", "-c", script, "sh", *unnoise], capture_output=True, text=True)
    assert told.returncode != 0
    [line] = [each for each in told.stderr.splitlines() if each.startswith("unnoise: ")]
    assert line.startswith("unnoise: training.steps: must be at least ")


def test_a_finished_run_without_its_model_gets_it_again_from_several_processes(train_together, tmp_path):
    import shutil

    options = ["training.steps=2", "training.validation_size=16"]
    finished = train_together(2, tmp_path / "run", *options, "machine.parallel=fsdp")
    model = tmp_path / "run" / "model"
    stood = {file.name: file.read_bytes() for file in model.iterdir()}
    shutil.rmtree(model)
    again = train_together(2, tmp_path / "run", *options, "machine.parallel=fsdp")
    assert (again.step, finished.step) == (2, 2)
    assert {file.name: file.read_bytes() for file in model.iterdir()} == stood


def test_only_the_first_process_asks_whether_another_run_is_writing(tmp_path):
    from unnoise.recipes.claim import claim
    from unnoise.recipes.lock import locked

    (tmp_path / "recipe.yaml").write_text(load_recipe("digits").yaml())
    other = load_recipe("digits", ["training.steps=3"])
    assert claim(tmp_path, load_recipe("digits"))
    assert not claim(tmp_path, other)  # no step was ever saved
    with locked(tmp_path):
        assert not claim(tmp_path, other, first=False)
        with pytest.raises(RunFolderError, match="another process is training"):
            claim(tmp_path, other)


def test_torchrun_tells_who_a_process_is_and_how_many_are_on_its_machine(monkeypatch):
    told = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert told_by_torchrun() == Processes(rank=5, count=8, local_rank=1, local_count=4)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert told_by_torchrun().local_count == 1


def test_alone_nothing_is_said_to_anybody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert told_by_torchrun() == ALONE
    with connected(torch.device("cpu")) as processes:
        assert processes == ALONE
        assert not torch.distributed.is_initialized()
    x = torch.ones(3)
    assert ALONE.add(x) is x
    assert ALONE.tell("it") == "it"
    assert ALONE.any(True, x.device)
    ALONE.wait()


def test_shares_that_find_no_room_leave_what_stood_before_and_nothing_half_written(tmp_path, monkeypatch):
    from unnoise.training.shares import save_shares

    cls = networks["mlp"]
    state = TrainState(cls((2,), config=cls.Config(width=16)), TrainingSettings())
    before = save_shares(tmp_path, state, {}, ALONE)
    state.step = 5

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for place in ("torch.distributed.checkpoint.filesystem.os.fsync", "unnoise.training.shares.write_atomically"):
        with monkeypatch.context() as patched:
            patched.setattr(place, lambda *_: full(_))
            with pytest.raises(OSError, match="No space left") as caught:
                save_shares(tmp_path, state, {}, ALONE)
        assert caught.value.errno == errno.ENOSPC
        assert list(tmp_path.iterdir()) == [before]
    assert read_facts(before)["step"] == 0


def test_shares_of_another_network_are_refused(tmp_path):
    from unnoise.training.shares import load_shares, save_shares

    def state(width):
        cls = networks["mlp"]
        return TrainState(cls((2,), config=cls.Config(width=width)), TrainingSettings())

    written, same = state(16), state(16)
    path = save_shares(tmp_path, written, {"a": 1}, ALONE)
    assert read_facts(path)["facts"] == {"a": 1}
    assert not torch.equal(same.masters.vector, written.masters.vector)
    load_shares(path, same)
    assert torch.equal(same.masters.vector, written.masters.vector)
    with pytest.raises(RunFolderError, match="another network"):
        load_shares(path, state(24))
