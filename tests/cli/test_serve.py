"""`unnoise serve`: started as a person starts it, asked, and stopped."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch

from unnoise.model import load

from ..conftest import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model("image").save(tmp_path_factory.mktemp("models") / "digits")


ASKED = {"n": 2, "label": "a", "steps": 5, "seed": 7, "guidance": 2.0, "sampler": "heun"}


def ask(url, body=None, key=None):
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        return json.loads(answer.read()) if "json" in answer.headers["content-type"] else answer.read()


def test_a_server_is_started_asked_and_stopped_and_finishes_what_it_accepted(folder, tmp_path, unnoise):
    keys = tmp_path / "keys.txt"
    keys.write_text("ann: a-long-and-secret-key\n")
    command = [
        sys.executable, "-m", "unnoise", "serve", folder, f"again={folder}", "--port", "0", "--keys", keys,
        "--results", tmp_path / "results", "engine.active=2", "serving.grace=20", "--strict",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            line = process.stderr.readline()
            assert line.startswith("again, digits at http://127.0.0.1:"), line
            url, key = line.split()[3], "a-long-and-secret-key"
            with pytest.raises(urllib.error.HTTPError, match="401"):
                ask(f"{url}/v1/models")
            assert [each["id"] for each in ask(f"{url}/v1/models", key=key)["data"]] == ["again", "digits"]
            images = ask(f"{url}/v1/images/generations", {"model": "digits", **ASKED}, key)["data"]
            job = ask(f"{url}/v1/jobs", {"model": "digits", "n": 8, "steps": 150, "seed": 3}, key)["id"]
            while not ask(f"{url}/v1/jobs/{job}", key=key)["step"]:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert key not in said
    from unnoise.engine.results import Results

    typed = [f"--{'number' if name == 'n' else name}={value}" for name, value in ASKED.items()]
    assert unnoise("sample", folder, *typed, "-o", tmp_path / "typed").code == 0
    files = sorted((tmp_path / "typed").iterdir())
    assert [base64.b64decode(each["b64_json"]) for each in images] == [file.read_bytes() for file in files]
    assert len(files) == 2
    made = Results(tmp_path / "results").samples(job)
    assert torch.equal(made.tensor, load(folder).sample(8, steps=150, seed=3).tensor)


def test_ctrl_c_says_what_is_awaited_and_a_second_one_stops_at_once(folder, tmp_path):
    command = [
        sys.executable, "-m", "unnoise", "serve", folder, "--port", "0", "--results", tmp_path / "results", "serving.grace=300",
    ]  # fmt: skip
    environment = {**os.environ, "UNNOISE_API_KEY": ""}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            url = process.stderr.readline().split()[2]
            job = ask(f"{url}/v1/jobs", {"model": "digits", "n": 500, "steps": 1000})["id"]
            while not ask(f"{url}/v1/jobs/{job}")["step"]:
                time.sleep(0.01)
            with urllib.request.urlopen(f"{url}/v1/jobs/{job}/events", timeout=30):  # somebody listens all the while
                process.send_signal(signal.SIGINT)
                line = process.stderr.readline()
                assert line == (
                    "stopping after the requests under way, at most 300 s; Ctrl-C again stops at once and gives them up\n"
                )
                time.sleep(1.0)
                assert process.poll() is None
                process.send_signal(signal.SIGINT)
                said = process.communicate(timeout=20)[1]
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert list((tmp_path / "results/waiting").glob(f"*{job}*"))  # it is made after the next start


def test_several_processes_need_ray_and_say_so(folder, tmp_path, refused, monkeypatch):
    typed = ["serve", folder, "--results", tmp_path / "results", "--port", "0", "--replicas"]
    assert "--replicas: must be at least 1, got 0" in refused(*typed, "0")
    for module in ("ray.serve", "ray"):
        monkeypatch.setitem(sys.modules, module, None)
        said = refused(*typed, "2")
        assert f"--replicas needs {module}, which is not installed: pip install 'unnoise[scale]'" in said


def test_what_is_typed_wrongly_is_one_line(folder, tmp_path, refused):
    results = ["--results", tmp_path / "results", "--port", "0"]
    assert "there is no model at" in refused("serve", tmp_path / "nothing", *results)
    assert "two models would be called 'digits'" in refused("serve", folder, f"digits={tmp_path}", *results)
    assert "is no name for a model" in refused("serve", f"../x={folder}", *results)
    assert "engine.activee: there is no such option; did you mean 'active'" in refused(
        "serve", folder, "engine.activee=3", *results
    )
    assert "serving.rate: must be at least 0" in refused("serve", folder, "serving.rate=-1", *results)
    assert "--memory: expected gigabytes above 0" in refused("serve", folder, "--memory", "0", *results)
    assert "cannot listen at 127.0.0.1, port 99999" in refused("serve", folder, *results[:2], "--port", "99999")
    keys = tmp_path / "keys.txt"
    keys.write_text("nonsense\n")
    assert "expected NAME: KEY" in refused("serve", folder, "--keys", keys, *results)
