"""The engine: every request ends as it would alone, and none touches another."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from unnoise.engine.engine import Engine
from unnoise.engine.request import Request
from unnoise.engine.results import Results
from unnoise.engine.shelf import Shelf
from unnoise.errors import BadOption, Busy, Cancelled, DataError, NoSuchJob, SamplingDiverged, TookTooLong, UnknownName
from unnoise.guidance.base import guidances
from unnoise.model import Model, load
from unnoise.samplers.base import samplers

from ..conftest import make_model

SLOW = {"steps": 1000, "n": 64}
"""What takes longer than any test."""


def ended(*jobs):
    for job in jobs:
        assert job.wait(240), job.facts()
    return jobs


def soon(condition):
    """Waits for what the thread of the work does after it has told of the end."""
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def at_work(engine, **asked):
    """A request that goes on for longer than any test, and has begun."""
    job = engine.submit(Request("image", **SLOW, **asked))
    while not job.step:
        time.sleep(0.005)
    return job


def together(engine, requests):
    """Requests of one model that have all come before the first makes a step."""
    gate = threading.Event()
    first = engine.submit(requests[0], lambda job: job.watch(lambda: job.steps and gate.wait(60)))
    assert soon(lambda: first.steps)
    others = [engine.submit(each) for each in requests[1:]]
    assert soon(lambda: engine._turns[first.request.model]._come.qsize() == len(others))
    gate.set()
    return [first, *others]


def stays(job):
    """Has a request make a step, and none after it until nobody wants it any more."""
    job.watch(lambda: job.step and soon(lambda: job._unwanted))


def alone(folders, request):
    return load(folders[request.model]).sample(**request.asked())


MIXED = [
    Request("image", n=2, label="a", steps=5, guidance=2.0, seed=1),
    Request("image", n=1, steps=7, sampler="heun", seed=2),
    Request("image", n=3, label=["a", None, "b"], sampler={"name": "ancestral"}, steps=6, seed=3, first=4),
    Request("image", n=1, label=1, guidance={"name": "apg", "scale": 3.0}, grid="karras", steps=4, seed=4),
    Request("image", n=1, label=0, sampler="unipc", steps=3, seed=5, blend={"seed": 9, "share": 0.4}),
    Request(
        "image", n=2, label="b", guidance={"name": "cfg_zero_star", "scale": 1.5}, sampler="euler", steps=9, seed=6
    ),
]


def test_requests_of_every_kind_at_once_are_each_as_they_are_alone(start, folders):
    engine = start()
    jobs = together(engine, MIXED)
    for job in ended(*jobs):
        expected = alone(folders, job.request)
        assert job.state == "done", job.error
        assert job.samples().recipe == expected.recipe
        # Sums of floats in another order move few grey values, each to the next one.
        difference = (job.samples().tensor.int() - expected.tensor.int()).abs()
        assert int(difference.max()) <= 1
        assert float((difference > 0).float().mean()) < 0.02
    made, asked = engine.shared()
    assert asked == sum(job.calls for job in jobs)
    assert made < asked


@pytest.mark.parametrize("sampler", sorted(samplers))
def test_every_sampler_makes_in_company_what_it_makes_alone(start, folders, sampler):
    engine = start()
    asked = [Request("points", n=2, label="a", sampler=sampler, steps=5, guidance=2.0, seed=seed) for seed in (1, 2, 3)]
    close = {"rtol": 1e-3, "atol": 1e-3} if sampler == "adaptive" else {"rtol": 1e-4, "atol": 1e-5}
    for job in ended(*map(engine.submit, asked)):
        torch.testing.assert_close(job.samples().tensor, alone(folders, job.request).tensor, **close)


@pytest.mark.parametrize("more", [{"variance": True}, {"self_conditioning": True}])
def test_learned_variances_and_self_conditioning_are_those_of_each_request(start, tmp_path, more):
    model = make_model("image", **more)
    engine = start({"model": str(model.save(tmp_path / "model"))})
    sampler = {"name": "ddpm", "variance": "learned"} if "variance" in more else "euler"
    asked = [Request("model", n=2, label="a", guidance=2.0, sampler=sampler, steps=6, seed=seed) for seed in range(3)]
    for job in ended(*together(engine, asked)):
        expected = model.sample(**job.request.asked()).tensor
        assert int((job.samples().tensor.int() - expected.int()).abs().max()) <= 1
    made, called = engine.shared()
    assert made < called == 18


def test_in_strict_mode_the_bytes_are_those_of_a_request_alone_whatever_runs_beside_it(start, folders):
    engine = start()
    strict = [Request(**{**request.plain(), "strict": True}) for request in MIXED]
    jobs = [engine.submit(request) for pair in zip(MIXED, strict, strict=True) for request in pair]
    for job in ended(*jobs)[1::2]:
        assert job.samples().encode(".png") == alone(folders, job.request).encode(".png")


@pytest.mark.parametrize("which", ["request", "engine"])
def test_a_long_strict_request_lets_a_short_one_pass_and_keeps_its_bytes(start, folders, which):
    engine, seen = start(strict=which == "engine"), []
    requests = (
        Request("image", n=2, label="a", steps=100, seed=1, strict=which == "request"),
        Request("image", steps=8, seed=2, strict=True),
    )
    long, short = together(engine, requests)
    short.watch(lambda: short.step == 8 and seen.append(long.step))
    ended(long, short)
    assert seen[0] < 20, "the short one has waited for the long one"
    for job in (long, short):
        assert job.samples().encode(".png") == alone(folders, job.request).encode(".png")


def test_calls_are_counted_as_the_sampler_declares_them(start):
    (job,) = ended(start().submit(Request("points", sampler="heun", steps=6)))
    assert (
        job.calls == 12 - 1
    )  # the last step of Heun's method needs one call only, for there is nothing left to correct
    assert job.facts()["step"] == job.facts()["steps"] == 6


def test_progress_is_told_step_by_step_and_the_end_last(start):
    engine, seen = start(), []

    def prepare(job):
        job.watch(lambda: seen.append((job.state, job.step, job.version)))

    job = engine.submit(Request("points", n=3, steps=40, batch_size=2), prepare)
    assert soon(lambda: seen and seen[-1][0] == "done")
    states, steps, versions = zip(*seen, strict=True)
    assert list(steps) == sorted(steps)
    assert steps[-1] == 80  # two batches of forty
    assert list(versions) == sorted(set(versions))
    assert states[-1] == "done"
    assert job.changed(0) == job.version
    assert job.changed(job.version, timeout=0.01) == job.version


def test_all_who_watch_from_the_start_hear_everything(start):
    engine, heard = start(), [[], []]

    def prepare(job):
        for each in heard:
            job.watch(lambda each=each: each.append(job.step))

    ended(engine.submit(Request("points", steps=5), prepare))
    assert soon(lambda: heard[1][-2:] == [5, 5])
    assert heard[0] == heard[1] == [0, 0, 1, 2, 3, 4, 5, 5]  # it begins, the noise, the steps, the end


def test_while_somebody_is_told_the_engine_answers_others(start):
    engine, waited = start(), []

    def prepare(job):
        def look():
            other = threading.Thread(target=engine.jobs)
            other.start()
            other.join(5)
            waited.append(other.is_alive())

        job.watch(look)

    ended(engine.submit(Request("points", steps=1), prepare))
    assert soon(lambda: len(waited) == 4)
    assert waited == [False] * 4  # it begins, the noise, the step, the end


def test_a_look_is_a_step_of_the_run_and_costs_nothing_where_nobody_looks(start, folders, monkeypatch):
    decoded = []
    finish = Model.finish
    monkeypatch.setattr(Model, "finish", lambda self, x: decoded.append(len(x)) or finish(self, x))
    engine = start()
    ended(engine.submit(Request("image", n=2, steps=8)))
    assert decoded == [2]  # the samples themselves
    looks = []

    def note(job):
        look = job.look()
        if look is not None:
            looks.append(look)

    job = engine.submit(Request("image", n=2, steps=80, seed=3), lambda job: job.watch(lambda: note(job)))
    while not job.ended:
        note(job)
    assert job.look() is None
    assert {look.step for look in looks} == set(range(81))
    frames = load(folders["image"]).sample(2, steps=80, seed=3, keep_frames=True).frames
    for look in looks:
        assert look.noisy.dtype == look.denoised.dtype == torch.uint8
        assert int((look.noisy.int() - frames[look.step].int()).abs().max()) <= 1
        assert look.steps == 80


def test_kept_steps_are_all_steps_of_all_batches(start, folders):
    engine = start(strict=True)
    (job,) = ended(engine.submit(Request("image", n=3, steps=5, batch_size=2, keep_steps=True, label="a")))
    model = load(folders["image"])
    expected = model.sample(3, steps=5, batch_size=2, keep_frames=True, label="a")
    steps = engine.results.steps(job.id)
    assert torch.equal(steps.noisy, torch.stack(expected.frames))
    assert torch.equal(steps.noisy[-1], expected.tensor)
    assert steps.t.tolist() == pytest.approx(np.linspace(1, 0, 6).tolist())
    previews = list(model.previews(2, steps=5, label="a"))
    assert torch.equal(steps.denoised[:, :2], torch.stack([model.finish(each.denoised) for each in previews]))
    assert engine.results.samples(job.id, frames=True).encode(".gif") == expected.encode(".gif")


def test_images_under_much_noise_are_shown_with_a_spread_that_can_be_seen(start, tmp_path):
    engine = start({"model": str(make_model("image", process="variance_exploding").save(tmp_path / "model"))})
    (job,) = ended(engine.submit(Request("model", n=4, steps=6, keep_steps=True)))
    steps, schedule = engine.results.steps(job.id), load(tmp_path / "model").denoiser.schedule
    sigma = schedule.sigma(steps.t)
    spread = (1 + sigma**2).sqrt()
    torch.testing.assert_close(steps.scale, spread.where(spread > 1.001, torch.ones_like(spread)))
    noise = (steps.noisy[0].float() / 127.5 - 1).std()  # unit variance, cut at the ends of the range: 0.7
    assert 0.5 < float(noise) < 0.9
    with pytest.raises(DataError, match="less noise than they have"):
        engine.results.samples(job.id, frames=True)


def test_a_request_that_is_cancelled_ends_and_the_others_go_on(start):
    engine = start()
    slow, other = at_work(engine), engine.submit(Request("image", steps=30))
    assert slow.cancel()
    ended(slow, other)
    assert (slow.state, other.state) == ("cancelled", "done")
    assert slow.error.__traceback__ is None  # it would hold the samples for as long as the request is known
    assert slow.step < slow.steps
    with pytest.raises(Cancelled, match="cancelled after"):
        slow.samples()
    assert not slow.cancel()
    with pytest.raises(NoSuchJob):
        engine.results.facts(slow.id)


def test_a_request_that_waits_is_cancelled_at_once(start):
    engine = start(active=1)
    slow, waiting = at_work(engine), engine.submit(Request("image"))
    assert waiting.facts()["position"] == 1
    waiting.cancel()
    assert waiting.ended
    slow.cancel()
    ended(slow)


def test_higher_priorities_begin_first_and_equal_ones_in_order(start):
    engine, begun = start(active=1), []
    slow = at_work(engine)
    jobs = [engine.submit(Request("points", priority=priority, seed=k)) for k, priority in enumerate((0, 5, 0, 9))]
    for job in jobs:
        job.watch(lambda job=job: begun.append(job.request.seed) if job.state == "running" and not job.step else None)
    assert [job.facts()["position"] for job in jobs] == [3, 2, 4, 1]
    slow.cancel()
    ended(*jobs)
    assert list(dict.fromkeys(begun)) == [3, 1, 0, 2]


def test_a_full_queue_refuses_and_takes_on_again_what_fits(start):
    engine = start(active=1, waiting=2)
    jobs = [at_work(engine), *(engine.submit(Request("image")) for _ in range(2))]
    with pytest.raises(Busy, match="the queue is full, with 2 requests waiting"):
        engine.submit(Request("image"))
    for job in jobs:
        job.cancel()
    ended(*jobs, engine.submit(Request("points")))
    assert engine.counts["refused"] == 1


def test_one_owner_does_not_take_all_places(start):
    engine = start(each_owner=2)
    jobs = [engine.submit(Request("image", owner="ann", **SLOW)) for _ in range(2)]
    with pytest.raises(Busy, match="you have 2 requests"):
        engine.submit(Request("points", owner="ann"))
    ended(engine.submit(Request("points", owner="bob")))
    for job in jobs:
        job.cancel()


def test_a_request_is_given_up_when_its_time_is_over_at_work_or_waiting(start):
    engine = start(active=1, timeout=0.5)
    jobs = [engine.submit(Request("image", **SLOW)) for _ in range(2)]
    for job in ended(*jobs):
        assert job.state == "failed"
        assert isinstance(job.error, TookTooLong)
        assert "within 0.5 seconds" in str(job.error) or "waited for 0.5 seconds" in str(job.error)


def test_the_crash_of_one_request_touches_no_other(start, monkeypatch):
    engine, finish = start(), Model.finish

    def fail(self, x):
        if len(x) == 3:
            raise ZeroDivisionError("a fault of ours")
        return finish(self, x)

    monkeypatch.setattr(Model, "finish", fail)
    jobs = [engine.submit(Request("image", n=1 + k, steps=6)) for k in range(4)]
    assert [job.state for job in ended(*jobs)] == ["done", "done", "failed", "done"]
    assert isinstance(jobs[2].error, ZeroDivisionError)
    assert [job.state for job in ended(engine.submit(Request("image")))] == ["done"]


def test_a_model_that_says_nan_fails_its_own_requests(start, folders, tmp_path):
    model = load(folders["points"])
    with torch.no_grad():
        next(model.denoiser.parameters()).fill_(float("nan"))
    engine = start({**folders, "broken": str(model.save(tmp_path / "broken"))})
    broken, sound = ended(*(engine.submit(Request(name, steps=5)) for name in ("broken", "points")))
    assert isinstance(broken.error, SamplingDiverged)
    assert sound.state == "done"


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"model": "point"}, UnknownName, "no model is called 'point'; did you mean 'points'"),
        ({"sampler": "huen"}, BadOption, "did you mean 'heun'"),
        ({"sampler": {"name": "ddim", "etta": 1}}, BadOption, "sampler.etta: there is no such option"),
        ({"guidance": {"name": "agp"}}, BadOption, "did you mean 'apg'"),
        ({"grid": "karas"}, UnknownName, "did you mean 'karras'"),
        ({"steps": 0}, BadOption, "steps: must be at least 1"),
        ({"steps": 10**9}, BadOption, "steps: must be at most 1,000, got 1,000,000,000"),
        ({"n": 0}, BadOption, "n: must be at least 1"),
        ({"n": 10**9}, BadOption, "n: must be at most 1,024"),
        ({"n": "3"}, BadOption, "n: expected a whole number"),
        ({"label": "c"}, BadOption, "the model knows no label 'c'"),
        ({"label": ["a"], "n": 2}, BadOption, "one for each of 2 samples"),
        ({"prompt": "a cat"}, BadOption, "this model was trained without words"),
        ({"guidance": -1.0}, BadOption, "scale"),
        ({"timeout": -1.0}, BadOption, "timeout: expected seconds above 0"),
        ({"seed": 1.5}, BadOption, "seed: expected a whole number"),
        ({"keep_steps": True, "n": 1000, "steps": 1000}, BadOption, "keep_steps: every step of this would take"),
        ({"map": "/etc/passwd"}, BadOption, "map: expected a PNG of class numbers as data:image"),
        ({"map": "data:image/png;base64,AAAA"}, BadOption, "map: this is no picture"),
        ({"boxes": "a 0 0 1 1"}, BadOption, "boxes: this model was trained without"),
        ({"guidance": {"name": "autoguidance", "scale": 2, "weak": "../../etc"}}, UnknownName, "no model is called"),
        ({"guidance": {"name": "classifier", "scale": 2, "classifier": "/etc"}}, UnknownName, "no model is called"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_asked(start, asked, error, message):
    engine = start(most_kept=10**6)
    with pytest.raises(error, match=message):
        engine.submit(Request(**{"model": "points", **asked}))
    assert not engine.jobs()


def test_a_weaker_model_of_the_shelf_guides(start, folders, tmp_path):
    weak = tmp_path / "weak"
    make_model(seed=5).save(weak)
    engine = start({**folders, "weak": str(weak)})
    rule = {"name": "autoguidance", "weak": "weak", "scale": 2.0}
    jobs = ended(*(engine.submit(Request("points", n=2, guidance=rule, steps=6, seed=seed)) for seed in (1, 2)))
    for job in jobs:
        expected = load(folders["points"]).sample(
            2, guidance={**rule, "weak": str(weak)}, steps=6, seed=job.request.seed
        )
        torch.testing.assert_close(job.samples().tensor, expected.tensor, rtol=1e-4, atol=1e-5)
        assert job.calls == 12  # of both networks
    assert "autoguidance" in guidances


def test_a_model_that_was_trained_on_meanwhile_is_loaded_anew(start, tmp_path):
    folder = make_model(seed=1).save(tmp_path / "model")
    engine = start({"model": str(folder)})
    (first,) = ended(engine.submit(Request("model")))
    make_model(seed=2).save(folder)
    (second,) = ended(engine.submit(Request("model")))
    assert first.samples().recipe["model"]["hash"] != second.samples().recipe["model"]["hash"]
    assert torch.equal(second.samples().tensor, load(folder).sample().tensor)


def test_what_was_made_is_found_again_after_the_engine_has_closed(start, folders):
    engine = start()
    (job,) = ended(engine.submit(Request("image", n=2, label="a", seed=3)))
    made = job.samples()
    engine.close()
    with pytest.raises(Busy, match="shutting down"):
        engine.submit(Request("image"))
    again = start().results.samples(job.id)
    assert torch.equal(again.tensor, made.tensor)
    assert again.encode(".png") == made.encode(".png")
    assert again.spec == made.spec
    assert start().results.facts(job.id)["state"] == "done"


def test_closing_finishes_what_it_can_and_keeps_what_must_not_be_forgotten(start):
    engine = start(active=1)
    jobs = [engine.submit(Request("image", n=16, steps=100, durable=True, seed=k), stays) for k in range(2)]
    quick = engine.submit(Request("points", priority=3, durable=True))
    while not jobs[0].step:
        time.sleep(0.005)
    jobs[0].cancel()  # somebody no longer wants it: it is forgotten
    ended(jobs[0], quick)
    while not jobs[1].step:
        time.sleep(0.005)
    engine.close(grace=0)
    assert [quick.state, jobs[1].state] == ["done", "cancelled"]
    later = start()
    assert [job.id for job in later.jobs()] == [jobs[1].id]
    (again,) = ended(later.job(jobs[1].id))
    assert again.state == "done"
    assert again.request == jobs[1].request
    assert not list((later.results.folder / "waiting").glob("*.json"))


def test_what_is_made_after_a_restart_has_the_time_that_it_asked_for(start, monkeypatch):
    engine = start(active=1)
    slow = at_work(engine)
    with monkeypatch.context() as patch:
        patch.setattr("unnoise.engine.engine.perf_counter", lambda: 0.0)  # or one of them could be given up before
        times = 0.75, 5000.0, None
        asked = [engine.submit(Request("image", durable=True, timeout=each, **SLOW)) for each in times]
        engine.close(grace=0)
    assert slow.state == "cancelled"
    later = start(active=1, timeout=300.0)
    jobs = [later.job(job.id) for job in asked]
    assert [job.timeout for job in jobs] == [0.75, 300.0, 300.0]
    ended(jobs[0])
    assert isinstance(jobs[0].error, TookTooLong)


def test_a_disk_that_is_full_at_the_start_loses_no_request(start, monkeypatch):
    engine = start()
    job = engine.submit(Request("image", durable=True, **SLOW))
    engine.close(grace=0)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("unnoise.engine.waiting.write_atomically", full)
        assert start().jobs() == []
    assert [each.id for each in start().jobs()] == [job.id]


def test_a_note_that_cannot_be_deleted_keeps_nobody_waiting(start):
    engine = start(active=1)
    slow = at_work(engine)
    job = engine.submit(Request("points", durable=True))
    note = engine.results.folder / "waiting" / f"{job.id}.json"
    note.unlink()
    note.mkdir()
    slow.cancel()
    ended(job, engine.submit(Request("points")))
    assert job.state == "done"


def test_an_engine_leaves_alone_what_another_one_has_accepted(start):
    engine = start(active=1)
    job = engine.submit(Request("image", durable=True, **SLOW))
    assert start().jobs() == []
    job.cancel()


KILLED = """
import sys, time
from unnoise.engine.engine import Engine
from unnoise.engine.request import Request
from unnoise.engine.results import Results
from unnoise.engine.shelf import Shelf

engine = Engine(Shelf({"image": sys.argv[1]}), Results(sys.argv[2]))
done = engine.submit(Request("image", n=2, seed=1))
done.wait()
stay = lambda job: job.watch(lambda: job.step and time.sleep(60))
late = engine.submit(Request("image", n=16, steps=100, durable=True, seed=2), stay)
while not late.step:
    time.sleep(0.001)
print(done.id, late.id, flush=True)
time.sleep(60)
"""


def test_kill_nine_loses_nothing_that_was_finished_and_nothing_that_must_not_be_forgotten(start, folders, tmp_path):
    command = [sys.executable, "-c", KILLED, folders["image"], str(tmp_path / "results")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        done, late = process.stdout.readline().split()
        os.kill(process.pid, signal.SIGKILL)
    engine = start()
    assert torch.equal(engine.results.samples(done).tensor, load(folders["image"]).sample(2, seed=1).tensor)
    (again,) = ended(engine.job(late))
    assert again.state == "done"
    assert engine.results.numbers() == [late, done]


def test_requests_from_many_threads_are_all_answered(start):
    engine, made = start(active=4), []

    def ask(k):
        (job,) = ended(engine.submit(Request("points", steps=3 + k % 4, seed=k)))
        made.append(job.state)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert made == ["done"] * 24
    assert engine.counts["done"] == engine.counts["samples"] == 24
    assert engine.active() == engine.waiting() == 0


def test_the_count_of_network_calls_outlives_the_models(start, tmp_path):
    models = {name: make_model(seed=k) for k, name in enumerate("ab")}
    folders = {name: str(model.save(tmp_path / name)) for name, model in models.items()}
    engine = start(folders, memory=int(1.7 * models["a"].memory()))
    for name in "aba":
        ended(engine.submit(Request(name, steps=4)))
        gc.collect()
    assert engine.shelf.loads == 3
    assert engine.shared() == (12, 12)


def test_facts_are_plain(start):
    (job,) = ended(start().submit(Request("points", label="a", guidance=2.0)))
    facts = json.loads(json.dumps(job.facts()))
    assert facts["state"] == "done"
    assert facts["recipe"]["guidance"]["scale"] == 2.0
    assert Request.of(json.loads(json.dumps(job.request.plain()))) == job.request


def test_a_folder_of_results_of_nobody_holds_no_engine_back(folders, tmp_path):
    waiting = tmp_path / "results" / "waiting"
    waiting.mkdir(parents=True)
    (waiting / "20260101-000000-000-00000000.json").write_text("{")
    (waiting / "20260101-000000-000-00000001.json").write_text('{"by": "x", "request": {"mdl": 1}}')
    (waiting / "notes.json").write_text("[]")
    with Engine(Shelf(folders), Results(tmp_path / "results")) as engine:
        assert engine.jobs() == []
