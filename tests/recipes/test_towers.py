"""CLIP as others publish it judges what unnoise made, and says what `transformers` says."""

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from unnoise.cli.main import app
from unnoise.conditioning.text.tokenizer import learn_tokenizer
from unnoise.errors import DataError, ModelFolderError
from unnoise.recipes.judging.caption_finding import matches
from unnoise.recipes.retrieving import judge_clip
from unnoise.recipes.towers import open_towers

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

CAPTIONS = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("circle", "square", "star")]


def made(folder, kind="CLIPModel"):
    """A small CLIP with random weights, in a folder as it is published."""
    tokenizer = learn_tokenizer(CAPTIONS, 300)
    end = tokenizer.frame[1][0]
    small = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    text = {**small, "vocab_size": 400, "max_position_embeddings": 20, "bos_token_id": tokenizer.frame[0][0]}
    text |= {"eos_token_id": end, "pad_token_id": tokenizer.pad_id, "projection_dim": 20}
    vision = {**small, "image_size": 42, "patch_size": 14, "projection_dim": 20}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=20)
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config if kind == "CLIPModel" else config.text_config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if "norm" in name else 0.0, 0.15)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.content)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def model(folder):
    return made(folder)


@pytest.fixture(scope="module")
def pictures():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (len(CAPTIONS), 3, 30, 30), dtype=np.uint8))


def points(features):
    features = getattr(features, "pooler_output", features)
    return features / features.norm(dim=1, keepdim=True)


def test_both_towers_say_what_transformers_says(model, folder, pictures):
    towers = open_towers(folder)
    longer = [*CAPTIONS, "a red circle and a blue star"]
    ids = towers.text.ids(longer)
    read = ids != -1
    with torch.no_grad():
        states = model.text_model(ids.masked_fill(~read, 0), attention_mask=read.long()).last_hidden_state
        # By hand, for transformers takes the token of the highest number where the end of a text is number 2.
        texts = model.text_projection(states[torch.arange(len(ids)), read.sum(1) - 1])
        seen = model.get_image_features(towers.extractor.seen(pictures))
    torch.testing.assert_close(towers.read(longer), points(texts), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(towers.look(pictures), points(seen), rtol=1e-5, atol=1e-5)
    score = 100 * (points(texts)[: len(pictures)] * points(seen)).sum(1).clamp(min=0).mean()
    assert matches(towers, pictures, CAPTIONS).score[0] == pytest.approx(score.item(), abs=1e-3)


def test_captioned_pictures_are_searched(model, folder, pictures, tmp_path):
    for i, (picture, caption) in enumerate(zip(pictures, CAPTIONS, strict=True)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(caption)
    found = judge_clip(folder, str(tmp_path), among=9)
    towers = open_towers(folder)
    own = towers.look(pictures) @ towers.read(CAPTIONS).T
    first = (own.argmax(1) == torch.arange(9)).double().mean().item()
    assert found.captions.first.value == pytest.approx(first)
    done = CliRunner().invoke(app, ["retrieve", str(folder), "--data", str(tmp_path), "--among", "9"])
    assert done.exit_code == 0, done.output
    assert "first of 9 (" in done.output


def test_what_is_missing_is_said(model, folder, tmp_path):
    with pytest.raises(DataError, match="trained elsewhere: give captioned pictures with --data"):
        judge_clip(folder)
    with pytest.raises(ModelFolderError, match="nowhere"):
        open_towers(tmp_path / "nowhere")
    made(tmp_path, "CLIPTextModelWithProjection")
    with pytest.raises(DataError, match="'clip' is wanted"):
        open_towers(tmp_path)
    made(tmp_path, "CLIPTextModel")
    with pytest.raises(DataError, match="both projections"):
        open_towers(tmp_path)
