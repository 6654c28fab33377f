"""Models that are asked with words: trained, saved, sampled, replayed, and what they refuse."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import unnoise
from unnoise.data.base import datasets
from unnoise.errors import BadOption, DataError, ModelFolderError, RunFolderError
from unnoise.model import Model
from unnoise.objectives.mse import preconditioned
from unnoise.recipes.attention import attention_picture
from unnoise.recipes.prepare import prepare
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.samples import read_recipe
from unnoise.training.captions import Captions, lines
from unnoise.training.draws import DrawStream

COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220)}
NO_FLOOR = {"name": "mse", "noise": {"offset": 0.05}}  # none is worked out of it, which would take seconds
SMALL = {
    "data": {"name": "folder", "size": 8, "cache": False},
    "process": "flow",
    "denoiser": {"name": "velocity"},
    "conditioning": {"text": {"encoder": {"name": "transformer", "width": 16, "depth": 1, "heads": 2, "length": 16}}},
    "network": {"name": "latent_unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [1], "heads": 2},
    "training": {
        "steps": 3, "batch_size": 8, "lr": 2e-3, "warmup": 0, "validate_every": 100, "sample_every": 0,
        "checkpoint_every": 100, "validation_size": 16, "ema": 0.9,
    },
    "machine": {"precision": "fp32"},
    "sampling": {"steps": 3, "sampler": "euler"},
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Red and blue squares, left and right, in a folder for each colour, with captions beside them."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(32):
        colour, side = ("red", "blue")[i % 2], ("left", "right")[i // 2 % 2]
        pixels = np.full((8, 8, 3), 255, np.uint8)
        pixels[:, slice(0, 4) if side == "left" else slice(4, 8)] = COLOURS[colour]
        place = folder / colour
        place.mkdir(exist_ok=True)
        Image.fromarray(np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)).save(
            place / f"{i}.png"
        )
        (place / f"{i}.txt").write_text(f"{colour} {side}\na {colour} square on the {side}\n")
    return folder


def recipe(pictures, **more):
    return load_recipe({**SMALL, "data": {**SMALL["data"], "path": str(pictures)}}, **more)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("runs") / "run"
    unnoise.train(recipe(pictures), folder, progress=False)
    return folder


@pytest.fixture
def model(run_folder):
    model = Model.load(run_folder)
    with torch.no_grad():  # away from the zero start, so that every weight matters
        generator = torch.Generator().manual_seed(0)
        for p in model.denoiser.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model.save(run_folder.parent / "moved") and Model.load(run_folder.parent / "moved")


def test_prompts_reach_the_samples_and_files_carry_them(model, tmp_path):
    plain, red = model.sample(2, seed=3), model.sample(2, prompt="a red square", seed=3)
    assert not torch.equal(plain.tensor, red.tensor)
    assert red.notes == ()
    away = model.sample(2, prompt="a red square", negative_prompt="left", guidance=3.0, seed=3)
    assert not torch.equal(away.tensor, model.sample(2, prompt="a red square", guidance=3.0, seed=3).tensor)
    heavy = model.sample(2, prompt="a (red:3) square", seed=3)
    assert not torch.equal(heavy.tensor, red.tensor)
    (path,) = away.save(tmp_path / "red.png")
    told = read_recipe(path)
    assert (told["prompt"], told["negative_prompt"]) == ("a red square", "left")
    assert torch.equal(model.replay(told).tensor, away.tensor)
    with Image.open(path) as picture:
        shown = picture.info["parameters"]
    assert shown.startswith("a red square\nNegative prompt: left\nSteps: 3")


def test_a_prompt_for_each_sample_is_as_each_alone(model, tmp_path):
    prompts = ["a red square", None, "blue right", "a red square"]
    mixed = model.sample(4, prompt=prompts, guidance=2.0, seed=5, batch_size=3)
    for k, prompt in enumerate(prompts):
        alone = model.sample(1, prompt=[prompt], guidance=2.0, seed=5, first=k).tensor
        assert (mixed.tensor[k : k + 1].int() - alone.int()).abs().max() <= 1
    files = mixed.save(tmp_path / "many")
    last = read_recipe(files[3])
    assert last["prompt"] == ["a red square"]
    assert torch.equal(model.replay(last).tensor, mixed.tensor[3:])


def test_the_encoder_runs_once_for_a_run_of_samples(model):
    calls = []
    preconditioned(model.denoiser).network.text.register_forward_hook(lambda *_: calls.append(1))
    model.sample(6, prompt="a red square", negative_prompt="left", guidance=2.0, batch_size=2, steps=5)
    assert len(calls) <= 3  # the prompt, the other, and the empty text


def test_words_and_labels_are_asked_for_together_or_alone(model):
    asked = ({"label": "red", "prompt": "left"}, {"label": "red"}, {"prompt": "left"}, {})
    made = [model.sample(2, seed=1, guidance=2.0, **each).tensor for each in asked]
    assert all(not torch.equal(one, other) for i, one in enumerate(made) for other in made[:i])


def test_a_model_moved_away_knows_its_words(run_folder, tmp_path):
    there = Model.load(run_folder)
    (run_folder / "model").rename(tmp_path / "model")
    try:
        moved = Model.load(tmp_path / "model")
        assert moved.hash == there.hash
        assert {file.suffix for file in (tmp_path / "model").iterdir()} == {".yaml", ".safetensors"}
        one, other = (each.sample(2, prompt="blue left", seed=2).tensor for each in (there, moved))
        assert torch.equal(one, other)
        assert moved.sample(1, prompt="gren left").notes[0].startswith("prompt: no caption that the model learned")
        text = next((tmp_path / "model").glob("text-*.safetensors"))
        content = text.read_bytes()
        text.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ModelFolderError, match=r"text-.*safetensors is damaged: its checksum does not fit"):
            Model.load(tmp_path / "model")
        text.write_bytes(content)
    finally:
        (tmp_path / "model").rename(run_folder / "model")


def test_a_run_killed_and_gone_on_with_ends_with_the_same_bytes(pictures, tmp_path):
    more = {"training__steps": 4, "training__checkpoint_every": 2}
    whole, halves = (
        Run(recipe(pictures, **more), tmp_path / "whole"),
        Run(recipe(pictures, **more), tmp_path / "halves"),
    )
    for _ in whole.events():
        pass
    for _ in halves.events(lambda: halves.state.step == 2):
        pass
    again = Run(recipe(pictures, **more), tmp_path / "halves")
    assert again.state.step == 2
    for _ in again.events():
        pass
    assert again.model().weights_hash == whole.model().weights_hash
    one, other = (Model.load(tmp_path / name).sample(1, prompt="red left").tensor for name in ("whole", "halves"))
    assert torch.equal(one, other)


def draws(pictures, count=64, **more):
    prepared = prepare(recipe(pictures, **more))
    denoiser = prepared.blueprint.build(0)
    stream = DrawStream(
        prepared.train, prepared.blueprint.codec, denoiser, prepared.recipe.objective, 8, 0, captions=prepared.captions
    )
    return prepared, stream.draws(np.arange(count, dtype=np.int64)), denoiser


def test_words_and_labels_are_dropped_together_and_apart(pictures):
    _, drawn, denoiser = draws(
        pictures, 4000, objective={"name": "mse", "condition_dropout": 0.2}, conditioning__text__apart=0.4
    )
    null = denoiser.null_condition(1)
    silent = (drawn.cond["text"] == null["text"][:, : drawn.cond["text"].shape[1]]).all(1)
    bare = drawn.cond["label"] == null["label"]
    shares = [float(each.double().mean()) for each in (silent & bare, silent & ~bare, ~silent & bare)]
    assert shares == pytest.approx([0.2, 0.16, 0.16], abs=0.025)


def test_a_place_of_the_run_has_the_same_caption_in_any_batch_and_both_lengths_come(pictures):
    prepared, drawn, _ = draws(pictures, 400, objective={"name": "mse", "condition_dropout": 0.0},
                               conditioning__text__first=0.25, conditioning__text__apart=0.0)  # fmt: skip
    text = prepared.captions.text
    short = {
        tuple(row.tolist())
        for row in text.ids(["red left", "red right", "blue left", "blue right"], prepared.captions.length)
    }
    first = torch.tensor([tuple(row.tolist()) in short for row in drawn.cond["text"]])
    assert float(first.double().mean()) == pytest.approx(0.25, abs=0.06)
    assert drawn.cond["text"].shape[1] % 8 == 0
    texts = [prepared.train.texts[int(i)] for i in np.arange(len(prepared.train))]
    positions = np.arange(20, 30, dtype=np.int64)
    some = [texts[i % len(texts)] for i in range(10)]
    whole = prepared.captions.drawn(some * 3, 7, np.arange(10, 40, dtype=np.int64))
    assert prepared.captions.drawn(some, 7, positions) == whole[10:20]


def test_captions_of_one_picture_share_what_the_first_leaves():
    captions = Captions(None, first=0.4)
    drawn = captions.drawn(["one\ntwo\n\nthree"] * 3000, 0, np.arange(3000, dtype=np.int64))
    shares = [drawn.count(each) / 3000 for each in ("one", "two", "three")]
    assert shares == pytest.approx([0.4, 0.3, 0.3], abs=0.03)
    assert lines("one") == ["one"]
    assert set(Captions(None, first=0.0).drawn(["a\nb"] * 9, 0, np.arange(9, dtype=np.int64))) == {"b"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder with a small BERT and its tokenizer."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "left", "right", "a", "square", "on", "the"]
    inner = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    inner.save(str(folder / "tokenizer.json"))
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def given(bert, **more):
    return {"conditioning": {"text": {"path": str(bert), **more}}}


def test_an_encoder_from_a_folder_stays_as_it_was_and_goes_with_the_model(pictures, bert, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    run = Run(recipe(pictures, **given(bert), machine__precision="bf16"), tmp_path / "run")
    for _ in run.events():
        pass
    before = run.blueprint.text.pretrained
    assert not [name for name in run.state.names if name.startswith("text.")]
    (kept,) = (tmp_path / "cache" / "captions").iterdir()
    at = kept.stat().st_mtime_ns
    bert.rename(bert.parent / "gone")
    try:
        model = Model.load(tmp_path / "run")
    finally:
        (bert.parent / "gone").rename(bert)
    found = preconditioned(model.denoiser).network.text.state_dict()
    assert found.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in found.items())
    red, blue = (model.condition(None, 1, prompt)["context"] for prompt in ("red left", "blue right"))
    assert (red - blue).abs().amax() > 0.1
    other = Run(recipe(pictures, **given(bert), machine__precision="bf16"), tmp_path / "other")
    for _ in other.events():
        pass
    assert kept.stat().st_mtime_ns == at
    assert other.model().weights_hash == run.model().weights_hash


def test_another_encoder_in_the_place_of_the_first_is_not_gone_on_with(pictures, run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "encoder"
    shutil.copytree(run_folder, place)
    asked = recipe(pictures, **given(place))
    run = Run(asked, tmp_path / "run")
    for _ in run.events(lambda: run.state.step >= 2):
        pass
    assert Run(asked, tmp_path / "run").state.step == 2
    model = Model.load(place)
    with torch.no_grad():
        next(preconditioned(model.denoiser).network.text.parameters()).mul_(1.5)
    model.save(place / "model")
    told = r"conditioning\.text\.path holds another encoder than the one that the run in .*run began with: put that one back"
    with pytest.raises(RunFolderError, match=told):
        Run(asked, tmp_path / "run")


def test_what_is_learned_from_states_that_were_kept_is_what_the_encoder_says(pictures, bert, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path))
    quiet = {"objective": {"name": "mse", "condition_dropout": 0.3}, "conditioning__text__apart": 0.0}
    prepared, drawn, denoiser = draws(pictures, 16, **given(bert), **quiet)
    assert prepared.captions.length == 8
    network = preconditioned(denoiser).network
    texts = prepared.train.take(torch.from_numpy(prepared.train.order(0, 8).index_at(np.arange(16)))).texts
    captions = prepared.captions.drawn(texts, 0, np.arange(16, dtype=np.int64))
    told = network.states(prepared.captions.text.ids(captions, 8))
    null = network.empty()
    for i in range(16):
        there = [each["context"][i if len(each["context"]) > 1 else 0, :8] for each in (told, null)]
        assert min(float((drawn.cond["context"][i] - each).abs().max()) for each in there) < 2e-3
    learning = recipe(pictures, **given(bert, learned=True))
    run = Run(learning, tmp_path / "learning")
    assert [name for name in run.state.names if name.startswith("text.")]


def test_the_encoder_of_one_model_serves_another(pictures, run_folder, tmp_path, monkeypatch):
    prepared = prepare(recipe(pictures, **given(run_folder)))
    text, source = prepared.blueprint.text, Model.load(run_folder)
    assert (text.tokenizer, text.encoder) == (source.blueprint.text.tokenizer, source.blueprint.text.encoder)
    assert not text.learned
    own = preconditioned(source.denoiser).network.text.state_dict()
    found = preconditioned(prepared.blueprint.build(5)).network.text.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in found.items())
    unnoise.train(recipe(pictures, conditioning={"text": None}, training__steps=1), tmp_path / "plain", progress=False)
    with pytest.raises(
        ModelFolderError, match=r"plain understands no words: give a CLIP, or a model that learned captions"
    ):
        prepare(recipe(pictures, **given(tmp_path / "plain")))


def test_training_goes_on_from_a_model_with_its_words(pictures, run_folder, tmp_path):
    start = {"start": {"model": str(run_folder)}, "training__steps": 1}
    run = Run(recipe(pictures, **start), tmp_path / "run")
    assert run.blueprint.text == Model.load(run_folder).blueprint.text
    for _ in run.events():
        pass
    assert Model.load(tmp_path / "run").sample(1, prompt="red").tensor.shape == (1, 3, 8, 8)


def test_a_run_that_starts_from_a_model_says_that_another_encoder_is_not_looked_at(pictures, run_folder):
    start = {"start": {"model": str(run_folder)}}
    assert prepare(recipe(pictures, **start)).notes == ()
    told = "words: the model that the run starts from keeps its own encoder: conditioning.text.{} is not looked at"
    for options, name in ((given(run_folder), "path"), ({"conditioning__text__encoder__depth": 2}, "encoder")):
        prepared = prepare(recipe(pictures, **start, **options))
        assert list(prepared.notes) == [told.format(name)]
        assert prepared.blueprint.text == Model.load(run_folder).blueprint.text


def test_data_without_captions_is_refused_with_where_and_what_to_do(pictures, tmp_path):
    for i in range(4):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    with pytest.raises(
        DataError, match=r"conditioning\.text: .* has no captions to learn from \(no sample has one\): give"
    ):
        prepare(recipe(tmp_path))
    (tmp_path / "1.txt").write_text("red")
    with pytest.raises(
        DataError, match=r"no captions to learn from \(none are used, for 3 of 4 images have none, e\.g\. 0\.png"
    ):
        prepare(recipe(tmp_path))
    with pytest.raises(DataError, match="has no captions to learn from"):
        prepare(load_recipe({**SMALL, "data": "digits"}))


def test_captions_that_say_nothing_are_refused_with_the_first_of_them(tmp_path):
    from pyarrow import parquet, table

    columns = {"a": [float(i) for i in range(5)], "b": [1.0, 0.0] * 2 + [3.0], "text": ["red", "blue", " ", "left", ""]}
    parquet.write_table(table(columns), tmp_path / "points.parquet")
    for name in ("parquet", "shards"):
        asked = load_recipe({
            "data": {"name": name, "path": str(tmp_path / "points.parquet")}, "conditioning": SMALL["conditioning"],
            "training": SMALL["training"], "network": SMALL["network"],
        })  # fmt: skip
        with pytest.raises(DataError) as refused:
            prepare(asked)
        assert str(refused.value) == (
            f"conditioning.text: 2 of the 5 captions of {tmp_path / 'points.parquet'} are empty, e.g. that of sample 2 of those "
            "that are looked at: write them, or leave these samples out"
        )


def test_captions_that_are_too_long_are_counted_with_what_helps(run_folder, bert, tmp_path):
    for i in range(8):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("red" if i == 3 else "a red square on the left " * 8)
    shorten = "shorten such captions, for this encoder cannot read more"
    for options, length, remedy in (
        ({}, 16, "raise conditioning.text.encoder.length"),
        (given(run_folder), 16, shorten),
        (given(run_folder, length=8), 8, "raise conditioning.text.length"),
        (given(bert), 32, shorten),
        (given(bert, length=12), 12, "raise conditioning.text.length"),
        ({"start": {"model": str(run_folder)}}, 16, shorten),
    ):
        (note,) = prepare(recipe(tmp_path, **options)).notes
        told = f"captions: 7 of 8 are longer than the {length} tokens that the encoder reads at once (one has 50)"
        assert note == f"{told}, and what comes after is not learned: {remedy}"


def test_the_encoder_of_another_run_reads_as_much_as_is_asked_for(pictures, run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    unnoise.train(recipe(pictures, **given(run_folder, length=7), training__steps=1), tmp_path / "run", progress=False)
    whole, short = Model.load(run_folder), Model.load(tmp_path / "run")
    assert (whole.blueprint.text.length, short.blueprint.text.length) == (16, 7)
    own, less = (preconditioned(each.denoiser).network.text for each in (whole, short))
    assert torch.equal(less.positions, own.positions[:7])
    told = [each.condition(None, 1, "red left")["context"] for each in (whole, short)]
    torch.testing.assert_close(told[1][:, :4], told[0][:, :4], rtol=1e-5, atol=1e-5)
    assert short.sample(1, prompt="red left").tensor.shape == (1, 3, 8, 8)
    for length, what in ((17, "at most 16 tokens, not 17"), (2, "at least 3 tokens, for 2 frame every text, not 2")):
        with pytest.raises(BadOption, match=rf"^conditioning\.text\.length: the encoder at {run_folder} reads {what}$"):
            prepare(recipe(pictures, **given(run_folder, length=length)))


def test_a_prompt_that_is_read_in_parts_is_said_with_what_helps(model):
    long = " ".join(["a red square on the left"] * 5)
    made = model.sample(1, prompt=long)
    assert made.notes == (
        "prompt: 32 tokens are more than the 16 that the encoder reads at once: it is read in 3 parts, of which none knows the "
        f"others ({long[:57]}...): make it 16 tokens shorter, about as many short words, and it is read as one",
    )
    assert model.sample(1, prompt=" ".join(["red"] * 14)).notes == ()


def test_what_cannot_be_asked_is_refused(model, pictures, bert):
    with pytest.raises(BadOption, match="prompt: it is empty; leave it out"):
        model.sample(1, prompt="  ")
    with pytest.raises(BadOption, match="prompt: expected one, or one for each of 3 samples, got 2"):
        model.sample(3, prompt=["a", "b"])
    with pytest.raises(BadOption, match="prompt: expected words, or some for each sample, got 3"):
        model.sample(1, prompt=3)
    with pytest.raises(
        BadOption,
        match=r"conditioning\.text\.encoder: give one that learns from nothing, or the path of one, and not both",
    ):
        recipe(pictures, conditioning={"text": {"encoder": "t5", "path": str(bert)}})
    with pytest.raises(
        BadOption, match=r"conditioning\.text\.length: is about an encoder at a path: say encoder\.length"
    ):
        recipe(pictures, conditioning={"text": {"length": 9}})
    bare = bert.parent / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(DataError, match="has no tokenizer"):
        prepare(recipe(pictures, **given(bare)))


def test_a_recipe_with_words_is_written_out_and_read_again(pictures, bert):
    for each in (recipe(pictures), recipe(pictures, **given(bert)), recipe(pictures, conditioning={"text": {}})):
        assert load_recipe(each.describe()) == each
    plain = load_recipe("digits")
    assert plain.describe()["conditioning"] == {"text": None, "boxes": False, "map": "none"}
    assert json.dumps(plain.describe())
    assert datasets.build("digits") == plain.data


def test_what_every_word_did_is_drawn(model, tmp_path):
    picture = attention_picture(model, "a (red:2) square on the left", guidance=2.0, seed=3)
    assert picture.width > 6 * 160
    assert picture.height > 2 * 160  # seven pictures, six in a row
    # Looking changes nothing, and another prompt is read elsewhere.
    again = attention_picture(model, "a (red:2) square on the left", guidance=2.0, seed=3)
    assert np.array_equal(np.asarray(picture), np.asarray(again))
    assert not np.array_equal(np.asarray(attention_picture(model, "blue"))[:200, :200], np.asarray(picture)[:200, :200])


def test_attention_to_words_needs_words(pictures, tmp_path):
    model = unnoise.train(
        recipe(pictures, conditioning={"text": None}, objective=NO_FLOOR), tmp_path / "run", progress=False
    )
    with pytest.raises(BadOption, match="trained without words"):
        attention_picture(model, "three")
