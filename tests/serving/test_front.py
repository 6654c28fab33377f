"""What stands before replicas, with replicas in this process: what happens where one is slow to read, leaves, or is not there."""

import asyncio
import os

import httpx
import pytest
import torch

from unnoise.engine.results import Results, new_number
from unnoise.serving.front import Front
from unnoise.serving.members import Gone, Line, Member
from unnoise.serving.replica import AHEAD, Replica, _Exchange
from unnoise.serving.settings import ServingSettings
from unnoise.serving.setup import Setup

from .conftest import error_of

SLOW = {"n": 2, "steps": 1000}


class Here(Line):
    """To a replica in this process, until it is cut."""

    def __init__(self, replica):
        self.replica, self.cut = replica, False

    async def call(self, method, *arguments):
        if self.cut:
            raise Gone
        return await getattr(self.replica, method)(*arguments)


@pytest.fixture
def lines(folders, tmp_path):
    """To two replicas with one folder of results."""
    setup = Setup(folders, tmp_path / "results", memory=2**30, device="cpu")
    found = [Here(Replica(setup, os.getcwd(), torch.get_num_threads(), 2)) for _ in range(2)]
    yield found
    for line in found:
        for job in line.replica.engine.jobs():
            job.cancel()
        line.replica.engine.close(1.0)


async def asked(lines, work, **settings):
    """What a client gets of both, as `work` asks."""
    members = [Member(place, line) for place, line in enumerate(lines)]
    results = Results(lines[0].replica.engine.results.folder)
    front = Front(members, results, ServingSettings(**settings))
    for member in members:
        await member.look()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://localhost") as client:
        return await work(client, front)


def test_where_one_is_not_there_the_other_answers_and_what_only_it_may_know_is_asked_for_later(lines):
    async def work(client, front):
        first = await client.post("/v1/jobs", json={"model": "digits", **SLOW})
        home = int(first.headers["x-unnoise-replica"])
        lines[home].cut = True
        place = f"/v1/jobs/{first.json()['id']}"
        assert "ask again in a few seconds" in error_of(await client.get(place), 503)
        assert "ask again in a few seconds" in error_of(await client.get(f"/v1/jobs/{new_number()}"), 503)
        assert (await client.get("/v1/models")).headers["x-unnoise-replica"] == str(1 - home)
        assert [each["up"] for each in (await client.get("/health")).json()["replicas"]] == [home == 1, home == 0]
        for each in lines:
            each.cut = True
        assert "ask again in a few seconds" in error_of(await client.get("/v1/models"), 503)
        assert (await client.get("/health")).status_code == 503
        for line, member in zip(lines, front.members, strict=True):
            line.cut = False
            await member.look()
        assert (await client.get(place)).headers["x-unnoise-replica"] == str(home)
        error_of(await client.get(f"/v1/jobs/{new_number()}"), 404)

    asyncio.run(asked(lines, work))


def test_a_server_that_shuts_down_refuses_what_is_new_and_tells_of_what_it_has(lines):
    async def work(client, front):
        number = (await client.post("/v1/jobs", json={"model": "digits", **SLOW})).json()["id"]
        front.closing = True
        for path in (
            "/v1/jobs",
            "/v1/images/generations",
            "/v1/images/edits",
            "/sdapi/v1/txt2img",
            "/sdapi/v1/img2img",
        ):
            assert "shutting down" in error_of(await client.post(path, json={"model": "digits"}), 429)
        assert (await client.get("/health")).json()["status"] == "closing"
        assert (await client.post(f"/v1/jobs/{number}/cancel")).json()["id"] == number

    asyncio.run(asked(lines, work))


def test_an_owner_keeps_a_replica_and_owners_are_spread(lines):
    async def work(client, front):
        front_of = [front._by_owner(f"owner {k}").place for k in range(400)]
        assert front_of == [front._by_owner(f"owner {k}").place for k in range(400)]
        assert 150 < sum(front_of) < 250  # five standard deviations of a fair coin

    asyncio.run(asked(lines, work))


def test_an_answer_waits_for_a_slow_reader_and_ends_where_the_reader_leaves():
    said, ended = [], asyncio.Event()

    async def app(scope, receive, send):
        assert await receive() == {"type": "http.request", "body": b"text", "more_body": False}
        for k in range(1000):
            await send({"type": "http.response.body", "body": b"%d" % k, "more_body": True})
            said.append(k)
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    async def read():
        exchange = _Exchange(app, {}, b"text")
        first, _, _ = await exchange.more()
        await asyncio.sleep(0.05)
        second, _, _ = await exchange.more()
        await asyncio.sleep(0.05)
        assert [int(each["body"]) for each in first + second] == list(range(len(first) + len(second)))
        assert len(said) <= len(first) + len(second) + AHEAD + 1
        waiting = asyncio.create_task(exchange.more())
        await waiting
        last = asyncio.create_task(exchange.more())
        exchange.leave()
        await asyncio.wait_for(ended.wait(), 10)
        await asyncio.wait_for(last, 10)

    asyncio.run(read())
