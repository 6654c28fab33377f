"""In which numbers a network computes."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from unnoise.errors import BadOption
from unnoise.precision import (
    compute_dtype,
    cores_here,
    dtype_of,
    find_device,
    fit_threads,
    keep_freed_memory,
    keep_little,
    lower,
    multiplies_bf16,
    processors,
    processors_paid_for,
)

CPU = torch.device("cpu")


def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 4), nn.LayerNorm(4))


def test_all_weights_are_lowered_but_those_of_normalisations():
    network = net()
    assert dtype_of(network) == torch.float32
    lower(network, torch.bfloat16)
    assert [p.dtype for p in network.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 2 + [
        torch.bfloat16
    ] * 2 + [torch.float32] * 2
    assert dtype_of(network) == torch.bfloat16
    assert network(torch.randn(2, 3, 3, 3).bfloat16()).dtype == torch.bfloat16


def test_a_module_may_say_that_it_stays():
    class Delicate(nn.Linear):
        keeps_float32 = True

    network = nn.Sequential(nn.Linear(2, 2), Delicate(2, 2))
    lower(network, torch.bfloat16)
    assert network[0].weight.dtype == torch.bfloat16
    assert network[1].weight.dtype == torch.float32


def test_float32_leaves_a_network_as_it_is():
    network = net().double()
    lower(network, torch.float32)
    assert dtype_of(network) == torch.float64
    assert dtype_of(nn.Flatten()) is None


def test_auto_follows_the_hardware_and_names_do_not():
    assert compute_dtype("fp32", CPU) == torch.float32
    assert compute_dtype("bf16", CPU) == torch.bfloat16
    assert (compute_dtype("auto", CPU) == torch.bfloat16) == multiplies_bf16(CPU)
    assert not multiplies_bf16(torch.device("meta"))
    with pytest.raises(BadOption, match="expected one of auto, fp32, bf16, got 'fp16'"):
        compute_dtype("fp16", CPU)


def test_the_allocator_is_asked_where_it_can_be():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_every_process_has_a_gpu_of_its_own_or_is_told_how_many_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [find_device("auto", rank) for rank in (0, 1)] == [torch.device("cuda", rank) for rank in (0, 1)]
    for name in ("auto", "cuda"):
        with pytest.raises(BadOption, match="3 processes or more were started on a machine with 2 GPUs"):
            find_device(name, 2)


@pytest.mark.parametrize(
    ("files", "paid"),
    [
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_what_a_container_gets_of_the_processors_is_read_from_its_control_group(tmp_path, files, paid):
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert processors_paid_for(tmp_path) == paid


@pytest.fixture
def threads(monkeypatch):
    """Asks how many threads a process gets, of an environment and a machine; torch has eight, unless it is told otherwise."""
    before = torch.get_num_threads()

    def ask(paid=None, cores=64, has=8, **environment):
        for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "UNNOISE_THREADS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("unnoise.precision.processors_paid_for", lambda: paid)
        monkeypatch.setattr("unnoise.precision.cores_here", lambda: cores)
        torch.set_num_threads(has)
        found = fit_threads()
        assert found == torch.get_num_threads() == fit_threads()  # to ask again changes nothing
        return found

    yield ask
    torch.set_num_threads(before)


def test_no_more_threads_run_than_are_paid_for_unless_a_person_said_how_many(threads):
    assert threads(paid=2.5, OMP_NUM_THREADS="8") == 8
    assert threads(paid=2.5) == 2
    assert threads(paid=0.5) == 1
    assert [threads(paid=None, has=2), threads(paid=6.0, has=2)] == [2, 2]  # more than there are make none


def test_processes_that_torchrun_started_share_the_cores_out(threads):
    two = {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}  # as torchrun sets them for two processes
    assert threads(has=1, cores=6, **two) == 3
    assert threads(has=1, cores=6, paid=4.0, **two) == 2
    assert threads(has=1, cores=6, paid=2.5, **two) == 1
    assert threads(has=1, cores=2, OMP_NUM_THREADS="1", LOCAL_WORLD_SIZE="8") == 1
    assert threads(has=6, cores=6, LOCAL_WORLD_SIZE="2") == 3  # started by another than torchrun


SHARES = """
import os
from pathlib import Path
from unnoise import precision

precision.cores_here, precision.processors_paid_for = lambda: 6, lambda: None
said = f"{os.environ['OMP_NUM_THREADS']} {precision.fit_threads()}"
Path(os.environ["SAID"], os.environ["RANK"]).write_text(said)
"""


def test_torchrun_itself_says_one_thread_where_nobody_has_said_anything(tmp_path):
    script = tmp_path / "shares.py"
    script.write_text(SHARES)
    nobodys = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "UNNOISE_THREADS")}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    subprocess.run(torchrun, check=True, capture_output=True, env={**nobodys, "SAID": str(tmp_path)})
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["1 3", "1 3"]


def test_what_a_person_said_of_threads_stays(threads):
    assert threads(has=1, OMP_NUM_THREADS="1") == 1
    assert threads(has=1, OMP_NUM_THREADS="1", LOCAL_WORLD_SIZE="1") == 1
    assert threads(has=3, OMP_NUM_THREADS="3", LOCAL_WORLD_SIZE="2") == 3
    assert threads(has=1, OMP_NUM_THREADS="1", LOCAL_WORLD_SIZE="2", UNNOISE_THREADS="1") == 1
    assert threads(paid=2.0, UNNOISE_THREADS="5") == 5


@pytest.mark.parametrize("text", ["0", "-1", "two", ""])
def test_a_number_of_threads_that_is_none_is_refused(threads, text):
    with pytest.raises(BadOption, match=f"UNNOISE_THREADS: expected a number of threads, 1 or more, got '{text}'"):
        threads(UNNOISE_THREADS=text)


def test_two_threads_of_a_core_are_one_core(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4}, raising=False)
    assert cores_here(tmp_path / "nothing is told") == 3
    for number in range(8):
        place = tmp_path / f"cpu{number}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    assert cores_here(tmp_path) == 2


def test_what_the_environment_says_of_ready_layers_stays(monkeypatch):
    for told, kept in (("7", "7"), (None, "256")):
        monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
        if told is not None:
            monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", told)
        keep_little()
        assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == kept


HEAPS = """
import ctypes, os, platform, sys, threading
from unnoise.precision import keep_little

if sys.argv[2] == "little":
    keep_little()
gate, libc = threading.Barrier(9), ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

def hold():
    libc.malloc(1000)
    gate.wait()

for _ in range(8):
    threading.Thread(target=hold).start()
gate.wait()
if platform.libc_ver()[0] == "glibc":
    libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
    told = libc.fopen(os.fsencode(sys.argv[1]), b"w")
    libc.malloc_info(0, told)
    libc.fclose(told)
    print(open(sys.argv[1]).read().count("<heap "))
"""


def test_the_threads_of_a_server_share_two_heaps(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found = []
    for way in ("usual", "little"):
        command = [sys.executable, "-c", HEAPS, str(tmp_path / way), way]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found.append(int(done.stdout or 0))
    if platform.libc_ver()[0] == "glibc":
        assert found[0] > 4
        assert found[1] <= 2
    else:
        assert found == [0, 0]


@pytest.mark.parametrize(("paid", "there"), [(None, 6), (2.0, 2), (1.5, 1), (0.5, 1), (64.0, 6)])
def test_processors_are_those_that_one_may_run_on_and_pays_for(monkeypatch, paid, there):
    monkeypatch.setattr("unnoise.precision.processors_paid_for", lambda: paid)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert processors() == there
