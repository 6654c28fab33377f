"""DINOv2 and CLIP beside transformers, an independent implementation, with small random weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.errors import DataError
from unnoise.evaluation.features.clip import ClipFeatures
from unnoise.evaluation.features.dinov2 import Dinov2Features
from unnoise.evaluation.features.vision_transformer import Architecture, VisionTransformer
from unnoise.evaluation.perceptual import PerceptualDistance

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


def scatter(model):
    """Random weights of a size at which every part matters."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if "norm" in name or "lambda" in name else 0.0, 0.15)
    return model.eval()


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    """Models of DINOv2's kinds, by what is special, each with its folder."""
    made = {}
    for name, options in {
        "plain": {"image_size": 224},
        "other grid": {"image_size": 518},
        "gated": {"image_size": 224, "use_swiglu_ffn": True},
        "no bias": {"image_size": 224, "qkv_bias": False},
    }.items():
        model = scatter(transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, **options)))
        folder = tmp_path_factory.mktemp("dinov2")
        model.save_pretrained(folder)
        made[name] = model, folder
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The tower with projection, and CLIP whole, each with its folder."""
    vision = {**SMALL, "intermediate_size": 64, "image_size": 42, "patch_size": 14}
    tower = transformers.CLIPVisionConfig(**vision, projection_dim=24)
    tower = scatter(transformers.CLIPVisionModelWithProjection(tower))
    text = {**SMALL, "intermediate_size": 64, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    whole = transformers.CLIPConfig(vision_config={**vision, "hidden_act": "gelu"}, text_config=text, projection_dim=20)
    whole = scatter(transformers.CLIPModel(whole))
    made = {}
    for name, model in {"tower": tower, "whole": whole}.items():
        folder = tmp_path_factory.mktemp("clip")
        model.save_pretrained(folder)
        made[name] = model, folder
    return made


def pillow(x, side, mean, std):
    """What transformers' processors do by Pillow: shorter side, middle, mean and deviation."""
    rows = []
    for picture in x:
        image = Image.fromarray(picture.permute(1, 2, 0).numpy())
        scale = side / min(image.size)
        wide, high = (int(scale * n) for n in image.size)
        image = image.resize((wide, high), Image.Resampling.BICUBIC)
        left, top = (wide - side) // 2, (high - side) // 2
        pixels = torch.from_numpy(np.array(image.crop((left, top, left + side, top + side)))).permute(2, 0, 1) / 255
        rows.append((pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    return torch.stack(rows)


@pytest.mark.parametrize("name", ["plain", "other grid", "gated", "no bias"])
def test_dinov2_says_what_transformers_says(dinov2, random_data, name):
    model, folder = dinov2[name]
    data = random_data("image", (3, 40, 40), 3)
    extractor = Dinov2Features(path=str(folder)).prepare(data)
    with torch.no_grad():
        theirs = model(extractor.seen(data.x)).pooler_output
    assert extractor.dim == 48
    torch.testing.assert_close(extractor(data.x), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tower", "whole"])
def test_clip_says_what_transformers_says(clip, random_data, name):
    model, folder = clip[name]
    data = random_data("image", (3, 40, 40), 3)
    extractor = ClipFeatures(path=str(folder), unit=False).prepare(data)
    with torch.no_grad():
        seen = extractor.seen(data.x)
        theirs = model(seen).image_embeds if name == "tower" else model.get_image_features(seen)
    theirs = getattr(theirs, "pooler_output", theirs)
    assert extractor.dim == theirs.shape[1] == {"tower": 24, "whole": 20}[name]
    torch.testing.assert_close(extractor(data.x), theirs, rtol=1e-5, atol=1e-5)
    unit = ClipFeatures(path=str(folder)).prepare(data)
    torch.testing.assert_close(unit(data.x), theirs / theirs.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-5)
    assert unit.hash != extractor.hash


def theirs_of_places(states, norm, rows):
    """The states after each layer of transformers, less the token for the whole, as pictures."""
    return [norm(each[:, 1:]).transpose(1, 2).unflatten(2, (rows, -1)) for each in states]


@pytest.mark.parametrize("name", ["plain", "other grid", "gated"])
def test_what_dinov2_says_of_places_is_what_transformers_says(dinov2, random_data, name):
    model, folder = dinov2[name]
    data = random_data("image", (3, 224, 224), 2)  # of its own size, so that nothing is rounded before it
    extractor = Dinov2Features(path=str(folder)).prepare(data)
    with torch.no_grad():
        states = model(extractor.seen(data.x), output_hidden_states=True).hidden_states
        expected = theirs_of_places(states[1:], model.layernorm, 16)
        found = extractor.maps(data.x.float())
    assert [tuple(each.shape) for each in found] == [(2, 48, 16, 16)] * 3  # it has three layers only
    for each, other in zip(found, expected, strict=True):
        torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-4)


def test_what_clip_says_of_places_is_what_transformers_says(clip, random_data):
    model, folder = clip["tower"]
    data = random_data("image", (3, 42, 42), 2)
    extractor = ClipFeatures(path=str(folder)).prepare(data)
    with torch.no_grad():
        states = model.vision_model(extractor.seen(data.x), output_hidden_states=True).hidden_states
        expected = theirs_of_places(states[1:], model.vision_model.post_layernorm, 3)
        found = extractor.maps(data.x.float())
    for each, other in zip(found, expected, strict=True):
        torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-4)


def test_of_many_layers_each_quarter_is_told(random_data):
    sizes = Architecture(8, 10, 2, 16, 4, 3, 1e-6, "gelu", like_clip=False)
    torch.manual_seed(0)
    network, said = VisionTransformer(sizes).eval(), []
    for layer in network.layers:
        layer.register_forward_hook(lambda _m, _i, out: said.append(out))
    with torch.no_grad():
        found = network.maps(torch.randn(1, 3, 12, 12))
        assert len(found) == 4
        for number, each in zip((3, 5, 8, 10), found, strict=True):  # from one
            patch = network.norm_out(said[number - 1][0, 1 + 2 * 3 + 1])
            torch.testing.assert_close(each[0, :, 2, 1], patch)


def test_every_pixel_counts_in_a_perceptual_distance_by_either(dinov2, clip, random_data):
    for channels in (1, 3, 4):
        data = random_data("image", (channels, 30, 50), 2)
        for extractor in (
            Dinov2Features(path=str(dinov2["plain"][1])).prepare(data),
            ClipFeatures(path=str(clip["tower"][1])).prepare(data),
        ):
            distance = PerceptualDistance(extractor)
            real, generator = data.x.float(), torch.Generator().manual_seed(0)
            near, far = (real + by * torch.randn(real.shape, generator=generator) for by in (2.0, 40.0))
            made = near.clamp(0, 255).requires_grad_()
            found = distance(made, real)
            found.sum().backward()
            assert (made.grad[:, :, :, 0] != 0).all()  # pictures wider than high are not cut
            assert (made.grad[:, :, :, -1] != 0).all()
            assert (found < distance(far.clamp(0, 255), real)).all()
            assert distance(real, real).abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 50, 90), (3, 300, 260)])
def test_pictures_enter_as_pillow_makes_them(dinov2, clip, random_data, shape):
    data = random_data("image", shape, 2)
    for extractor, side, mean, std in (
        (Dinov2Features(path=str(dinov2["plain"][1])).prepare(data), 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (
            ClipFeatures(path=str(clip["tower"][1])).prepare(data),
            42,
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
        ),
    ):
        torch.testing.assert_close(extractor.seen(data.x), pillow(data.x, side, mean, std), rtol=0, atol=1e-6)


def test_a_sample_has_the_same_features_in_any_batch(dinov2, clip, random_data):
    data = random_data("image", (3, 40, 40), 5)
    for extractor in (
        Dinov2Features(path=str(dinov2["plain"][1])).prepare(data),
        ClipFeatures(path=str(clip["tower"][1])).prepare(data),
    ):
        torch.testing.assert_close(extractor(data.x[3:4])[0], extractor(data.x)[3], rtol=0, atol=2e-6)


def test_grey_and_transparent_pictures_are_looked_at(dinov2, random_data):
    for shape in ((1, 30, 30), (4, 30, 30)):
        data = random_data("image", shape, 2)
        assert Dinov2Features(path=str(dinov2["plain"][1])).prepare(data)(data.x).shape == (2, 48)


def test_the_hash_tells_apart_weights_and_not_places(dinov2, clip, random_data, tmp_path):
    data = random_data("image", (3, 30, 30))
    folders = {name: folder for name, (_, folder) in dinov2.items()}
    hashes = {name: Dinov2Features(path=str(folder)).prepare(data).hash for name, folder in folders.items()}
    assert len(set(hashes.values())) == len(hashes)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folders["plain"] / name).read_bytes())
    file = tmp_path / "model.safetensors"
    assert Dinov2Features(path=str(file)).prepare(data).hash == hashes["plain"]


def test_a_model_is_found_in_the_caches_of_unnoise_and_of_hugging_face(
    dinov2, clip, random_data, cache_dir, monkeypatch
):
    data = random_data("image", (3, 30, 30))
    (cache_dir / "weights").mkdir()
    (cache_dir / "weights" / "dinov2-large").symlink_to(dinov2["plain"][1])
    assert Dinov2Features().prepare(data).about["weights"] == "dinov2-large"
    snapshots = cache_dir / "hub" / "models--openai--clip-vit-large-patch14-336" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / "0123").symlink_to(clip["tower"][1])
    monkeypatch.setenv("HF_HUB_CACHE", str(cache_dir / "hub"))
    assert ClipFeatures().prepare(data).dim == 24


def test_a_missing_or_wrong_folder_is_refused_by_name(dinov2, clip, random_data, cache_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    data = random_data("image", (3, 30, 30))
    with pytest.raises(DataError, match=r"facebook/dinov2-large with config\.json.*weights/dinov2-large"):
        Dinov2Features().prepare(data)
    with pytest.raises(DataError, match=r"config\.json cannot be read"):
        ClipFeatures(path=str(tmp_path)).prepare(data)
    with pytest.raises(DataError, match="type 'dinov2', and 'clip' is wanted"):
        ClipFeatures(path=str(dinov2["plain"][1])).prepare(data)
    with pytest.raises(DataError, match="type 'clip', and 'dinov2' is wanted"):
        Dinov2Features(path=str(clip["whole"][1])).prepare(data)
    for source, folder in ((Dinov2Features, dinov2["plain"][1]), (ClipFeatures, clip["tower"][1])):
        settings = json.loads((folder / "config.json").read_text())
        for change, said in (
            ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
            ({"hidden_size": "much"}, "hidden_size is 'much'"),
            ({"num_hidden_layers": 4}, "has no weight 'layers.3"),
            ({"num_attention_heads": 5}, "5 heads"),
        ):
            (tmp_path / "config.json").write_text(json.dumps({**settings, **change}))
            (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
            with pytest.raises(DataError, match=said):
                source(path=str(tmp_path)).prepare(data)
        (tmp_path / "config.json").write_text("[")
        with pytest.raises(DataError, match="no JSON"):
            source(path=str(tmp_path)).prepare(data)
        with pytest.raises(DataError, match="looks at pictures"):
            source(path=str(folder)).prepare(random_data("points", (2,)))
        assert not source().suits(random_data("points", (2,)).spec)
