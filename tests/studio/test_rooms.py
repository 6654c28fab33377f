"""What the rooms ask the server for: made, watched, ended, looked back on, measured, kept and deleted."""

import json
import threading
import time
import urllib.request

import pytest
import torch
from safetensors.torch import load

from unnoise.denoisers.oracle import DatasetOracle
from unnoise.process.base import scales
from unnoise.process.forward import score_from_x_0
from unnoise.recipes.run_data import run_data
from unnoise.samplers.base import sample, samplers
from unnoise.samplers.grids import make_grid
from unnoise.samples import read_recipe
from unnoise.studio.jobs import kept_steps

from .test_noise import values


def tensors(studio, path):
    status, content = studio.ask("GET", path)
    assert status == 200, content
    return load(content)


def test_every_step_is_kept_and_ends_in_what_the_model_samples(studio):
    facts = studio.make(n=7, steps=9, seed=3, label="upper", guidance=1.5, keep_steps=True, strict=True)
    steps = tensors(studio, f"api/jobs/{facts['id']}/steps")
    expected = list(studio.model.previews(7, steps=9, seed=3, label="upper", guidance=1.5))
    assert steps["step"].tolist() == list(range(10))
    assert torch.equal(steps["noisy"], torch.stack([each.x for each in expected]))
    assert torch.equal(steps["denoised"][1:], torch.stack([each.denoised for each in expected[1:]]))
    assert torch.equal(steps["noisy"][-1], studio.model.sample(7, steps=9, seed=3, label="upper", guidance=1.5).tensor)
    assert facts["calls"] == 9
    for t, shrink in zip(steps["t"].tolist(), steps["shrink"].tolist(), strict=True):
        alpha, sigma = scales(studio.model.denoiser.schedule, t)
        spread = studio.model.blueprint.sigma_data
        assert shrink == pytest.approx(spread / (alpha**2 * spread**2 + sigma**2) ** 0.5, rel=1e-5)


def test_a_long_run_is_thinned_and_keeps_both_ends(studio):
    facts = studio.make(n=2, steps=40, keep_steps=True)
    few = kept_steps(studio.engine, facts["id"], 5)
    whole = kept_steps(studio.engine, facts["id"], 1001)
    assert few["step"].tolist() == [0, 10, 20, 30, 40]
    assert torch.equal(few["noisy"], whole["noisy"][few["step"].long()])


def test_events_tell_of_every_change_until_the_end(studio):
    facts = studio.ask("POST", "api/jobs", {"model": "moons", "n": 3, "steps": 30})[1]
    with urllib.request.urlopen(f"{studio.url}/api/jobs/events?of={facts['id']}") as stream:
        told = [json.loads(line[5:]) for line in stream.read().decode().splitlines() if line.startswith("data:")]
    assert told[-1]["state"] == "done"
    assert told[-1]["step"] == told[-1]["steps"] == 30
    assert [each["version"] for each in told] == sorted(each["version"] for each in told)
    for look in (each["look"] for each in told if "look" in each):
        assert values(look["noisy"]).shape == (3, 2)


def test_one_stream_tells_of_many_requests_until_the_last_ends(studio):
    asked = [{"model": "moons", "n": 3, "steps": steps} for steps in (20, 5, 10)]
    ids = [studio.ask("POST", "api/jobs", each)[1]["id"] for each in asked]
    query = "&".join(f"of={each}" for each in ids)
    with urllib.request.urlopen(f"{studio.url}/api/jobs/events?look=false&{query}") as stream:
        told = [json.loads(line[5:]) for line in stream.read().decode().splitlines() if line.startswith("data:")]
    for number, steps in zip(ids, (20, 5, 10), strict=True):
        own = [each for each in told if each["id"] == number]
        assert (own[-1]["state"], own[-1]["step"]) == ("done", steps)
        assert [each["state"] for each in own].count("done") == 1
    assert studio.ask("GET", f"api/jobs/events?of={ids[0]}&of=20200101-000000-000-00000000")[0] == 404


def test_what_runs_is_listed_until_it_ends(studio, slow_steps):
    facts = studio.ask("POST", "api/jobs", {"model": "moons", "n": 300, "steps": 1000, "keep_steps": True})[1]
    assert [each["id"] for each in studio.get("api/jobs")] == [facts["id"]]
    studio.ask("POST", f"api/jobs/{facts['id']}/cancel", {})
    assert studio.engine.job(facts["id"]).wait(30)
    assert studio.get("api/jobs") == []


def test_what_the_studio_measures_for_itself_is_not_in_the_gallery(studio):
    before = studio.get("api/gallery")["count"]
    own = studio.make(n=3, steps=2, listed=False)
    asked = studio.make(n=3, steps=2)
    found = studio.get("api/gallery?most=500")
    assert found["count"] == before + 1
    assert asked["id"] in {each["id"] for each in found["results"]}
    assert own["id"] not in {each["id"] for each in found["results"]}
    assert studio.ask("GET", f"api/steer/readings/{own['id']}")[0] == 200


def test_what_is_cancelled_ends_soon_and_leaves_nothing(studio):
    facts = studio.ask("POST", "api/jobs", {"model": "moons", "n": 300, "steps": 100_000 // 100})[1]
    threading.Event().wait(0.05)
    studio.ask("POST", f"api/jobs/{facts['id']}/cancel", {})
    assert studio.engine.job(facts["id"]).wait(30)
    assert studio.get(f"api/jobs/{facts['id']}")["state"] in ("cancelled", "done")


def test_the_exact_denoiser_of_the_data_starts_from_the_same_noise(studio):
    facts = studio.make(n=5, steps=12, seed=2, sampler="heun", keep_steps=True)
    steps = tensors(studio, f"api/denoise/exact/{facts['id']}")
    own = tensors(studio, f"api/jobs/{facts['id']}/steps")
    assert torch.equal(steps["noisy"][0], own["noisy"][0])
    model, data = studio.model, run_data(studio.model).train
    codec, schedule = model.blueprint.codec, model.denoiser.schedule
    oracle = DatasetOracle(codec.encode(data.x), schedule)
    grid = make_grid(facts["recipe"]["grid"], 12, schedule, sigma_data=model.denoiser.sigma_data)
    noise = model.noise(facts["recipe"], range(5))
    start = scales(schedule, float(grid[0]))[1] * noise.start((2,))
    expected = codec.decode(sample(samplers.build("heun"), oracle, start, grid))
    torch.testing.assert_close(steps["noisy"][-1], expected)
    nearest = torch.cdist(steps["noisy"][-1], data.x).min(1).values
    assert nearest.max() < 0.05  # the exact flow of a finite set ends on its points


def test_the_arrows_are_the_scores(studio):
    t = 0.4
    found = studio.get(f"api/denoise/field/moons?t={t}&lattice=7")
    model, data = studio.model, run_data(studio.model).train
    codec, schedule = model.blueprint.codec, model.denoiser.schedule
    at = torch.tensor(values(found["at"])).double()
    x, time_ = codec.encode(at), torch.tensor(t, dtype=torch.float64)
    exact = score_from_x_0(DatasetOracle(codec.encode(data.x.double()), schedule)(x, time_), x, schedule, time_)
    exact = exact / torch.tensor(codec.scale)  # the score of the data is one in its units
    torch.testing.assert_close(torch.tensor(values(found["exact"])).double(), exact, rtol=2e-4, atol=1e-5)
    assert 0 < found["error"] < 2
    assert values(found["learned"]).shape == (49, 2)


def test_guidance_is_measured_against_the_data(studio):
    facts = studio.make(n=40, steps=8, label="lower", guidance=3.0)
    found = {each["name"]: each for each in studio.get(f"api/steer/readings/{facts['id']}")}
    from unnoise.evaluation.adherence import NearestNeighbours

    data = run_data(studio.model).train
    known = NearestNeighbours(data.x, data.labels)
    made = studio.engine.results.samples(facts["id"]).tensor
    asked = torch.ones(40, dtype=torch.int64)
    assert found["adherence"]["value"] == pytest.approx(known.agreement(made, asked).value)
    assert found["diversity"]["value"] == pytest.approx(known.diversity(made, asked))
    low, high = data.x.amin(0), data.x.amax(0)
    outside = ((made < low) | (made > high)).any(1).float().mean()
    assert found["saturation"]["value"] == pytest.approx(float(outside))


def test_what_nobody_asked_for_is_not_followed(studio):
    facts = studio.make(n=4, steps=3)
    found = {each["name"]: each for each in studio.get(f"api/steer/readings/{facts['id']}")}
    assert found["adherence"]["value"] is None
    assert found["adherence"]["meaning"] == "nothing was asked for"


@pytest.mark.parametrize("suffix", [".png", ".npz", ".csv", ".gif", ".safetensors"])
def test_a_download_carries_its_recipe(studio, tmp_path, suffix):
    facts = studio.make(n=4, steps=3, seed=8, keep_steps=True)
    status, content = studio.ask("GET", f"api/gallery/{facts['id']}/samples{suffix}")
    assert status == 200
    (tmp_path / f"x{suffix}").write_bytes(content)
    recipe = read_recipe(tmp_path / f"x{suffix}")
    assert (recipe["seed"], recipe["steps"], recipe["n"]) == (8, 3, 4)


def test_the_gallery_replays_compares_and_deletes(studio):
    begin = {"image": [[0.5, -1.0]] * 6, "strength": 0.5}
    facts = studio.make(n=6, steps=5, seed=9, strict=True, blend={"seed": 4, "share": 0.3}, **begin)
    status, again = studio.ask("POST", f"api/gallery/{facts['id']}/replay", {})
    assert status == 200
    assert studio.engine.job(again["id"]).wait(60)
    first, second = (studio.ask("GET", f"api/gallery/{each['id']}/samples.npz")[1] for each in (facts, again))
    assert first == second
    listed = studio.get("api/gallery?most=500")
    assert {facts["id"], again["id"]} <= {each["id"] for each in listed["results"]}
    assert studio.ask("DELETE", f"api/gallery/{again['id']}") == (200, {"deleted": again["id"]})
    assert studio.ask("GET", f"api/gallery/{again['id']}/samples.npz")[0] == 404
    assert studio.get("api/gallery")["count"] == listed["count"] - 1


def test_a_model_is_dropped_in_part_by_part_and_used(studio):
    place = studio.folder / "runs/moons/model"
    for file in (each for each in place.iterdir() if each.suffix in (".yaml", ".safetensors")):
        content = file.read_bytes()
        for at in range(0, len(content), 20_000):
            path = f"api/models/dropped/files/{file.name}?at={at}"
            assert studio.ask("PUT", path, content[at : at + 20_000])[0] == 200
    assert studio.ask("POST", "api/models/dropped/whole", {}) == (200, {"added": "dropped"})
    card = next(each for each in studio.get("api/models")["models"] if each["name"] == "dropped")
    assert card["kind"] == "points"
    assert studio.get("api/models/dropped/description")["parameters"] == studio.model.parameters()
    assert studio.ask("POST", "api/models/dropped/whole", {})[0] == 400
    assert studio.ask("DELETE", "api/models/dropped")[0] == 200
    assert "dropped" not in studio.engine.shelf.names()


@pytest.mark.parametrize(
    ("name", "file", "content", "told"),
    [
        ("..", "model.yaml", b"x", "no name for a model"),
        ("a%2fb", "model.yaml", b"x", "Not Found"),
        ("odd", "evil.py", b"x", "does not belong to a model folder"),
        ("odd", ".hidden.yaml", b"x", "does not belong to a model folder"),
        ("odd", "weights.pkl", b"x", "does not belong to a model folder"),
        ("odd", "model.yaml?at=7", b"x", "expected the part from byte 0"),
    ],
)
def test_what_is_no_model_is_refused(studio, name, file, content, told):
    status, answer = studio.ask("PUT", f"api/models/{name}/files/{file}", content)
    assert status in (400, 404, 405)
    assert told in json.dumps(answer) or status in (404, 405)


def test_a_damaged_model_is_not_put_on_the_shelf(studio):
    studio.ask("PUT", "api/models/broken/files/model.yaml", b"format: 1\n")
    status, answer = studio.ask("POST", "api/models/broken/whole", {})
    assert status == 400
    assert ".partial" not in answer["error"]["message"]
    assert "broken" not in studio.engine.shelf.names()
    assert not list((studio.folder / "models").glob("*broken*"))


def wait_for(studio, name, states, seconds=240):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        facts = studio.get(f"api/train/runs/{name}")
        if facts["state"] in states:
            return facts
        time.sleep(0.3)
    raise AssertionError(facts)


@pytest.mark.timeout(900)
def test_a_run_is_begun_paused_resumed_and_its_model_used(studio):
    options = {
        "steps": 240,
        "batch_size": 32,
        "log_every": 5,
        "sample_every": 0,
        "validate_every": 120,
        "checkpoint_every": 60,
    }
    asked = {"name": "mine", "recipe": "spiral", "options": options, "seed": 1}
    status, facts = studio.ask("POST", "api/train/runs", asked)
    assert status == 200, facts
    assert studio.ask("POST", "api/train/runs", asked)[1]["error"]["message"].startswith("there is a run mine already")
    until = time.monotonic() + 240
    while (facts := studio.get("api/train/runs/mine"))["step"] < 5 and time.monotonic() < until:
        assert facts["state"] == "running", facts
        time.sleep(0.05)
    studio.ask("POST", "api/train/runs/mine/pause", {})
    facts = wait_for(studio, "mine", ("paused", "finished", "failed"))
    assert facts["state"] in ("paused", "finished")
    if facts["state"] == "paused":
        assert 0 < facts["step"] < 240
        assert studio.ask("POST", "api/train/runs/mine/resume", {})[0] == 200
        facts = wait_for(studio, "mine", ("finished", "failed"))
    assert facts["state"] == "finished", facts
    curves = facts["curves"]
    assert curves["step"][-1] == 240
    assert len(curves["loss"]) == len(curves["smoothed"]) == len(curves["step"])
    assert curves["floor"] is not None
    assert curves["validated"]["step"] == [0, 120, 240] or curves["validated"]["step"][-1] == 240
    assert "mine" in studio.engine.shelf.names()
    assert studio.make(model="mine", n=3, steps=2)["state"] == "done"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "../x", "recipe": "spiral"}, "no name for a run"),
        ({"name": "x", "recipe": "spirl"}, "did you mean 'spiral'"),
        ({"name": "x", "recipe": "spiral", "data": "/etc"}, "does not lie in"),
        ({"name": "x", "recipe": "spiral", "data": "../../etc"}, "does not lie in"),
        ({"name": "x", "recipe": "spiral", "options": {"steps": 0}}, "training.steps: must be at least 1"),
        ({"name": "x", "recipe": "spiral", "options": {"stepps": 1}}, "there is no such option"),
        ({"name": "x"}, "recipe: field required"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(studio, values, told):
    status, answer = studio.ask("POST", "api/train/runs", values)
    assert status in (400, 404)
    assert told in answer["error"]["message"]
    assert not (studio.folder / "runs/x").exists()


def test_data_is_looked_at(studio):
    status, found = studio.ask("POST", "api/train/look", {"path": "digits"})
    assert status == 200
    assert (found["count"], found["kind"], found["shape"]) == (1797, "image", [1, 8, 8])
    assert values(found["shown"]).shape == (64, 1, 8, 8)
    assert len(found["names"]) == 64
    assert studio.ask("POST", "api/train/look", {"path": "/etc/passwd"})[0] == 400
