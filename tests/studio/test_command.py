"""`unnoise studio`: started as a person starts it, asked, and stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request


def begun(folder):
    """The command, started in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "unnoise", "studio", "--port", "0", "--no-browser"],
        cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "UNNOISE_API_KEY": ""},
    )  # fmt: skip


def place_of(process):
    """Where it says that the studio is."""
    return re.search(r"http://localhost:\d+", process.stderr.readline())[0].replace("localhost", "127.0.0.1")


def test_the_command_shows_the_models_that_stand_there_and_ends_with_ctrl_c(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "runs/moons")
    process = begun(tmp_path)
    try:
        url = place_of(process)
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert b"unnoise studio" in answer.read()
        with urllib.request.urlopen(f"{url}/api/models", timeout=60) as answer:
            assert [each["name"] for each in json.load(answer)["models"]] == ["moons"]
        with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as answer:
            assert json.load(answer)["data"][0]["id"] == "moons"
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert "Traceback" not in rest, rest
    assert "stopping after the requests under way, at most 30 s; Ctrl-C again" in rest


def test_where_no_model_stands_those_that_come_with_unnoise_are_there_and_not_loaded_yet(tmp_path):
    (tmp_path / "ready").mkdir()  # of somebody else, and no model
    process = begun(tmp_path)
    try:
        url = place_of(process)
        with urllib.request.urlopen(f"{url}/api/models", timeout=60) as answer:
            told = json.load(answer)
        assert [each["name"] for each in told["models"]] == ["ready", "ready-emoji"]
        assert not any(each["error"] for each in told["models"])
        assert told["loaded"] == 0
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert "Traceback" not in rest, rest
