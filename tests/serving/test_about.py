"""What a server tells of itself; and its description, against which it is tried with whatever fits it and what does not."""

import re

import hypothesis
import pytest
import schemathesis

from unnoise.guidance.base import guidances
from unnoise.options import build
from unnoise.samplers.base import samplers
from unnoise.samplers.grids import GRIDS

from .conftest import SLOW


def test_every_part_is_described_with_its_options_from_its_own_declaration(client):
    parts = client.get("/v1/parts").json()
    assert set(parts["samplers"]) == set(samplers)
    assert set(parts["guidances"]) == set(guidances)
    assert parts["grids"]["names"] == sorted(GRIDS)
    eta = parts["samplers"]["ddim"]["properties"]["eta"]
    assert (eta["type"], eta["minimum"], eta["maximum"], eta["default"]) == ("number", 0, 1, 0.0)
    assert eta["description"]
    assert parts["guidances"]["classifier_free"]["properties"]["interval"]["default"] == [0.0, 1.0]


def test_a_new_sampler_appears_by_itself(monkeypatch):
    from dataclasses import dataclass

    from unnoise.options import option
    from unnoise.samplers.euler import EulerSampler
    from unnoise.serving.about import parts

    list(samplers)
    monkeypatch.setattr(samplers, "_members", dict(samplers._members))

    @samplers.register("brand_new")
    @dataclass(frozen=True)
    class BrandNewSampler(EulerSampler):
        """Steps anew."""

        zeal: float = option(0.5, help="how much of it", low=0, high=2)

    told = parts()["samplers"]["brand_new"]
    assert told["properties"]["zeal"] == {
        "description": "how much of it", "type": "number", "minimum": 0, "maximum": 2, "default": 0.5
    }  # fmt: skip
    assert told["description"] == "Steps anew."


@pytest.mark.parametrize("registry", [samplers, guidances], ids=["samplers", "guidances"])
def test_the_defaults_of_the_schema_are_taken_by_the_parts(registry):
    members = {each["title"]: each for each in registry.json_schema()["anyOf"] if "title" in each}
    assert set(members) == set(registry)
    for name, told in members.items():
        defaults = {key: each["default"] for key, each in told["properties"].items() if "default" in each}
        assert told["required"] == ["name"]
        assert build(registry.options_class(name), defaults) == registry.build(name)


def test_health_and_figures(client):
    assert client.get("/health").json()["status"] == "ok"
    client.post("/v1/images/generations", json={"model": "digits", "n": 2})
    text = client.get("/metrics").text
    figures = dict(re.findall(r"^(unnoise_\w+) (\S+)$", text, re.MULTILINE))
    assert float(figures["unnoise_samples_total"]) >= 2
    assert float(figures["unnoise_models_bytes"]) > 0
    assert float(figures["unnoise_network_calls_asked_total"]) >= float(figures["unnoise_network_calls_total"]) > 0
    assert 'unnoise_requests_total{state="done"}' in text
    assert 'unnoise_http_answers_total{method="POST",route="/v1/images/generations",status="200"}' in text
    for line in text.strip().splitlines():  # of the text format
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [\d.e+-]+', line), line


def test_the_description_has_examples_that_work(client):
    described = client.get("/openapi.json").json()
    assert client.get("/docs").status_code == 200
    assert client.get("/", follow_redirects=False).headers["location"] == "docs"
    for path, kind in (
        ("/v1/jobs", "JobAsked"),
        ("/v1/images/generations", "ImagesAsked"),
        ("/sdapi/v1/txt2img", "TextToImage"),
    ):
        for example in described["components"]["schemas"][kind]["examples"]:
            asked = {"model": "digits", **example}
            asked |= {key: "a" for key in ("label", "prompt") if asked.get(key)}
            if kind == "ImagesAsked" and "label" not in asked:
                asked |= {"prompt": "", "label": "a"}
            asked |= {"steps": 2} if kind == "TextToImage" else {}
            answer = client.post(path, json=asked)
            assert answer.status_code in (200, 202), answer.text


def test_while_it_shuts_down_it_says_so(start):
    client = start()
    job = client.post("/v1/jobs", json={"model": "digits", **SLOW}).json()["id"]
    client.engine.closing = True
    assert client.get("/health").status_code == 503
    assert client.post("/v1/jobs", json={"model": "digits"}).status_code == 429
    client.engine.job(job).cancel()


def test_nothing_that_fits_the_description_or_does_not_is_answered_by_a_fault(client):
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    tried = []

    for result in schema.get_all_operations():
        operation = result.ok()
        strategy = operation.as_strategy()

        @hypothesis.given(case=strategy)
        @hypothesis.settings(
            max_examples=4,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def each(case):
            ask_one(case, tried)

        each()
    assert len(tried) > 50
    assert {200, 400, 404} <= set(tried)  # some were answered with what they asked for, and some refused


def ask_one(case, tried):
    """Asks once, for few samples of few steps, so that it does not take long."""
    if "/events" in case.path:
        return
    body = case.body
    if isinstance(body, dict):
        for name, most in (("n", 3), ("steps", 4), ("num_inference_steps", 4), ("batch_size", 3), ("n_iter", 2)):
            if isinstance(body.get(name), int):
                body[name] = min(body[name], most)
    answer = case.call(timeout=60)
    tried.append(answer.status_code)
    assert answer.status_code < 500, (case.method, case.path, case.body, answer.text)
