"""What every test stands on: quiet threads, a cache of its own, slow tests only on request, quick new processes, a small model."""

import contextlib
import multiprocessing
import os
import re
import socket

# Read once, when torch is first imported: threads that spin while they wait slow down everything else on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

if "OMP_NUM_THREADS" in os.environ:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """What a test draws without a seed of its own does not depend on the tests that ran before it in the same process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def compiled_kernels(tmp_path_factory):
    """Where compiled kernels are kept: to compile them takes seconds, which every process with an empty cache would spend anew."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kernels"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory, compiled_kernels):
    """Nothing that a person has cached is seen by the tests, and nothing that they cache is left behind."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "kernels").symlink_to(compiled_kernels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder))
        yield


@pytest.fixture
def empty_cache(tmp_path, monkeypatch, compiled_kernels):
    """A cache of this test alone, in which there are the compiled kernels and nothing else."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "kernels").symlink_to(compiled_kernels)
    monkeypatch.setenv("UNNOISE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def quick_features():
    """Features of data are learned from a tenth of what they are usually shown: for tests that need some, and not good ones."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SHOWN", "FEW_SHOWN"):
            patch.setattr(f"unnoise.evaluation.features.own.{name}", 3000)
        yield


INTO_ITS_PLACE = """
import os, sys
os.environ.clear()
os.environ.update(environment)
os.chdir(folder)
for number in (1, 2):
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
# Line by line, in one piece each, so that what several processes say is not mixed.
sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
sys.argv = ["-c", *arguments]
"""
# Also what some runs import on their way: those whose weights are shared out import torch's compiler.
PRELOADED = [
    "torch", "torch._dynamo", "torch.utils.tensorboard", "torch.distributed.fsdp", "torch.distributed.checkpoint",
    "matplotlib.pyplot", "unnoise.cli.train", "unnoise.recipes.run", "unnoise.model",
]  # fmt: skip


@contextlib.contextmanager
def port_for_others():
    """The number of a port on which processes that are started meanwhile may listen, and which nobody else is given."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))  # and does not listen: so they may bind to it too
        yield str(held.getsockname()[1])


class Interpreters:
    """Starts processes as `python -c CODE ARGUMENTS` does, but where torch and the package are imported already.

    They come from a server that has imported them, of which each is a fork: an import costs seconds, and the tests that kill
    processes start many. What a process says, on stdout and stderr, is in the file `said`.
    """

    def __init__(self, said):
        self.said, self._context, self._all = said, multiprocessing.get_context("forkserver"), []
        self._context.set_forkserver_preload(PRELOADED)

    def start(self, code, *arguments, **environment):
        """A process; its `pid`, `is_alive`, `join` and `exitcode` are those of multiprocessing."""
        place = {
            "environment": {**os.environ, **environment}, "folder": os.getcwd(), "said": str(self.said),
            "arguments": [str(argument) for argument in arguments], "__name__": "__main__",
        }  # fmt: skip
        process = self._context.Process(target=exec, args=(INTO_ITS_PLACE + code, place))
        process.start()
        self._all.append(process)
        return process

    def run(self, code, *arguments, **environment):
        """The exit code of a process that was waited for; minus the number of the signal that ended it."""
        process = self.start(code, *arguments, **environment)
        process.join()
        return process.exitcode

    def together(self, count, code, *arguments, **environment):
        """Several at once, told of each other by the variables that torchrun sets; all must end well."""
        told = {**environment, "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(count)}
        told |= {"LOCAL_WORLD_SIZE": str(count), "UNNOISE_THREADS": "1"}  # tests run beside each other
        with port_for_others() as port:
            told["MASTER_PORT"] = port
            members = [self.start(code, *arguments, **told, RANK=str(k), LOCAL_RANK=str(k)) for k in range(count)]
            for process in members:
                process.join()
        assert [process.exitcode for process in members] == [0] * count, self.said.read_text()

    def told(self):
        """The rests of lines from `told: ` on; something else that was said without an end of its line may stand before it."""
        return re.findall("told: .*", self.said.read_text())

    def end(self):
        """Ends those that a failed test has left behind."""
        for process in self._all:
            with contextlib.suppress(ValueError):
                process.kill()
                process.join()


@pytest.fixture
def interpreters(tmp_path):
    """Starts new processes; see `Interpreters`."""
    made = Interpreters(tmp_path / "said.txt")
    yield made
    made.end()


def make_model(kind="points", labels=("a", "b"), seed=0, variance=False, self_conditioning=False, process="cosine"):
    """A model whose weights all matter, and are those of nothing that was learned."""
    from unnoise.blueprint import Blueprint
    from unnoise.codecs.identity import IdentityCodec
    from unnoise.data.base import Spec
    from unnoise.model import Model
    from unnoise.nn.base import networks
    from unnoise.process.base import schedules
    from unnoise.sampling import SamplingSettings

    image = kind == "image"
    spec = Spec(kind, (1, 6, 6) if image else (2,), labels)
    network = {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1} if image else {"name": "mlp", "width": 8}
    codec = IdentityCodec.pixels() if image else IdentityCodec((0.5, -1.0), (2.0, 0.3))
    blueprint = Blueprint(
        spec, codec, schedules.build(process), "v", 0.7, variance, networks.build(network), self_conditioning
    )
    model = Model(blueprint, blueprint.build(seed), SamplingSettings(steps=4), {"steps": 12})
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for p in model.denoiser.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def pytest_terminal_summary(terminalreporter):
    """Says loudly which tests could not run for want of a browser, so that nobody takes them for passed."""
    unrun = [each for each in terminalreporter.stats.get("skipped", ()) if "no Chromium" in str(each.longrepr)]
    if unrun:
        terminalreporter.write_line(
            f"WARNING: {len(unrun)} browser tests of the studio did NOT run: no Chromium was found "
            "(install chromium or chromium-headless-shell, or name one with UNNOISE_BROWSER)",
            yellow=True, bold=True,
        )  # fmt: skip
