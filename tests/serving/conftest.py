"""Small models behind a real server on a free port, and clients that ask it."""

import json
import socket
import threading
from contextlib import contextmanager

import httpx
import pytest

from unnoise.engine.engine import Engine
from unnoise.engine.results import Results
from unnoise.engine.settings import EngineSettings
from unnoise.engine.shelf import Shelf
from unnoise.serving.app import create
from unnoise.serving.running import listening, server_of
from unnoise.serving.settings import ServingSettings

from ..conftest import make_model

SLOW = {"n": 64, "steps": 1000}
"""What takes longer than any test."""


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


@contextmanager
def somebody_waits(client, path, asked):
    """Somebody waits for the answer to a request, in this block, and leaves without it."""
    body, url = json.dumps(asked).encode(), client.base_url
    headers = {"host": url.host, "content-type": "application/json", "content-length": len(body)}
    if "authorization" in client.headers:
        headers["authorization"] = client.headers["authorization"]
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        yield


def error_of(answer, status):
    """The one line of an answer that refuses."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "\n" not in error["message"]
    assert "Traceback" not in error["message"]
    return error["message"]
