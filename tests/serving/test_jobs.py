"""`/v1/jobs`: accepted at once, watched as they go, cancelled, and taken in any format."""

import io
import json
import time

import numpy as np
from PIL import Image

from unnoise.model import load

from .conftest import SLOW, error_of, somebody_waits


def submit(client, **asked):
    answer = client.post("/v1/jobs", json={"model": "digits", **asked})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return answer.json()["id"]


def events(client, number, **query):
    """All events of a job, to its end: their kinds and what they tell."""
    found = []
    with client.stream("GET", f"/v1/jobs/{number}/events", params=query) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for block in answer.read().decode().strip().split("\n\n"):
            lines = dict(line.partition(": ")[::2] for line in block.splitlines())
            if "event" in lines:
                found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_job_is_accepted_watched_and_done(client):
    number = submit(client, n=4, steps=60, guidance=2.0, label="a", seed=3)
    told = events(client, number, previews=True)
    assert told[-1][0] == "done"
    assert {kind for kind, _ in told[:-1]} <= {"progress"}
    steps = [facts["step"] for _, facts in told]
    assert steps == sorted(steps)
    assert steps[-1] == 60
    assert told[-1][1]["calls"] == 60
    assert all(facts["recipe"]["seed"] == 3 for _, facts in told)
    facts = client.get(f"/v1/jobs/{number}").json()
    assert facts["state"] == "done"
    assert events(client, number)[-1][0] == "done"  # whoever comes late hears the end
    assert number in [each["id"] for each in client.get("/v1/jobs").json()["data"]]


def test_previews_are_pictures_and_only_for_those_who_ask(client):
    number = submit(client, **SLOW)
    while client.get(f"/v1/jobs/{number}").json()["step"] < 2:
        time.sleep(0.01)
    answer = client.get(f"/v1/jobs/{number}/preview.png", params={"what": "noisy"})
    assert Image.open(io.BytesIO(answer.content)).format == "PNG"
    assert int(answer.headers["x-step"]) >= 2
    with client.stream("GET", f"/v1/jobs/{number}/events", params={"previews": True}) as stream:
        data = next(line for line in stream.iter_lines() if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: "))["preview"]
    cancelled = client.post(f"/v1/jobs/{number}/cancel").json()
    assert cancelled["id"] == number
    kind, facts = events(client, number)[-1]
    assert kind == "cancelled"
    assert facts["error"]["code"] == "cancelled"
    assert "cancelled after" in error_of(client.get(f"/v1/jobs/{number}/result"), 410)
    assert client.get(f"/v1/jobs/{number}/preview.png").status_code == 204


def test_pictures_take_a_fortieth_of_the_time_at_most_and_progress_goes_on_meanwhile(client, monkeypatch):
    def slow(job):
        time.sleep(0.05)
        return "a picture"

    monkeypatch.setattr("unnoise.serving.jobs._preview", slow)
    number, began, told = submit(client, **SLOW), time.monotonic(), []
    with client.stream("GET", f"/v1/jobs/{number}/events", params={"previews": True}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                told.append("preview" in json.loads(line.removeprefix("data: ")))
            if time.monotonic() - began > 2.5:
                break
    client.post(f"/v1/jobs/{number}/cancel")
    assert 1 <= sum(told) <= 1 + (time.monotonic() - began) / (0.05 / 0.025)
    assert len(told) > 3 * sum(told)


def test_what_was_made_comes_in_every_format_as_the_command_line_writes_it(client, folders, tmp_path):
    number = submit(client, n=2, steps=5, label="b", strict=True, keep_steps=True)
    assert events(client, number)[-1][0] == "done"
    result = client.get(f"/v1/jobs/{number}/result").json()
    samples = load(folders["digits"]).sample(2, steps=5, label="b", keep_frames=True)
    assert result["recipe"] == {**samples.recipe, "frames": False}
    assert result["files"] == [f"/v1/jobs/{number}/images/{k}.png" for k in range(2)]
    for suffix in ("png", "jpg", "webp", "npz", "safetensors"):
        plain = load(folders["digits"]).sample(2, steps=5, label="b")
        assert client.get(f"/v1/jobs/{number}/result.{suffix}").content == plain.encode(f".{suffix}")
    assert client.get(f"/v1/jobs/{number}/result.gif").content == samples.encode(".gif")
    for k, file in enumerate(load(folders["digits"]).sample(2, steps=5, label="b").save(tmp_path / "folder")):
        assert client.get(result["files"][k]).content == file.read_bytes()
    assert "only points fit a .csv" in error_of(client.get(f"/v1/jobs/{number}/result.csv"), 400)
    assert "there are 2 samples" in error_of(client.get(f"/v1/jobs/{number}/images/2.png"), 404)


def test_points_come_as_numbers(client, folders):
    number = submit(client, model="spiral", n=7, strict=True)
    assert events(client, number)[-1][0] == "done"
    found = np.load(io.BytesIO(client.get(f"/v1/jobs/{number}/result.npz").content))["x"]
    assert np.array_equal(found, load(folders["spiral"]).sample(7).tensor.numpy())


def test_what_is_not_done_is_not_ready_and_what_is_deleted_is_gone(client):
    number = submit(client, **SLOW)
    assert "wait for its end" in error_of(client.get(f"/v1/jobs/{number}/result"), 409)
    client.post(f"/v1/jobs/{number}/cancel")
    number = submit(client)
    events(client, number)
    assert client.delete(f"/v1/jobs/{number}").json() == {"id": number, "deleted": True}
    error_of(client.get(f"/v1/jobs/{number}/result"), 404)


def test_what_was_made_is_there_after_a_restart(start):
    first = start()
    number = submit(first, n=2, seed=5)
    events(first, number)
    image = first.get(f"/v1/jobs/{number}/images/1.png").content
    first.engine.close(0)
    again = start()
    assert again.get(f"/v1/jobs/{number}/images/1.png").content == image
    assert again.get(f"/v1/jobs/{number}").json()["state"] == "done"
    assert events(again, number)[-1][0] == "done"


def test_a_client_that_leaves_a_synchronous_request_ends_it(client):
    before, own = {job.id for job in client.engine.jobs()}, []
    with somebody_waits(client, "/v1/images/generations", {"model": "digits", **SLOW}):
        while not (own and own[0].step):
            own = [job for job in client.engine.jobs() if job.id not in before]
            time.sleep(0.01)
    assert own[0].wait(30), "the request goes on"
    assert own[0].state == "cancelled"


def test_a_client_that_never_reads_its_stream_holds_nobody_up(client):
    import socket

    number = submit(client, **SLOW)
    address = client.base_url
    with socket.create_connection((address.host, address.port)) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        silent.sendall(f"GET /v1/jobs/{number}/events?previews=true HTTP/1.1\r\nHost: {address.host}\r\n\r\n".encode())
        for seed in range(3):
            other = submit(client, seed=seed)
            assert events(client, other)[-1][0] == "done"
    client.post(f"/v1/jobs/{number}/cancel")
    assert events(client, number)[-1][0] == "cancelled"
