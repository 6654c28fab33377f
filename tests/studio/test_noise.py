"""The room Noise: the numbers that the page draws from are those of the process."""

import base64

import numpy as np
import pytest
import torch

from unnoise.data.base import datasets
from unnoise.process.base import schedules
from unnoise.process.forward import add_noise
from unnoise.randomness import NoiseSource
from unnoise.recipes.forward_numbers import clean_and_noise, levels


def values(array):
    kind = {"float32": "<f4", "uint8": "u1"}[array["type"]]
    return np.frombuffer(base64.b64decode(array["data"]), kind).reshape(array["shape"])


@pytest.mark.parametrize("name", ["cosine", "linear", "flow", "variance_exploding"])
def test_the_levels_of_a_schedule_are_its_own(name):
    schedule = schedules.build(name)
    found = levels(schedule)
    t = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    torch.testing.assert_close(torch.tensor(found.alpha, dtype=torch.float64), schedule.alpha(t), rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.tensor(found.sigma, dtype=torch.float64), schedule.sigma(t), rtol=1e-12, atol=0)
    expected = [None if not torch.isfinite(each) else float(each) for each in schedule.log_snr(t)]
    assert [each is None for each in found.log_snr] == [each is None for each in expected]
    assert [each for each in found.log_snr if each is not None] == pytest.approx(
        [e for e in expected if e is not None], rel=1e-9
    )


def test_x_t_is_what_the_process_makes_of_the_same_data_and_noise():
    dataset = datasets.build({"name": "spiral"}).load()
    x_0, eps = clean_and_noise(dataset, 300)
    schedule = schedules.build("cosine")
    found = levels(schedule)
    k = 340
    mixed = found.alpha[k] * x_0 + found.sigma[k] * eps
    torch.testing.assert_close(mixed, add_noise(x_0, eps, schedule, torch.tensor((k + 1) / 1000)))
    assert x_0.mean(0).abs().max() < 1e-6
    assert x_0.std(0, correction=0) == pytest.approx([1, 1], abs=1e-6)


def test_the_server_gives_every_schedule_and_data_set_by_itself(studio):
    told = studio.get("api/noise/parts")
    assert {each["name"] for each in told["schedules"]} == set(schedules) - {"tabulated"}
    assert told["levels"] == 1000
    for name in told["data"]:
        found = studio.get(f"api/noise/data/{name}?n=50&seed=3")
        x_0, eps = values(found["x_0"]), values(found["eps"])
        assert x_0.shape == eps.shape
        assert np.isfinite(x_0).all()
        assert abs(eps.mean()) < 5 / np.sqrt(eps.size)
        assert found["kind"] in ("points", "image")


@pytest.mark.parametrize("spec", [{"name": "cosine", "s": 0.1}, {"name": "flow", "shift": 3.0}, {"name": "vp"}])
def test_a_curve_is_that_of_the_options_that_were_chosen(studio, spec):
    status, told = studio.ask("POST", "api/noise/curve", spec)
    assert status == 200
    schedule = schedules.build(spec)
    t = torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64)
    assert [told["alpha"][k] for k in (0, 499, 999)] == pytest.approx(schedule.alpha(t).tolist(), abs=1e-12)


def test_noise_for_a_picture_of_ones_own_is_that_of_the_seed(studio):
    found = values(studio.get("api/noise/eps?width=5&height=4&channels=3&seed=7"))
    expected = NoiseSource(7, [0]).start((3, 4, 5))[0]
    assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("curve", {"name": "cosin"}, "did you mean 'cosine'"),
        ("curve", {"name": "cosine", "s": 9}, "s: must be at most 1"),
        ("curve", {"name": "cosine", "shift": 1}, "there is no such option"),
        ("data/no-such", None, "no data set is called"),
        ("data/spiral?n=0", None, "greater than or equal to 1"),
        ("eps?width=100000&height=2", None, "less than or equal to 512"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_what_to_do(studio, path, value, told):
    status, answer = studio.ask("GET" if value is None else "POST", f"api/noise/{path}", value)
    assert 400 <= status < 500
    assert told in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]


def test_another_page_may_not_ask(studio):
    status, answer = studio.ask("POST", "api/noise/curve", {"name": "cosine"}, {"origin": "https://example.org"})
    assert status == 403
    assert "another site" in answer["error"]["message"]
    assert studio.ask("POST", "api/noise/curve", {"name": "cosine"}, {"origin": studio.url})[0] == 200
