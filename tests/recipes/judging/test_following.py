"""Adherence over settings: what is made, kept, counted and shown; by a model that does what it is told as far as is known."""

import json
from types import SimpleNamespace

import pytest
import torch

import unnoise
from unnoise.data.base import Dataset, Spec
from unnoise.data.scenes.words import parse
from unnoise.data.shapes import ShapesDataset, show
from unnoise.errors import BadOption, DataError, RunFolderError
from unnoise.evaluation.adherence import share
from unnoise.recipes.judging.following import follow, of_pictures, prompts_of
from unnoise.recipes.judging.following_page import HEADERS, table, write_page

SPEC = Spec("image", (3, 64, 64))
PROMPTS = prompts_of(None, 24, "held_out", 0)


class Obedient:
    """Shows what prompts say, in stronger colours the more guidance there is; without guidance only every other one."""

    spec, hash, path = SPEC, "0" * 64, None
    sampling = SimpleNamespace(guidance=1.0, steps=7)
    blueprint = SimpleNamespace(text="words")

    def __init__(self):
        self.calls = []

    def sample(self, n, *, prompt, first, guidance, steps, sampler, seed):
        self.calls.append((guidance, steps, first, n))
        x = show([parse(text) for text in prompt], seed=seed + first).float()
        if guidance == 1:
            x[(first + torch.arange(n)) % 2 == 1] = 240
        grey = x.mean(1, keepdim=True)
        x = (grey + (1 + 0.1 * (guidance - 1)) * (x - grey)).clamp(0, 255)
        return SimpleNamespace(tensor=x.round().to(torch.uint8))


def test_every_setting_is_measured_and_the_best_is_found(tmp_path):
    model, told = Obedient(), []
    found = follow(
        model, PROMPTS, guidance=[1, 2, 6], steps=[5], out=tmp_path / "a", progress=lambda *args: told.append(args)
    )
    assert [each.shares["everything"] for each in found.found.values()] == [share(12, 24), share(24, 24), share(24, 24)]
    assert found.best == (2, 5)
    assert told[-1] == ("pictures", 72, 72)
    off = [meters["saturation"].details["off"] for meters in found.meters.values()]
    assert off[0] < -0.3  # half of the pictures are empty
    assert abs(off[1]) < 0.2 < 0.25 < off[2]
    values = json.loads((tmp_path / "a" / "adherence.json").read_text())
    assert values == json.loads(json.dumps(found.as_dict()))
    assert values["best"] == {"guidance": 2, "steps": 5}
    assert [each["everything"]["value"] for each in values["settings"]] == [0.5, 1, 1]


def test_the_model_s_own_settings_are_taken_where_none_are_given(tmp_path):
    model = Obedient()
    assert list(follow(model, PROMPTS[:2], out=tmp_path / "a").found) == [(1.0, 7)]


def test_what_was_made_is_not_made_again_and_a_stop_loses_nothing(tmp_path):
    many = PROMPTS * 5  # two blocks and more
    model, calls = Obedient(), iter([False, True])
    assert follow(model, many, steps=[5], out=tmp_path / "a", stop=lambda: next(calls)) is None
    assert len(model.calls) == 1
    found = follow(model, many, steps=[5], out=tmp_path / "a")
    assert len(found.made[1.0, 5]) == 120
    assert [first for _, _, first, _ in model.calls] == sorted({first for _, _, first, _ in model.calls})
    again = follow(Obedient(), many, steps=[5], out=tmp_path / "a")
    assert again.as_dict() == found.as_dict()
    other = Obedient()
    follow(other, many, guidance=[1, 2], steps=[5], out=tmp_path / "a")
    assert {guidance for guidance, *_ in other.calls} == {2}


def test_other_prompts_or_another_model_need_another_folder(tmp_path):
    follow(Obedient(), PROMPTS[:2], out=tmp_path / "a")
    with pytest.raises(RunFolderError, match="differs in prompts"):
        follow(Obedient(), PROMPTS[:3], out=tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").touch()
    with pytest.raises(RunFolderError, match="holds no measurement of adherence"):
        follow(Obedient(), PROMPTS[:2], out=tmp_path / "b")


def test_models_of_other_pictures_and_prompts_about_something_else_are_refused_before_anything_is_made(tmp_path):
    model = Obedient()
    with pytest.raises(DataError, match="elephant"):
        follow(model, ["a red elephant and a red circle"], out=tmp_path / "a")
    model.spec = Spec("image", (1, 28, 28))
    with pytest.raises(DataError, match=r"square colour pictures, and this model makes image \(1, 28, 28\)"):
        follow(model, PROMPTS, out=tmp_path / "a")
    model = Obedient()
    model.blueprint = SimpleNamespace(text=None)
    with pytest.raises(BadOption, match="trained without words"):
        follow(model, PROMPTS, out=tmp_path / "a")
    assert not model.calls
    assert not (tmp_path / "a" / "settings.json").exists()


def test_the_page_says_what_was_found_and_shows_what_went_wrong(tmp_path):
    found = follow(Obedient(), PROMPTS, guidance=[1, 2], steps=[5, 9], out=tmp_path / "a")
    lines = table(found)
    assert [line[:3] for line in lines] == [
        ("1", "5", "50.0%"), ("1", "9", "50.0%"), ("2", "5", "100.0%"), ("2", "9", "100.0%"),
    ]  # fmt: skip
    assert all(len(line) == len(HEADERS) for line in lines)
    html = write_page(found, "runs/shapes", "unnoise adherence runs/shapes").read_text()
    assert "Does runs/shapes do what it is told?" in html
    assert "What went wrong" not in html  # nothing did, at the best setting
    assert html.count("<img") == 2
    half = follow(Obedient(), PROMPTS, steps=[5], out=tmp_path / "b")
    assert "What went wrong" in write_page(half, "runs/shapes").read_text()


def test_pictures_that_are_there_are_judged_by_their_captions(tmp_path):
    data = ShapesDataset(number=20).load()
    found = of_pictures(data, tmp_path)
    assert found.found[found.best].shares["everything"] == share(20, 20)
    assert write_page(found, "shapes").is_file()
    with pytest.raises(DataError, match="no captions"):
        of_pictures(Dataset(data.x, data.spec), tmp_path)


def test_prompts_are_the_lines_of_a_file_or_drawn_by_chance(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red circle\n\n  two blue rings \n")
    assert prompts_of(file, None, "train", 0) == ("a red circle", "two blue rings")
    assert prompts_of(file, 1, "train", 0) == ("a red circle",)
    assert len(prompts_of(None, None, "held_out", 0)) == 500
    assert all(len(parse(each).objects) == 1 for each in prompts_of(None, 50, "train", 0, most_objects=1))
    assert all(parse(text).held_out() for text in PROMPTS)
    file.write_text("\n")
    with pytest.raises(DataError, match="holds no prompts"):
        prompts_of(file, None, "train", 0)
    with pytest.raises(DataError, match="cannot be read"):
        prompts_of(tmp_path / "none.txt", None, "train", 0)


def test_a_model_that_was_trained_for_a_moment_is_asked_and_does_not_do_it_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    recipe = {
        "data": {"name": "shapes", "number": 64, "size": 32, "captions": "all"},
        "process": "flow",
        "denoiser": {"name": "velocity"},
        "conditioning": {"text": {"encoder": {"name": "transformer", "width": 16, "depth": 1, "heads": 2}}},
        "network": {"name": "dit", "width": 16, "depth": 1, "heads": 2, "patch": 8},
        "training": {"steps": 2, "batch_size": 8, "validation_size": 16, "sample_every": 0},
        "sampling": {"steps": 2},
    }
    model = unnoise.train(recipe, out=tmp_path / "run", progress=False)
    found = follow(model, PROMPTS, guidance=[1, 3])
    assert found.folder == tmp_path / "run" / "adherence"
    assert list(found.found) == [(1, 2), (3, 2)]
    assert found.made[1, 2].shape == (24, 3, 32, 32)
    assert found.found[1, 2].shares["everything"].value < 0.2
    assert write_page(found, "run").is_file()
