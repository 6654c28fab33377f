"""A studio on this machine: a model that learned for a moment, an engine, and the page, served as a browser sees it."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import unnoise
from unnoise.engine.engine import Engine
from unnoise.engine.job import Job
from unnoise.engine.results import Results
from unnoise.engine.shelf import Shelf
from unnoise.model import Model

MODEL = "moons"


@dataclass
class Studio:
    url: str
    folder: Path
    engine: Engine
    model: Model

    def ask(self, method: str, path: str, value: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """The status and what was answered, JSON where it is that."""
        body = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
        kind = {"content-type": "application/json"} if body is not None and not isinstance(value, bytes) else {}
        request = urllib.request.Request(
            f"{self.url}/{path}", data=body, method=method, headers={**kind, **(headers or {})}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, content, told = answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            status, content, told = error.code, error.read(), error.headers
        return status, json.loads(content) if "json" in told.get("content-type", "") else content

    def get(self, path: str) -> Any:
        """What is answered to a question that must succeed."""
        status, answer = self.ask("GET", path)
        assert status == 200, answer
        return answer

    def make(self, **asked: Any) -> dict[str, Any]:
        """The facts of a request that was made to its end."""
        status, facts = self.ask("POST", "api/jobs", {"model": MODEL, **asked})
        assert status == 200, facts
        assert self.engine.job(facts["id"]).wait(60)
        return self.get(f"api/jobs/{facts['id']}")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run folder whose model has learned for a moment."""
    folder = tmp_path_factory.mktemp("studio") / "runs" / MODEL
    unnoise.train(
        "two-moons-labels", folder, progress=False, data__num_points=200, training__steps=60, training__sample_every=0,
        training__validate_every=60, network__width=32,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def served(trained):
    """The page, served; trainings of it read data from the folder around the runs alone."""
    import uvicorn

    from unnoise.serving.app import create
    from unnoise.studio.pages import page_routes, room_routes

    folder = trained.parent.parent
    engine = Engine(Shelf({MODEL: trained}), Results(folder / "results"))
    rooms = room_routes(engine, runs=folder / "runs", models=folder / "models", data=[folder])
    app = create(engine, routers=[rooms], open_routers=[page_routes()])
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield Studio(f"http://127.0.0.1:{listening.getsockname()[1]}", folder, engine, Model.load(trained))
    server.should_exit = True
    thread.join(30)
    listening.close()


@pytest.fixture
def studio(served):
    """The page, served; what a test has asked for ends with it."""
    yield served
    for job in served.engine.jobs():
        job.cancel()
        assert job.wait(60)


@pytest.fixture
def slow_steps(monkeypatch):
    """Steps that take as long as those of a large model, so that no work is done before a test has ended it."""
    tell = Job.tell
    monkeypatch.setattr(Job, "tell", lambda *told: (time.sleep(0.03), tell(*told)))


@pytest.fixture
def painter(studio, tmp_path):
    """A model of colour pictures, 32 x 32, that is asked with words; on the shelf while a test needs it."""
    recipe = {
        "data": {"name": "shapes", "number": 48, "size": 32, "captions": "all"},
        "process": "flow",
        "denoiser": {"name": "velocity"},
        "conditioning": {"text": {"encoder": {"name": "transformer", "width": 16, "depth": 1, "heads": 2}}},
        "network": {"name": "latent_unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [1], "heads": 2},
        "objective": {"name": "mse", "noise": {"offset": 0.05}},
        "training": {"steps": 2, "batch_size": 8, "sample_every": 0, "validation_size": 16, "validation_share": 0.2},
        "machine": {"precision": "fp32"},
        "sampling": {"steps": 2, "sampler": "euler"},
    }  # fmt: skip
    model = unnoise.train(recipe, tmp_path / "painter", progress=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # so much learning that words mean something would take minutes
        for weights in model.denoiser.parameters():
            weights.add_(0.1 * torch.randn(weights.shape, generator=generator))
    model.save(tmp_path / "painter/model")
    studio.engine.shelf.add(tmp_path / "painter", "painter")
    yield model
    studio.engine.shelf.remove("painter")
