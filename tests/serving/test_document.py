"""The page on the server tells the truth: its code runs against a server, and prints what it says."""

import json
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from unnoise.engine.settings import EngineSettings
from unnoise.model import Model
from unnoise.serving.settings import ServingSettings

from ..conftest import make_model
from .conftest import serving

PAGE = (Path(__file__).parent.parent.parent / "docs" / "server.md").read_text()
HERE = "http://127.0.0.1:8000"


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A server of a model that knows ten digits, at the place from which the page is read."""
    from dataclasses import replace

    monkeypatch.chdir(tmp_path)
    model = make_model("image")
    blueprint = replace(model.blueprint, spec=replace(model.spec, class_names=tuple("0123456789")))
    Model(blueprint, blueprint.build(0), model.sampling).save(tmp_path / "runs" / "digits")
    with serving({"digits": "runs/digits"}, tmp_path / "server") as client:
        yield client


def test_its_code_runs_and_prints_what_it_says(digits, tmp_path, capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    names = {}
    exec(compile(code.replace(HERE, str(digits.base_url).rstrip("/")), "docs/server.md", "exec"), names)
    streamed, job, engine = capsys.readouterr().out.splitlines()
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert eval(streamed) == [partial] * 3 + [completed]
    assert job == "done 20 20"
    assert len(names["edited"].data) == 2
    assert names["recipe"]["sampler"] == {"name": "ddim", "eta": 0.5}
    assert names["picture"].startswith(b"\x89PNG")
    asked, made = map(int, re.findall(r"\d+", engine))
    assert made <= asked == 20 + 21 + 22 + 23
    assert {file.name for file in tmp_path.glob("*.png")} == {
        *(f"three-{k}.png" for k in range(2)),
        *(f"{k}.png" for k in range(4)),
    }
    names["client"].close()


def test_its_curl_command_runs(digits):
    (command,) = re.findall(r"^curl .*?\n(?=```)", PAGE, re.DOTALL | re.MULTILINE)
    assert shutil.which("curl") is not None, "curl is needed to try the command of the page"
    done = subprocess.run(
        ["sh", "-c", command.replace(HERE, str(digits.base_url).rstrip("/"))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    answer = json.loads(done.stdout)
    assert len(answer["data"]) == 2
    assert digits.get(answer["data"][1]["url"]).content.startswith(b"\x89PNG")


def test_its_tables_name_what_there_is(client):
    options = set(re.findall(r"`(engine|serving)\.(\w+)`", PAGE))
    known = {("engine", each.name) for each in fields(EngineSettings)} | {
        ("serving", each.name) for each in fields(ServingSettings)
    }
    assert options <= known
    paths = client.get("/openapi.json").json()["paths"]
    patterns = [re.sub(r"\{\w+\}", r"[^/]+", path) for path in paths]
    for method, route in re.findall(r"`(GET|POST|DELETE) (/\S+)`", PAGE):
        assert any(re.fullmatch(pattern, route) for pattern in patterns), (method, route)
    for name in re.findall(r"`(\w[\w-]*)`", PAGE.partition("`/sdapi/v1` answers")[2].partition(" as they expect")[0]):
        assert f"/sdapi/v1/{name}" in paths
