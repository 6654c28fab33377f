"""Models asked with words are judged with words: captions of the data, what guidance adds, and whether words reach them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from unnoise.cli.main import app
from unnoise.data.base import Dataset, Spec
from unnoise.denoisers.base import Denoiser
from unnoise.errors import BadOption, DataError, ModelFolderError
from unnoise.evaluation.retrieval import found_at, match_score, ranks_of
from unnoise.model import Model
from unnoise.recipes.clip_folder import load_clip
from unnoise.recipes.judging.caption_finding import WordsFound, _losses, _of_different, found_by_loss, judge_words
from unnoise.recipes.judging.captions_asked import CaptionsAsked
from unnoise.recipes.judging.levels import LINEAR, Levels, measure_levels
from unnoise.recipes.judging.parts import ErrorParts, Part
from unnoise.recipes.judging.run import find_subject
from unnoise.recipes.judging.split import error_parts
from unnoise.recipes.recipe import load_any_recipe, load_recipe
from unnoise.recipes.run import Run
from unnoise.recipes.tune import _captions
from unnoise.training.validation import Strata

pytestmark = pytest.mark.usefixtures("quick_features")

COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220), "green": (20, 150, 20), "black": (10, 10, 10)}
RECIPE = {
    "data": {"name": "folder", "size": 8, "cache": False, "labels": False},
    "process": "flow",
    "denoiser": {"name": "velocity"},
    "conditioning": {"text": {"encoder": {"name": "transformer", "width": 32, "depth": 1, "heads": 2, "length": 16}}},
    "network": {"name": "latent_unet", "width": 16, "multipliers": [1, 2], "blocks": 1, "attention": [1], "heads": 2},
    "training": {
        "steps": 120, "batch_size": 32, "lr": 3e-3, "warmup": 5, "validate_every": 500, "sample_every": 0,
        "checkpoint_every": 500, "validation_size": 16, "ema": 0.9, "validation_share": 0.4,
    },
    "machine": {"precision": "fp32"},
    "sampling": {"steps": 3, "sampler": "euler", "guidance": 2.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Halves in four colours, left and right, with captions."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(160):
        colour, side = list(COLOURS)[i % 4], ("left", "right")[i // 4 % 2]
        pixels = np.full((8, 8, 3), 245, np.uint8)
        pixels[:, slice(0, 4) if side == "left" else slice(4, 8)] = COLOURS[colour]
        noisy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"{colour} {side}\n{side}")
    return folder


def trained(place, folder, **more):
    run = Run(load_recipe({**RECIPE, "data": {**RECIPE["data"], "path": str(place)}}, **more), folder)
    for _ in run.events():
        pass
    return folder


@pytest.fixture(scope="module")
def model(place, tmp_path_factory):
    """A run that has learned its words."""
    return trained(place, tmp_path_factory.mktemp("runs") / "words")


@pytest.fixture(scope="module")
def fresh(place, tmp_path_factory):
    """A run that has learned nothing."""
    return trained(place, tmp_path_factory.mktemp("runs") / "fresh", training__steps=1)


def test_captions_are_dealt_out_each_once_before_any_comes_twice():
    texts = tuple(f"caption {i}\nmore" for i in range(7))
    data = Dataset(torch.zeros(7, 1), Spec("points", (1,), ("a", "b")), torch.arange(7) % 2, texts)
    asked = CaptionsAsked(data, seed=3)
    rows = asked.rows(0, 21).reshape(3, 7)
    assert all(sorted(row.tolist()) == list(range(7)) for row in rows)
    assert torch.equal(asked.rows(5, 9), rows.reshape(-1)[5:14])
    assert asked.texts(5, 9) == [f"caption {int(i)}" for i in rows.reshape(-1)[5:14]]
    assert asked.labels(5, 9) == ["ab"[int(i) % 2] for i in rows.reshape(-1)[5:14]]
    assert CaptionsAsked(data, seed=4).texts(0, 7) != asked.texts(0, 7)
    with pytest.raises(DataError, match="the real data has no captions"):
        CaptionsAsked(Dataset(torch.zeros(7, 1), data.spec))


def test_a_model_is_judged_with_captions_of_its_data_unless_something_else_is_said(model):
    subject, real = find_subject(model, {"seed": 1})
    assert subject.asks
    prompts = subject.prompts(0, 6)
    assert prompts == CaptionsAsked(real.held_out, 1).texts(0, 6)
    assert "\n" not in "".join(prompts)
    expected = Model.load(model).sample(6, prompt=prompts, seed=1).tensor
    assert torch.equal(subject.samples(0, 6), expected)
    one, none = (find_subject(model, {"prompt": each, "guidance": 3.0})[0] for each in ("red left", "none"))
    assert one.prompts(0, 2) == ["red left"] * 2
    assert not none.asks
    assert none.notes == ("guidance does nothing where no label and no prompt is asked for",)
    described = [each.describe() for each in (subject, one, none)]
    assert len({json.dumps(each, sort_keys=True) for each in described}) == 3
    with pytest.raises(BadOption, match="prompt: it is empty"):
        find_subject(model, {"prompt": " "})


def test_the_right_caption_is_found_by_the_loss_of_a_model_that_knows_words(model, fresh):
    data = find_subject(model)[1].held_out
    found = found_by_loss(Model.load(model), data)
    assert found.among == 8
    assert found.first.trials >= 24
    assert found.first.low > found.chance == 1 / 8
    assert found.rank < 3
    nothing = found_by_loss(Model.load(fresh), data)
    assert nothing.first.low < nothing.chance
    assert 3.2 < nothing.rank < 5.8


@pytest.fixture(scope="module")
def short_clip(place, tmp_path_factory):
    """A run of CLIP that reads two words."""
    run = Run(load_any_recipe({
        "kind": "clip", "data": {**RECIPE["data"], "path": str(place)}, "dim": 8,
        "text": {"encoder": {"name": "transformer", "width": 16, "depth": 1, "heads": 2, "length": 4}},
        "pictures": {"width": 8, "multipliers": [1, 2], "blocks": 1}, "machine": {"precision": "fp32"},
        "training": {
            "steps": 30, "batch_size": 16, "lr": 1e-2, "warmup": 0, "validate_every": 100, "sample_every": 0, "ema": 0.5,
            "checkpoint_every": 100, "validation_size": 16, "validation_share": 0.2,
        },
    }), tmp_path_factory.mktemp("runs") / "clip")  # fmt: skip
    for _ in run.events():
        pass
    return run.folder


def matched(clip, pictures, texts):
    """The score of pictures and their texts, and the mean place of each text's first picture, from cosines worked out here."""
    seen, read = clip.look(pictures).double().numpy(), clip.read(texts).double().numpy()
    cosines = (seen @ read.T) / np.outer(np.linalg.norm(seen, axis=1), np.linalg.norm(read, axis=1))
    first = sorted({text: i for i, text in reversed(list(enumerate(texts)))}.values())
    place = [1 + sum(cosines[i, k] > cosines[i, i] for k in first if k != i) for i in first]
    return 100 * np.mean(np.clip(np.diag(cosines), 0, None)), np.mean(place), np.mean(np.array(place) == 1), len(first)


def test_the_command_tells_how_samples_match_their_prompts_by_clip(model, short_clip):
    done = CliRunner().invoke(
        app, ["retrieve", str(model), "--clip", str(short_clip), "-n", "24", "--guidance", "3", "--seed", "5"]
    )
    assert done.exit_code == 0, done.output
    towers, data = load_clip(short_clip), find_subject(model)[1].held_out
    prompts = CaptionsAsked(data, 5).texts(0, 24)
    made = Model.load(model).sample(24, prompt=prompts, guidance=3.0, seed=5).tensor
    said = {line[:32].strip(): line[32:] for line in done.output.splitlines() if "->" in line}
    assert list(said) == [
        "picture -> caption by the loss",
        "sample -> prompt by CLIP",
        "real picture -> caption by CLIP",
    ]
    real = data.x, [text.splitlines()[0] for text in data.texts]
    for line, (pictures, texts) in zip(list(said.values())[1:], ((made, prompts), real), strict=True):
        score, place, first, among = matched(towers, pictures, texts)
        assert among == len(set(texts))
        assert line.startswith(f"CLIP score {score:.1f} (")
        assert f"{first:.1%} (" in line
        assert line.endswith(f"first of {among} (chance {1 / among:.1%}), mean place {place:.1f}")
    assert "note:" not in done.output


def test_captions_and_prompts_that_are_not_read_to_their_ends_are_said(model, short_clip, place, tmp_path):
    for i, caption in enumerate(("red left", "blue right " * 10, "green")):
        Image.new("RGB", (8, 8), (90 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(caption)
    found = judge_words(model, clip=short_clip, data=str(tmp_path), n=2, prompt="red red left", seed=1)
    told = "tokens that {} reads at once (one has {}), and what comes after is not {}: shorten such"
    remedy = "or take a CLIP that reads more"
    assert list(found.notes) == [
        f"captions: 1 of 3 is longer than the 16 {told.format('the encoder of the model', 22, 'judged')} captions",
        f"captions: 1 of 3 is longer than the 4 {told.format('CLIP', 22, 'read')} captions, {remedy}",
        f"prompts: 1 of 1 is longer than the 4 {told.format('CLIP', 5, 'read')} prompts, {remedy}",
    ]
    assert found.plain()["notes"] == list(found.notes)
    levels = Levels(Strata(1.0, (1.0,), (0.5,)), None, False)
    assert ErrorParts("kid", {}, None, (), levels, None, found).told[:3] == [("note", note) for note in found.notes]
    alone = judge_words(model, data=str(tmp_path))
    assert alone.notes == found.notes[:1]


def test_captions_are_held_against_others_that_say_something_else():
    blocks = _of_different(["a", "a", "b", "c", "b", "a", "c", "d"], 2)
    assert [block.tolist() for block in blocks] == [[0, 2], [3, 7], [1, 4]]


def test_errors_under_captions_are_those_of_the_denoiser(model):
    loaded = Model.load(model)
    z = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))

    class Fixed(Denoiser):
        schedule, sigma_data = loaded.denoiser.schedule, loaded.denoiser.sigma_data

        def forward(self, x_t, t, cond=None):
            return z + cond["context"][:, 0, 0].reshape(-1, 1, 1, 1)

    away = torch.tensor([1.0, 2.0, 3.0])
    states = {"context": away[:, None, None].expand(3, 2, 2), "context_mask": torch.ones(3, 2, dtype=torch.bool)}
    loaded.denoiser = Fixed()
    torch.testing.assert_close(_losses(loaded, z, states, 0, 5), (away**2 / (away**2).mean()).double())


def test_guidance_and_words_are_parts_of_an_error(model, tmp_path):
    found = error_parts(model, n=60, steps=3, fine=3, guidance=4.0, metric="kid", out=tmp_path / "out")
    assert [part.name for part in found.parts] == ["denoiser", "guidance", "steps"]
    assert found.parts[1].value != 0
    assert found.words.heard
    assert found.notes == ()
    assert [name for name, _ in found.told] == ["picture -> caption by the loss"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "caption by the loss" in page
    kept = json.loads((tmp_path / "out" / "parts.json").read_text())
    assert kept["words"]["by loss"]["among"] == 8


@pytest.fixture(scope="module")
def clip(place, tmp_path_factory):
    """A run of kind clip that has learned the same captions."""
    values = {
        "kind": "clip", "data": {**RECIPE["data"], "path": str(place)}, "dim": 16,
        "text": {"encoder": {"name": "transformer", "width": 16, "depth": 1, "heads": 2, "length": 12}},
        "pictures": {"width": 8, "multipliers": [1, 2], "blocks": 1},
        "training": {
            "steps": 100, "batch_size": 16, "lr": 1e-2, "warmup": 0, "validate_every": 100, "sample_every": 0, "ema": 0.9,
            "checkpoint_every": 100, "validation_size": 16, "validation_share": 0.2,
        },
        "machine": {"precision": "fp32"},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "clip"
    for _ in Run(load_any_recipe(values), folder).events():
        pass
    return folder


def test_clip_says_beside_the_parts_whether_samples_match_their_prompts(model, clip, tmp_path):
    asked = ["--steps", "3", "--fine", "3", "--metric", "kid", "--clip", str(clip), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["diagnose", str(model), "-n", "60", *asked])
    assert done.exit_code == 0, done.output
    told = [line for line in done.output.splitlines() if "by CLIP: CLIP score" in line]
    assert [line.partition(" by CLIP")[0] for line in told] == ["sample -> prompt", "real picture -> caption"]
    kept = json.loads((tmp_path / "out" / "parts.json").read_text())["words"]
    # The same from the pictures and the texts themselves.
    towers = load_clip(clip)
    subject, real = find_subject(model, {"steps": 3})
    data = real.held_out
    for name, pictures, texts in (
        ("made", subject.samples(0, 60), subject.prompts(0, 60)),
        ("real", data.x, [text.splitlines()[0] for text in data.texts]),
    ):
        cosines = (towers.look(pictures) * towers.read(texts)).sum(1)
        assert kept[name]["score"]["value"] == pytest.approx(100 * float(cosines.clamp(min=0).mean()), rel=1e-4)
        assert kept[name]["found"]["among"] == 8
    assert f"CLIP score {kept['made']['score']['value']:.1f} (" in told[0]
    assert kept["real"]["found"]["first"]["value"] >= 0.5  # four times chance
    for line in told:
        assert line.partition(": ")[2] in (tmp_path / "out" / "index.html").read_text()


def test_what_is_no_clip_is_told_before_anything_is_made(model, tmp_path):
    done = CliRunner().invoke(app, ["diagnose", str(model), "--clip", str(model), "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, ModelFolderError)
    assert str(model) in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_reference_is_asked_in_its_own_words(model, fresh):
    """Both read captions, each by a tokenizer and an encoder of its own."""
    subject, real = find_subject(fresh)
    levels = measure_levels(subject.model, real, Model.load(model))
    assert levels.floor is None
    own = measure_levels(find_subject(model)[0].model, real)
    assert own.reference.name == LINEAR
    assert levels.reference.loss.by_time == pytest.approx(own.loss.by_time, rel=1e-3)
    assert max(levels.excess) > 1


def test_guidance_of_nothing_is_no_part_of_an_error(digits, tmp_path):
    found = error_parts(
        digits, label="none", n=60, steps=2, fine=2, guidance=4.0, metric="kid", out=tmp_path / "labels"
    )
    assert [part.name for part in found.parts] == ["denoiser", "steps"]
    assert found.words is None
    ((name, note),) = found.told
    assert name == "note"
    assert note.startswith("no guidance: nothing is asked for (--label, --prompt), so that its scale of 4 does nothing")


def test_words_that_do_not_reach_a_model_are_said_to_be_mended():
    deaf, hears = (WordsFound(found_at(torch.tensor(place), 16)) for place in ([8.0] * 40, [1.0] * 40))
    assert (deaf.heard, hears.heard) == (False, True)
    levels = Levels(Strata(1.0, (1.0,), (0.5,)), None, False)
    part = Part("denoiser", 1.0, 0.5, 1.5, "", "train longer")
    told = [
        ErrorParts("kid", {}, None, parts, levels, None, words).sentence
        for parts in ((part,), ())
        for words in (deaf, hears)
    ]
    assert told[0].startswith(
        "Mend the denoiser first: train longer. It errs most at t = 0.50. Its words do not reach it yet"
    )
    assert told[1] == "Mend the denoiser first: train longer. It errs most at t = 0.50."
    assert told[2].startswith("Its words do not reach it yet")
    assert told[3].startswith("No part is more than chance")


def test_where_there_is_no_model_that_is_said(tmp_path):
    with pytest.raises(
        ModelFolderError, match="there is no model at nowhere: give a model folder, or the run folder around it"
    ):
        error_parts("nowhere")


def test_a_sampler_is_tuned_with_captions(model, digits):
    held_out = find_subject(model)[1].held_out
    assert _captions(Model.load(model), 6, 2) == CaptionsAsked(held_out, 2).texts(0, 6)
    assert _captions(Model.load(digits), 6, 2) is None  # which knows no words


def test_the_score_is_a_hundred_times_the_mean_cosine_and_ranks_are_counted_from_one():
    a = torch.nn.functional.normalize(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    assert match_score(a, a)[0] == pytest.approx(100)
    assert match_score(a, -a) == (0.0, 0.0, 0.0)
    other = torch.nn.functional.normalize(torch.randn(40, 5, generator=torch.Generator().manual_seed(1)), dim=1)
    each = 100 * (a * other).sum(1).clamp(min=0).double()
    score, low, high = match_score(a, other)
    assert score == pytest.approx(float(each.mean()), rel=1e-5)
    assert high - low == pytest.approx(2 * 1.96 * float(each.std()) / 40**0.5, rel=1e-5)
    scores = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 4.0], [1.0, 2.0, 0.0]], dtype=torch.float64)
    assert ranks_of(scores).tolist() == [1.0, 2.5, 3.0]
    assert found_at(torch.tensor([1.0, 2.5, 3.0]), 3).rank == pytest.approx(6.5 / 3)
