"""Results on disk: there whole or not at all, under names that lead nowhere else."""

import json
import os

import pytest
import torch

from unnoise.engine.results import FACTS, NUMBER, SAMPLES, Results, Steps, new_number
from unnoise.errors import DataError, NoSuchJob

from ..conftest import make_model


@pytest.fixture(scope="module")
def samples():
    return make_model("image").sample(2, label="a", steps=3)


def test_numbers_differ_and_sort_by_their_time():
    numbers = [new_number() for _ in range(200)]
    assert len(set(numbers)) == 200
    assert [each[:19] for each in numbers] == sorted(each[:19] for each in numbers)
    assert all(NUMBER.fullmatch(each) for each in numbers)


@pytest.mark.parametrize("sync", [False, True])
def test_what_is_kept_comes_back(tmp_path, samples, sync):
    results, number = Results(tmp_path), new_number()
    t = torch.linspace(1, 0, 4, dtype=torch.float64)
    steps = Steps(t, torch.ones_like(t), *torch.zeros(2, 4, 2, 1, 6, 6, dtype=torch.uint8).clone().unbind())
    results.keep(number, samples, steps, {"id": number, "state": "done"}, sync)
    again = Results(tmp_path)
    assert again.numbers() == [number]
    assert torch.equal(again.samples(number).tensor, samples.tensor)
    assert again.samples(number).encode(".png") == samples.encode(".png")
    assert torch.equal(again.steps(number).t, steps.t)
    assert again.list()[0]["recipe"] == json.loads(json.dumps(samples.recipe))
    again.delete(number)
    assert again.numbers() == []
    for missing in (again.facts, again.samples, again.steps, again.delete):
        with pytest.raises(NoSuchJob):
            missing(number)


@pytest.mark.parametrize("name", ["..", "../other", "/etc/passwd", "", ".", "20260101-000000-000-0000000\n", "a" * 500])
def test_a_name_that_is_no_number_leads_nowhere(tmp_path, name):
    with pytest.raises(NoSuchJob, match="no request has the number"):
        Results(tmp_path).place(name)


def test_what_was_half_written_when_a_process_died_is_no_result(tmp_path, samples):
    half = tmp_path / f".{new_number()}.999999999.partial"
    half.mkdir()
    (half / FACTS).write_text("{}")
    assert Results(tmp_path).list() == []
    assert not half.exists()


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(tmp_path, samples):
    results, number = Results(tmp_path), new_number()
    half = tmp_path / f".{number}.{os.getpid()}.partial"
    half.mkdir()
    (half / SAMPLES).write_bytes(b"half")
    results.keep(number, samples, None, {"id": number}, True)
    assert torch.equal(results.samples(number).tensor, samples.tensor)
    assert not half.exists()


def test_damaged_results_are_told_and_do_not_hide_the_others(tmp_path, samples):
    results = Results(tmp_path)
    whole, damaged, odd = new_number(), new_number(), new_number()
    for number in (whole, damaged, odd):
        results.keep(number, samples, None, {"id": number}, False)
    (results.place(damaged) / FACTS).write_text("{")
    (results.place(odd) / SAMPLES).write_bytes(b"nothing")
    assert {facts["id"] for facts in results.list()} == {whole, odd}
    with pytest.raises(DataError, match="is damaged"):
        results.facts(damaged)
    with pytest.raises(DataError, match="is damaged"):
        results.samples(odd)
    with pytest.raises(DataError, match="were not kept"):
        results.steps(whole)


def test_a_write_that_fails_leaves_nothing(tmp_path, samples, monkeypatch):
    results = Results(tmp_path)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("unnoise.engine.results.write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        results.keep(new_number(), samples, None, {}, True)
    assert results.numbers() == []
    assert not list(tmp_path.glob(".*partial"))
