"""`unnoise serve`: started as a person starts it, asked, and stopped."""

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

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.model import Model, load
from unnoise.nn.base import networks
from unnoise.process.base import schedules
from unnoise.sampling import SamplingSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    blueprint = Blueprint(
        Spec("image", (1, 6, 6), ("a", "b")), IdentityCodec.pixels(), schedules.build("cosine"), "v", 0.7, False,
        networks.build({"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1}),
    )  # fmt: skip
    model = Model(blueprint, blueprint.build(0), SamplingSettings(steps=4))
    with torch.no_grad():
        for p in model.denoiser.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    return model.save(tmp_path_factory.mktemp("models") / "digits")


def ask(url, body=None, key=None):
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        return json.loads(answer.read()) if "json" in answer.headers["content-type"] else answer.read()


def test_a_server_is_started_asked_and_stopped_and_finishes_what_it_accepted(folder, tmp_path):
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

    made = Results(tmp_path / "results").samples(job)
    assert torch.equal(made.tensor, load(folder).sample(8, steps=150, seed=3).tensor)


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
