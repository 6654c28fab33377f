"""Encoders of kinds that have no module here: the states of transformers itself, kept in model folders, and no code of a folder."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import unnoise
from unnoise.conditioning.text.base import text_encoders
from unnoise.conditioning.text.folder import read_encoder
from unnoise.errors import BadOption, DataError, MissingExtra, ModelFolderError
from unnoise.objectives.mse import preconditioned
from unnoise.recipes.recipe import load_recipe

from .conftest import word_pieces

SMALL = {"vocab_size": 400, "max_position_embeddings": 20}


@pytest.fixture(scope="module")
def exotic(tmp_path_factory):
    """A folder for each kind, by its name, and the part of the model of transformers that gives the states."""
    import transformers

    torch.manual_seed(0)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24, **SMALL}
    bart = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "d_model": 16,
            "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, **SMALL}  # fmt: skip
    deberta = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    models = {
        "deberta-v2": transformers.DebertaV2Model(transformers.DebertaV2Config(**layers, **deberta)),
        "llama": transformers.LlamaModel(transformers.LlamaConfig(**layers)),
        "bart": transformers.BartModel(transformers.BartConfig(**bart)),
    }
    made = {}
    for kind, model in models.items():
        folder = tmp_path_factory.mktemp("exotic") / kind
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.eval().save_pretrained(folder)
        word_pieces().save(str(folder / "tokenizer.json"))
        made[kind] = folder, model.get_encoder() if kind == "bart" else model
    return made


def built(folder, length=0):
    found = read_encoder(folder, length)
    encoder = text_encoders[found.encoder.name](found.encoder.config)
    encoder.load_state_dict(found.weights)
    return encoder.eval(), found


@pytest.mark.parametrize("kind", ["deberta-v2", "llama", "bart"])
@torch.no_grad()
def test_states_are_those_of_transformers_where_the_mask_is(exotic, kind):
    folder, model = exotic[kind]
    encoder, found = built(folder)
    ids = torch.randint(5, 400, (3, 13), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(13)[None] < torch.tensor([[13], [7], [4]])
    theirs = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    ours = encoder(ids, mask)
    assert found.encoder.name == "transformers"
    assert (encoder.width, encoder.config.vocabulary, encoder.config.length) == (16, 400, 20)
    assert theirs[mask].std() > 0.1
    torch.testing.assert_close(ours[mask], theirs[mask], rtol=0, atol=1e-6)
    other = encoder(torch.where(mask, ids, 7), mask)
    torch.testing.assert_close(other[mask], ours[mask], rtol=0, atol=1e-6)  # padding is not looked at
    if kind != "llama":  # whose tokens look back alone
        assert (encoder(ids, torch.ones_like(mask))[2, :4] - ours[2, :4]).abs().max() > 1e-3


def test_what_is_inside_never_drops_anything(exotic):
    encoder, _ = built(exotic["deberta-v2"][0])
    encoder.train()
    assert not any(module.training for module in encoder.inner.modules())


def recipe(place, path):
    return load_recipe(
        {
            "data": {"name": "folder", "path": str(place), "size": 16, "cache": False},
            "conditioning": {"text": {"path": str(path)}},
            "process": "flow",
            "denoiser": {"name": "velocity"},
            "network": {"name": "dit", "width": 16, "depth": 1, "heads": 2, "patch": 4},
            "training": {
                "steps": 3, "batch_size": 8, "lr": 0.01, "warmup": 0, "ema": 0.5, "validate_every": 100, "sample_every": 0,
                "validation_size": 16,
            },
            "machine": {"precision": "fp32"},
            "sampling": {"sampler": "euler", "steps": 2},
        }
    )  # fmt: skip


@pytest.fixture
def pictures(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    rng = np.random.default_rng(0)
    for i in range(16):
        colour = ("red", "blue")[i % 2]
        pixels = np.full((16, 16, 3), (220, 20, 20) if i % 2 == 0 else (20, 20, 220), np.uint8)
        Image.fromarray(pixels + rng.integers(0, 20, pixels.shape, dtype=np.uint8)).save(place / f"{i}.png")
        (place / f"{i}.txt").write_text(f"a {colour} heart")
    return place


def test_a_model_that_was_trained_with_one_stands_alone_but_for_the_library(exotic, pictures, tmp_path, monkeypatch):
    folder = tmp_path / "encoder"
    folder.mkdir()
    for file in exotic["deberta-v2"][0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    model = unnoise.train(recipe(pictures, folder), tmp_path / "run", progress=False)
    expected = built(folder)[1].weights
    kept = preconditioned(model.denoiser).network.text.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in expected.items())  # it stays as it was
    for file in folder.iterdir():
        file.unlink()
    again = unnoise.load(tmp_path / "run")
    assert again.hash == model.hash
    made = again.sample(2, prompt="a red heart", guidance=50.0, seed=4).tensor
    assert torch.equal(made, model.sample(2, prompt="a red heart", guidance=50.0, seed=4).tensor)
    assert not torch.equal(made, model.sample(2, prompt="a blue heart", guidance=50.0, seed=4).tensor)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelFolderError) as caught:
        unnoise.load(tmp_path / "run")
    assert str(caught.value) == (
        f"the model at {tmp_path / 'run'} cannot be built: a text encoder of type 'deberta-v2' needs transformers, which is not "
        "installed: pip install 'unnoise[transformers]'"
    )


def test_without_the_library_one_line_says_how_to_get_it(exotic, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra) as caught:
        read_encoder(exotic["deberta-v2"][0])
    assert str(caught.value) == (
        "a text encoder of type 'deberta-v2' needs transformers, which is not installed: pip install 'unnoise[transformers]'"
    )


def changed(folder, place, **settings):
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    values = json.loads((folder / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**values, **settings}))
    return place


def test_no_code_of_a_folder_is_run_and_nobody_else_is_asked(exotic, tmp_path, monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("the network is not asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    theirs = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    place = changed(
        exotic["deberta-v2"][0], tmp_path / "evil", auto_map=theirs, attn_implementation="someone/kernels", dtype="float16"
    )  # fmt: skip
    (place / "evil.py").write_text("raise RuntimeError('no code of it may run')")
    (place / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    encoder, found = built(place)
    assert "evil" not in found.encoder.config.settings
    assert "kernels" not in found.encoder.config.settings
    assert {value.dtype for value in encoder.state_dict().values()} == {torch.float32}
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"a \.bin file is not read: it can run code"):
        read_encoder(place)


def test_what_is_missing_or_wrong_is_named(exotic, tmp_path):
    folder = exotic["deberta-v2"][0]
    with pytest.raises(
        DataError, match=r"lacks the weights 'encoder\.layer\.2\..*' of the text encoder that its config\.json"
    ):
        read_encoder(changed(folder, tmp_path / "a", num_hidden_layers=3))
    with pytest.raises(DataError, match=r"transformers cannot put the weights in .* together: "):
        read_encoder(changed(folder, tmp_path / "b", intermediate_size=25))
    with pytest.raises(
        DataError, match=r"config\.json: no text encoder of type 'nonesuch' can be made by transformers 5"
    ):
        read_encoder(changed(folder, tmp_path / "c", model_type="nonesuch"))
    biased = changed(exotic["bart"][0], tmp_path / "d")
    with pytest.raises(
        BadOption, match=r"conditioning\.text\.length: the encoder at .* cannot read 40 tokens at once: "
    ):
        read_encoder(biased, 40)
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4)
             ).save_pretrained(tmp_path / "e")  # fmt: skip
    word_pieces().save(str(tmp_path / "e" / "tokenizer.json"))
    with pytest.raises(DataError, match=r"the model at .* gives no state for every token of a text"):
        read_encoder(tmp_path / "e")
