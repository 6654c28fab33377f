"""Bad input and strangers: one line, the right status, and nobody else is slowed."""

import base64
import json
import logging
import re
import socket
import struct
import time
import zlib

import pytest

from unnoise.engine.settings import EngineSettings
from unnoise.errors import BadOption
from unnoise.serving.guard import Buckets
from unnoise.serving.settings import ServingSettings, hashed, read_keys

from .conftest import SLOW, error_of

KEY, OTHER = "a-long-and-secret-key", "another-long-secret-key"


@pytest.fixture
def locked(start):
    return start(keys={"ann": hashed(KEY), "bob": hashed(OTHER)})


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def test_without_a_key_or_with_a_wrong_one_nothing_is_told(locked, caplog):
    with caplog.at_level(logging.WARNING, "unnoise.serving"):
        for headers in ({}, bearer("wrong-wrong-wrong-wrong"), bearer(KEY[:-1]), bearer("x"), {"authorization": KEY}):
            for path in ("/v1/models", "/v1/jobs", "/metrics", "/sdapi/v1/sd-models", "/nothing"):
                assert "API key" in error_of(locked.get(path, headers=headers), 401)
    assert "-> 401" in caplog.text
    assert KEY[:-1] not in caplog.text
    assert "wrong-wrong" not in caplog.text
    assert locked.get("/health").json()["status"] == "ok"
    page = locked.get("/docs")
    assert page.status_code == 200
    # A browser fetches them without the key, and from here: nobody else is asked.
    fetched = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(fetched) == 3
    for place in fetched:
        assert place.startswith("/documents/")
        assert len(locked.get(place).content) > 1000
    assert "//" not in re.sub(r"<!--.*?-->", "", page.text.replace(str(locked.base_url), ""), flags=re.S)


def test_a_key_opens_and_so_does_a_password(locked):
    assert locked.get("/v1/models", headers=bearer(KEY)).status_code == 200
    assert locked.get("/v1/models", auth=("anybody", KEY)).status_code == 200


def test_one_owner_sees_nothing_of_another(locked):
    number = locked.post("/v1/jobs", json={"model": "digits"}, headers=bearer(KEY)).json()["id"]
    locked.engine.job(number).wait(60)
    for path in ("", "/result", "/result.png", "/images/0.png", "/events", "/preview.png"):
        assert locked.get(f"/v1/jobs/{number}{path}", headers=bearer(KEY)).status_code in (200, 204)
        error_of(locked.get(f"/v1/jobs/{number}{path}", headers=bearer(OTHER)), 404)
    error_of(locked.delete(f"/v1/jobs/{number}", headers=bearer(OTHER)), 404)
    error_of(locked.post(f"/v1/jobs/{number}/cancel", headers=bearer(OTHER)), 404)
    assert locked.get("/v1/jobs", headers=bearer(OTHER)).json()["data"] == []


def test_keys_are_compared_in_constant_time_whatever_they_are(monkeypatch):
    settings, compared = ServingSettings(keys={"ann": hashed(KEY), "bob": hashed(OTHER)}), []
    import hmac

    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or compare(a, b))
    assert settings.owner(KEY) == "ann"
    assert settings.owner("x" * 10_000) is None
    assert settings.owner("") is None
    assert compared == [(64, 64)] * 6  # every key every time, and hashes of one length


def test_keys_are_read_from_a_file_and_only_their_hashes_are_kept(tmp_path):
    file = tmp_path / "keys.txt"
    file.write_text(f"# who\nann: {KEY}\n\nbob: {OTHER}  # since May\n")
    assert read_keys(file) == {"ann": hashed(KEY), "bob": hashed(OTHER)}
    assert KEY not in repr(ServingSettings(keys=read_keys(file)))
    for text, message in (
        ("ann", "line 1"),
        ("ann: short", "shorter than 16"),
        (f"ann: {KEY}\nann: {OTHER}", "line 2"),
        ("", "no keys"),
    ):
        file.write_text(text)
        with pytest.raises(BadOption, match=message):
            read_keys(file)


def test_more_than_the_rate_is_refused_for_one_owner_and_not_for_another(start):
    client = start(rate=3, keys={"ann": hashed(KEY), "bob": hashed(OTHER)})
    asked = [client.post("/v1/jobs", json={"model": "spiral"}, headers=bearer(KEY)).status_code for _ in range(5)]
    assert asked == [202, 202, 202, 429, 429]
    refused = client.post("/v1/jobs", json={"model": "spiral"}, headers=bearer(KEY))
    assert "more than 3 requests a minute" in error_of(refused, 429)
    assert refused.headers["retry-after"] == "1"
    assert client.post("/v1/jobs", json={"model": "spiral"}, headers=bearer(OTHER)).status_code == 202


def test_a_bucket_fills_again():
    now = [0.0]
    bucket = Buckets(60, lambda: now[0])
    assert [bucket.take("ann") for _ in range(61)] == [True] * 60 + [False]
    now[0] = 2.0
    assert [bucket.take("ann") for _ in range(3)] == [True, True, False]


def test_a_full_queue_says_so(start):
    client = start(EngineSettings(active=1, waiting=1))
    first = client.post("/v1/jobs", json={"model": "digits", **SLOW}).json()["id"]
    while not client.engine.job(first).step:
        time.sleep(0.01)
    assert client.post("/v1/jobs", json={"model": "digits"}).status_code == 202
    answer = client.post("/v1/jobs", json={"model": "digits"})
    assert "the queue is full" in error_of(answer, 429)
    assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"model": "digit"}, 404, "did you mean 'digits'"),
        ({"model": "../../etc"}, 404, "no model is called"),
        ({"model": 3}, 400, "model:"),
        ({"sampler": "heunn"}, 400, "did you mean 'heun'"),
        ({"sampler": {"name": "ddim", "eta": 7}}, 400, "sampler.eta: must be at most"),
        ({"sampler": [1]}, 400, "sampler: expected a sampler"),
        ({"prompt": "a cat"}, 400, "trained without words"),
        ({"steps": 0}, 400, "steps:"),
        ({"steps": 10**9}, 400, "steps: must be at most 1,000"),
        ({"steps": 10**400}, 400, "steps:"),
        ({"n": 10**6}, 400, "n: must be at most"),
        ({"n": 1.5}, 400, "n:"),
        ({"guidance": "much"}, 400, "guidance"),
        ({"guidance": {"name": "autoguidance", "weak": "/etc", "scale": 2}}, 404, "no model is called"),
        ({"grid": [2, 1]}, 400, "expected times in"),
        ({"grid": {"name": "karras", "rho": "x"}}, 400, "grid"),
        ({"label": "\ud800"}, 400, "half a character"),
        ({"blend": {"sead": 1}}, 400, "did you mean 'seed'"),
        ({"map": "/etc/passwd"}, 400, "expected a PNG"),
        ({"first": 2**63}, 400, "first"),
        ({"timeout": 0}, 400, "timeout"),
        ({"prioritty": 1}, 400, "did you mean 'priority'"),
        ([1], 400, ""),
        ("text", 400, ""),
        (None, 400, ""),
    ],
)
def test_what_cannot_be_is_one_line(client, asked, status, message):
    body = {"model": "digits", **asked} if isinstance(asked, dict) else asked
    answer = client.post("/v1/jobs", content=json.dumps(body), headers={"content-type": "application/json"})
    assert message in error_of(answer, status)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"\xff\xfe",
        b'{"model": "digits",}',
        b"[" * 100_000,
        b'{"guidance": NaN}',
        b'{"n": 1e999}',
        b"1" * 5000,
    ],
)
def test_malformed_json_is_one_line(client, content):
    error_of(client.post("/v1/jobs", content=content, headers={"content-type": "application/json"}), 400)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/..%2F..%2Fetc%2Fpasswd", "/v1/jobs/%2e%2e", "/v1/jobs/x/result.png",
        "/v1/jobs/20260101-000000-000-00000000/result",
        "/v1/models/..%2f..%2fetc", "/v1/jobs/%00", "/nothing", "/v1/jobs/waiting",
    ],
)  # fmt: skip
def test_tricks_with_paths_lead_nowhere(client, path):
    assert "root:" not in error_of(client.get(path), 404)


def test_a_body_of_a_hundred_megabytes_is_refused_before_it_is_read(client):
    began = time.perf_counter()
    answer = client.post("/v1/jobs", content=iter([b" " * 2**20] * 100), headers={"content-type": "application/json"})
    assert "4,194,304 bytes" in error_of(answer, 413)
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 104857600\r\n\r\n")
        assert b"413" in connection.recv(100)
    assert time.perf_counter() - began < 20
    assert client.get("/health").status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(start):
    client = start(body_seconds=0.3)
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
        connection.settimeout(20)
        assert b"408" in connection.recv(100)


def bomb(width, height):
    """A PNG that claims to be huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 2**20, 9))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")).decode()


@pytest.mark.parametrize("size", [(60_000, 60_000), (5000, 5000)])
def test_a_picture_that_is_a_bomb_is_not_unpacked(client, size):
    import tracemalloc

    tracemalloc.start()
    answer = client.post("/v1/jobs", json={"model": "digits", "map": f"data:image/png;base64,{bomb(*size)}"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "map:" in error_of(answer, 400)
    assert peak < 10 * 2**20


def test_pages_of_other_sites_and_other_names_are_refused(client):
    assert "another site" in error_of(client.post("/v1/jobs", json={}, headers={"origin": "http://evil.example"}), 403)
    own = f"http://{client.base_url.host}:{client.base_url.port}"
    assert client.post("/v1/jobs", json={"model": "spiral"}, headers={"origin": own}).status_code == 202
    assert "not called 'evil.example'" in error_of(client.get("/v1/models", headers={"host": "evil.example:80"}), 403)
    assert client.get("/v1/models", headers={"host": "localhost:99"}).status_code == 200
    assert client.get("/v1/models", headers={"host": "[::1]:99"}).status_code == 200


def test_other_methods_and_types_are_refused(client):
    assert error_of(client.put("/v1/jobs", json={}), 405)
    form = client.post("/v1/jobs", data={"model": "digits"})
    assert "send it with the header `content-type: application/json`" in error_of(form, 400)
    text = client.post("/v1/jobs", content='{"model": "digits"}', headers={"content-type": "text/plain"})
    assert "content-type: application/json" in error_of(
        text, 400
    )  # which a page of another site could send without asking


def test_the_log_says_why_something_was_refused_and_a_client_writes_no_line_into_it(client, caplog):
    with caplog.at_level(logging.WARNING, "unnoise.serving"):
        client.post("/v1/jobs", json={"model": "digits", "steps": 0})
        client.post("/v1/jobs", json={"model": "none\x1b[2J\nroot: all is well"})
        assert client.get("/v1/models").status_code == 200
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "POST /v1/jobs -> 400: steps: input should be greater than or equal to 1, got 0"
    assert second.startswith("POST /v1/jobs -> 404: ")
    assert not {"\x1b", "\n"} & set(second)


def test_a_fault_of_ours_says_nothing_of_its_inside_and_is_logged(client, monkeypatch, caplog):
    def fail(*args, **more):
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr("unnoise.model.Model.make", fail)
    answer = client.post("/v1/images/generations", json={"model": "digits"})
    assert "secret" not in error_of(answer, 500)
    assert "secret inside" in caplog.text
    monkeypatch.undo()
    assert client.post("/v1/images/generations", json={"model": "digits"}).status_code == 200


def test_strangers_slow_nobody(client):
    quick = []
    connections = [socket.create_connection((client.base_url.host, client.base_url.port)) for _ in range(30)]
    for k, connection in enumerate(connections):
        connection.sendall((b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n", b"\x00\xff" * 50, b"GET / HTTP")[k % 3])
    for seed in range(3):
        began = time.perf_counter()
        assert client.post("/v1/images/generations", json={"model": "digits", "seed": seed}).status_code == 200
        quick.append(time.perf_counter() - began)
    for connection in connections:
        connection.close()
    assert min(quick) < 5
