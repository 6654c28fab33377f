"""Small models behind a real server on a free port, and clients that ask it."""

import threading
from contextlib import contextmanager

import httpx
import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.engine.engine import Engine
from unnoise.engine.results import Results
from unnoise.engine.settings import EngineSettings
from unnoise.engine.shelf import Shelf
from unnoise.model import Model
from unnoise.nn.base import networks
from unnoise.process.base import schedules
from unnoise.sampling import SamplingSettings
from unnoise.serving.app import create
from unnoise.serving.running import listening, server_of
from unnoise.serving.settings import ServingSettings

SLOW = {"n": 64, "steps": 1000}
"""What takes longer than any test."""


def make_model(kind, shape=None):
    """A model whose weights all matter, and are those of nothing that was learned."""
    spec = Spec(kind, shape or ((1, 6, 6) if kind == "image" else (2,)), ("a", "b"))
    network = (
        {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1}
        if kind == "image"
        else {"name": "mlp", "width": 8}
    )
    codec = IdentityCodec.pixels() if kind == "image" else IdentityCodec((0.0,) * 2, (1.0,) * 2)
    blueprint = Blueprint(spec, codec, schedules.build("cosine"), "v", 0.7, False, networks.build(network))
    model = Model(blueprint, blueprint.build(0), SamplingSettings(steps=4), {"steps": 12})
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for p in model.denoiser.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: str(make_model(kind).save(root / name)) for name, kind in (("digits", "image"), ("spiral", "points"))}


@contextmanager
def serving(folders, results, engine=None, **settings):
    """A server on a free port; gives a client, whose `engine` is the one behind it."""
    engine = Engine(Shelf(folders, memory=2**30), Results(results), engine or EngineSettings())
    limits = ServingSettings(grace=1.0, **settings)
    ready, sock = threading.Event(), listening("127.0.0.1", 0)
    server = server_of(create(engine, limits), engine, limits, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    assert ready.wait(30)
    with httpx.Client(base_url=f"http://127.0.0.1:{sock.getsockname()[1]}", timeout=60) as client:
        client.engine = engine
        try:
            yield client
        finally:
            for job in engine.jobs():
                job.cancel()
            server.should_exit = True
            thread.join(30)
            sock.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(folders, tmp_path_factory):
    """A server without keys or limits that all tests of a file share."""
    with serving(folders, tmp_path_factory.mktemp("results")) as client:
        yield client


@pytest.fixture
def start(folders, tmp_path):
    """Starts servers with settings of their own."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda engine=None, **settings: stack.enter_context(
            serving(folders, tmp_path / "results", engine, **settings)
        )


def error_of(answer, status):
    """The one line of an answer that refuses."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "\n" not in error["message"]
    assert "Traceback" not in error["message"]
    return error["message"]
