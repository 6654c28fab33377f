"""`unnoise serve --replicas 2`: two processes behind one address, which look like one server, also when one is killed."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from PIL import Image

from unnoise.engine.job import ENDS
from unnoise.engine.results import Results
from unnoise.model import load

from .conftest import SLOW, error_of, somebody_waits

pytestmark = [
    pytest.mark.timeout(290),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes where Linux tells of them"),
]

KEY, OTHER, THIRD = "a-long-and-secret-key", "another-long-secret-key", "a-third-and-secret-key"
REPLICA, PLAIN = "x-unnoise-replica", {"content-type": "application/json"}
JOB = {"model": "digits", "n": 2, "steps": 5, "label": "a", "strict": True}


class Server:
    """The command, as a person starts it in a terminal, and all processes that it starts."""

    def __init__(self, folders, place, temporary):
        place.mkdir()
        self.temporary = temporary
        self.results, self.home = place / "results", place / "home"
        self.home.mkdir()
        keys = place / "keys.txt"
        keys.write_text(f"ann: {KEY}\nbob: {OTHER}\neve: {THIRD}\n")
        command = [
            sys.executable, "-m", "unnoise", "serve", folders["digits"], folders["spiral"], "--replicas", "2", "--port", "0",
            "--keys", keys, "--results", self.results, "--device", "cpu", "engine.active=2", "serving.grace=60",
            "serving.rate=60", "serving.most_bytes=10000",
        ]  # fmt: skip
        # In its home stand the tokens of Ray's clusters; it also tells its processes from all others.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {"HOME": str(self.home), "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
        self.said = place / "said.txt"
        with self.said.open("w") as said:
            self.process = subprocess.Popen([*map(str, command)], stderr=said, env=environment, start_new_session=True)
        while " at http" not in self.said.read_text():
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.1)
        self.url = self.said.read_text().split(" at ")[1].split()[0]

    def client(self, key=KEY):
        """A client with a connection of its own."""
        return httpx.Client(base_url=self.url, timeout=60, headers={"authorization": f"Bearer {key}"})

    def processes(self):
        """The names of all processes of the server that run, by their numbers."""
        found = {}
        for place in Path("/proc").iterdir():
            try:
                if place.name.isdigit() and f"HOME={self.home}\0".encode() in (place / "environ").read_bytes():
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # another user's, or just ended
                continue
        return found

    def number_of(self, replica):
        """The number of a replica's process."""
        return next(pid for pid, name in self.processes().items() if f"unnoise-{replica}:" in name)


@pytest.fixture(scope="module")
def servers(folders, tmp_path_factory):
    """Starts one server for all tests of the file, and another one where a test has ended it."""
    root, found = tmp_path_factory.mktemp("replicas"), []
    temporary = Path(tempfile.mkdtemp(prefix="un"))  # short, for the sockets in it

    def current():
        if not found or found[-1].process.poll() is not None:
            found.append(Server(folders, root / str(len(found)), temporary))
        return found[-1]

    yield current
    for server in found:
        server.process.terminate()
        server.process.wait(120)
        assert server.processes() == {}
    shutil.rmtree(temporary)


@pytest.fixture
def server(servers):
    return servers()


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def submit(client, **asked):
    """The id of a job, and the replica that accepted it."""
    answer = client.post("/v1/jobs", json={**JOB, **asked})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"], answer.headers[REPLICA]


def events(client, number, found=None):
    """All events of a job, to its end, noted as they come: their kinds and what they tell."""
    found = [] if found is None else found
    with client.stream("GET", f"/v1/jobs/{number}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                found.append([line.removeprefix("event: ")])
            elif line.startswith("data: "):
                found[-1].append(json.loads(line.removeprefix("data: ")))
    return found


def until(true, seconds=120):
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never was"
        time.sleep(0.05)
    return found


def one_of(answer, status):
    """The answer if it has this status."""
    return answer if answer.status_code == status else None


def in_background(work):
    """Does something meanwhile; `answer()` waits for what it gives."""
    found = SimpleNamespace()
    thread = threading.Thread(target=lambda: setattr(found, "value", work()), daemon=True)
    thread.start()

    def answer():
        thread.join(60)
        return found.value

    return answer


def idle(client):
    """Waits until the front has heard that nobody has anything to do; it asks every now and then."""
    nothing = [{"replica": k, "up": True, "waiting": 0, "active": 0} for k in (0, 1)]
    until(lambda: client.get("/health").json()["replicas"] == nothing)


def made_by(client):
    """How many samples each replica says that it has made."""
    found = re.findall(r'^unnoise_samples_total\{replica="(.)"\} (\d+)$', client.get("/metrics").text, re.MULTILINE)
    return {replica: int(count) for replica, count in found}


def test_requests_are_shared_out_and_every_replica_makes_the_bytes_of_the_command(server, client, folders):
    idle(client)
    before = made_by(client)
    jobs = [submit(client, seed=seed, steps=60) for seed in (1, 1, 2, 2)]  # long enough to be counted while others come
    assert sorted(replica for _, replica in jobs) == ["0", "0", "1", "1"]
    assert {replica for (_, replica) in jobs[:2]} == {"0", "1"}
    for (number, replica), seed in zip(jobs, (1, 1, 2, 2), strict=True):
        assert events(client, number)[-1][0] == "done"
        made = load(folders["digits"]).sample(2, steps=60, label="a", seed=seed)
        answer = client.get(f"/v1/jobs/{number}/result.png")
        assert (answer.content, answer.headers[REPLICA]) == (made.encode(".png"), replica)
    assert made_by(client) == {replica: count + 4 for replica, count in before.items()}
    assert client.get("/metrics").text.count("# TYPE unnoise_samples_total counter\n") == 1
    idle(client)


def test_a_job_is_found_followed_and_ended_wherever_it_lives(server, client):
    jobs = dict(reversed(submit(client, **SLOW)) for _ in range(2))
    assert set(jobs) == {"0", "1"}
    with server.client() as another:
        for replica, number in jobs.items():
            until(lambda number=number: another.get(f"/v1/jobs/{number}").json()["step"] > 0)
            answer = another.get(f"/v1/jobs/{number}/preview.png")
            assert answer.headers[REPLICA] == replica
            assert Image.open(io.BytesIO(answer.content)).format == "PNG"
        listed = {each["id"]: each["state"] for each in another.get("/v1/jobs").json()["data"]}
        assert [listed[number] for number in jobs.values()] == ["running"] * 2
        assert len(another.get("/v1/jobs", params={"limit": 1}).json()["data"]) == 1
        assert "limit" in error_of(another.get("/v1/jobs", params={"limit": 0}), 400)
        with server.client(OTHER) as stranger:
            assert stranger.get("/v1/jobs").json()["data"] == []
            for number in jobs.values():
                error_of(stranger.post(f"/v1/jobs/{number}/cancel"), 404)
        for replica, number in jobs.items():
            seen = []
            told = in_background(lambda number=number, seen=seen: events(client, number, seen))
            until(lambda seen=seen: seen)
            answer = another.post(f"/v1/jobs/{number}/cancel")
            assert answer.headers[REPLICA] == replica
            kinds = [kind for kind, _ in told()]
            assert kinds[0] == "progress"
            assert kinds[-1] == "cancelled"
            assert "cancelled after" in error_of(another.get(f"/v1/jobs/{number}/result"), 410)
            assert another.delete(f"/v1/jobs/{number}").json() == {"id": number, "deleted": True}


def test_what_the_web_ui_keeps_of_an_owner_is_the_same_whichever_connection_asks(server):
    for key, chosen in ((KEY, "spiral"), (OTHER, "digits")):
        with server.client(key) as client:
            client.post("/sdapi/v1/options", json={"sd_model_checkpoint": chosen})
    for key, chosen in ((KEY, "spiral"), (OTHER, "digits")) * 3:
        with server.client(key) as client:
            assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == chosen
    with server.client(OTHER) as client, server.client(OTHER) as another, server.client() as stranger:
        asked = {"prompt": "a", "steps": 1000, "batch_size": 64}
        answer = in_background(lambda: client.post("/sdapi/v1/txt2img", json=asked))
        until(lambda: another.get("/sdapi/v1/progress").json()["progress"] > 0)
        assert stranger.get("/sdapi/v1/progress").json()["progress"] == 0
        another.post("/sdapi/v1/interrupt")
        assert "cancelled after" in error_of(answer(), 410)


def test_strangers_and_bad_requests_are_told_the_same_lines_as_by_one_process(server, client):
    with httpx.Client(base_url=server.url, timeout=60) as stranger:
        for path in ("/v1/models", "/v1/jobs", "/metrics", "/nothing"):
            assert "API key" in error_of(stranger.get(path), 401)
        assert stranger.get("/docs").status_code == 200
        assert stranger.get("/health").json()["status"] == "ok"
    assert "is not called 'elsewhere'" in error_of(client.get("/v1/models", headers={"host": "elsewhere"}), 403)
    assert "10,000 bytes" in error_of(client.post("/v1/jobs", content=b" " * 20_000), 413)
    assert "10,000 bytes" in error_of(client.post("/v1/jobs", content=iter([b" " * 9_000] * 3)), 413)
    assert "body is no JSON" in error_of(client.post("/v1/jobs", content=b"{", headers=PLAIN), 400)
    assert "did you mean 'heun'" in error_of(client.post("/v1/jobs", json={**JOB, "sampler": "huen"}), 400)
    assert "there is nothing at /nothing" in error_of(client.get("/nothing"), 404)
    for number in ("20261126-101500-123-0a1b2c3d", "nonsense", "..%2F..%2Fkeys.txt"):
        error_of(client.get(f"/v1/jobs/{number}"), 404)


def test_the_rate_of_an_owner_holds_over_all_replicas(server):
    with server.client(THIRD) as client:
        answers = [client.post("/v1/jobs", content=b"{") for _ in range(50)]
        assert [answer.status_code for answer in answers] == [400] * 50
        assert {answer.headers[REPLICA] for answer in answers} == {"0", "1"}
        refused = until(lambda: one_of(client.post("/v1/jobs", content=b"{"), 429))
        assert "more than 60 requests a minute" in error_of(refused, 429)


def test_partial_images_are_streamed_and_who_leaves_ends_the_work(server, client):
    asked = {"model": "digits", "n": 1, "steps": 60, "stream": True, "partial_images": 2, "response_format": "b64_json"}
    with client.stream("POST", "/v1/images/generations", json=asked) as answer:
        kinds = [line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event: ")]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]

    def cancelled():
        rows = [row for row in client.get("/metrics").text.splitlines() if 'state="cancelled"' in row]
        return sum(int(row.split()[-1]) for row in rows)

    def under_way():
        return {job["id"] for job in client.get("/v1/jobs").json()["data"] if job["state"] == "running" and job["step"]}

    before, known = cancelled(), under_way()
    with somebody_waits(client, "/v1/images/generations", {"model": "digits", **SLOW}):
        until(lambda: under_way() - known)
    with client.stream("POST", "/v1/images/generations", json={**asked, **SLOW}) as answer:
        next(answer.iter_lines())
    until(lambda: cancelled() == before + 2)


def test_a_killed_replica_is_replaced_and_what_it_had_accepted_is_made_by_another(server, client):
    finished, _ = submit(client, seed=5)
    events(client, finished)
    picture = client.get(f"/v1/jobs/{finished}/result.png").content
    accepted = [submit(client, n=8, steps=300, seed=seed, strict=False) for seed in range(6)]
    assert sorted(replica for _, replica in accepted) == ["0"] * 3 + ["1"] * 3

    seen = []

    def broken_off(number):
        with server.client() as client, pytest.raises(httpx.RemoteProtocolError, match="closed"):
            events(client, number, seen)
        return True

    with server.client() as another:
        waited = in_background(lambda: another.post("/v1/images/generations", json={"model": "digits", **SLOW}))
        known = {finished, *dict(accepted)}
        number = until(lambda: {each["id"] for each in client.get("/v1/jobs").json()["data"][:7]} - known).pop()
        home = client.get(f"/v1/jobs/{number}").headers[REPLICA]
        followed = in_background(lambda: broken_off(number))
        until(lambda: seen and client.get(f"/v1/jobs/{number}").json()["step"] > 2)
        killed = server.number_of(home)
        os.kill(killed, signal.SIGKILL)
        left = {file.stem for file in (server.results / "waiting").glob("*.json")}
        left &= {number for number, replica in accepted if replica == home}
        assert left
        assert "ask again in a few seconds" in error_of(waited(), 503)
        assert followed()
    assert client.get("/v1/models").status_code == 200
    assert client.get(f"/v1/jobs/{finished}/result.png").content == picture
    for number, _ in accepted:
        answer = until(lambda number=number: one_of(client.get(f"/v1/jobs/{number}"), 200))
        if number in left and answer.json()["state"] not in ENDS:  # of what has ended, any replica can tell
            assert answer.headers[REPLICA] != home
        assert events(client, number)[-1][0] == "done"
        assert client.get(f"/v1/jobs/{number}/result").json()["shape"] == [1, 6, 6]
    until(lambda: all(each["up"] for each in client.get("/health").json()["replicas"]))
    assert server.number_of(home) != killed
    assert {submit(client)[1] for _ in range(2)} == {"0", "1"}
    assert f"the process of replica {home} has ended" in server.said.read_text()


def test_ctrl_c_finishes_what_is_under_way_and_leaves_no_process_behind(server, client):
    jobs = [submit(client, n=8, steps=150, seed=seed) for seed in range(2)]
    assert {replica for _, replica in jobs} == {"0", "1"}
    assert sum("ray::ServeReplica" in name for name in server.processes().values()) == 2
    os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
    assert server.process.wait(120) == 0, server.said.read_text()
    assert "Traceback" not in server.said.read_text()
    assert KEY not in server.said.read_text()
    assert server.processes() == {}
    assert not list(server.temporary.glob("unnoise-ray-*"))
    kept = Results(server.results)
    assert {number for number, _ in jobs} <= set(kept.numbers())
    assert not list((server.results / "waiting").glob("*.json"))
