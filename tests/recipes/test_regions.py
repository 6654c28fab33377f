"""Models that are asked for boxes and label maps: trained on pixels and on latents, sampled, replayed, and what they refuse."""

import numpy as np
import pytest
import torch
from PIL import Image

import unnoise
from unnoise.codecs.autoencoder import AutoencoderCodec
from unnoise.codecs.identity import IdentityCodec
from unnoise.conditioning.regions import PLANES, region_network
from unnoise.data.base import Spec
from unnoise.errors import BadOption, DataError
from unnoise.model import Model
from unnoise.nn.autoencoder import AutoencoderConfig
from unnoise.objectives.mse import preconditioned
from unnoise.recipes.codec_folder import save_codec
from unnoise.recipes.prepare import prepare
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.samples import read_recipe
from unnoise.training.draws import DrawStream
from unnoise.training.regions import APART

SMALL = {
    "data": {"name": "shapes", "number": 48, "size": 32, "regions": True},
    "conditioning": {"boxes": True, "map": "area"},
    "process": "flow",
    "denoiser": {"name": "velocity"},
    "network": {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
    "training": {
        "steps": 4, "batch_size": 8, "lr": 0.01, "warmup": 0, "ema": 0.5, "validate_every": 100, "sample_every": 0,
        "checkpoint_every": 2, "validation_size": 16,
    },
    "objective": {"name": "mse", "noise": {"offset": 0.05}},
    "machine": {"precision": "fp32"},
    "sampling": {"steps": 2, "sampler": "euler"},
}  # fmt: skip
BOXES = "circle 0.1 0.1 0.5 0.5; star 0.6 0.6 0.9 0.9"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions") / "run"
    unnoise.train(load_recipe(SMALL), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def model(run_folder):
    return Model.load(run_folder)


def label_map(place):
    numbers = np.zeros((32, 32), np.uint8)
    numbers[4:20, 4:20] = 2
    Image.fromarray(numbers).save(place / "map.png")
    return numbers


def test_boxes_and_maps_reach_the_samples_and_files_carry_them(model, tmp_path):
    numbers = label_map(tmp_path)
    plain = model.sample(2, seed=3).tensor
    boxes = model.sample(2, boxes=BOXES, guidance=30.0, seed=3)
    mapped = model.sample(2, map=tmp_path / "map.png", guidance=30.0, seed=3)
    assert not torch.equal(plain, boxes.tensor)
    assert not torch.equal(boxes.tensor, mapped.tensor)
    assert torch.equal(model.sample(2, map=numbers, guidance=30.0, seed=3).tensor, mapped.tensor)
    for each in (boxes, mapped):
        (path,) = each.save(tmp_path / "made.png")
        assert torch.equal(model.replay(read_recipe(path)).tensor, each.tensor)
    rows = [("circle", 0.1, 0.1, 0.5, 0.5), ("star", 0.6, 0.6, 0.9, 0.9)]
    assert torch.equal(model.sample(2, boxes=rows, guidance=30.0, seed=3).tensor, boxes.tensor)


def test_boxes_for_each_sample_are_as_each_alone(model):
    asked = [BOXES, None, "ring 0 0 1 1"]
    together = model.sample(3, boxes=asked, guidance=10.0, seed=5, batch_size=2).tensor
    for k, each in enumerate(asked):
        alone = model.sample(1, boxes=each, guidance=10.0, seed=5, first=k).tensor
        assert (together[k : k + 1].int() - alone.int()).abs().max() <= 1


def test_planes_go_with_words_and_with_latents(tmp_path):
    x = torch.randint(0, 256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    config = AutoencoderConfig(width=8, multipliers=(1, 1, 1), blocks=1, latent_channels=4, attention=False)
    codec = AutoencoderCodec.untrained((3, 32, 32), config, IdentityCodec.pixels()).whitened(x)
    save_codec(tmp_path / "ae", codec, Spec("image", (3, 32, 32)), {"steps": 0})
    words = {"text": {"encoder": {"name": "transformer", "width": 16, "depth": 1, "heads": 2}}}
    recipe = load_recipe(
        SMALL,
        codec={"name": "autoencoder", "path": str(tmp_path / "ae"), "latents": str(tmp_path / "latents")},
        conditioning={**words, "boxes": True, "map": "nearest"},
        network={"name": "dit", "width": 16, "depth": 1, "heads": 2},
    )
    model = unnoise.train(recipe, tmp_path / "run", progress=False)
    network = region_network(preconditioned(model.denoiser).network)
    assert network.shape == (4, 8, 8)
    words, boxes, numbers = {"prompt": "a red circle"}, {"boxes": BOXES}, {"map": label_map(tmp_path)}
    asked = [
        {}, words, boxes, numbers, words | boxes, words | numbers, boxes | numbers, words | boxes | numbers,
    ]  # fmt: skip
    made = [model.sample(1, seed=1, guidance=30.0, **each) for each in asked]
    assert all(not torch.equal(one.tensor, other.tensor) for i, one in enumerate(made) for other in made[:i])
    told = [model.asked(model.settle(1, **each)).condition()[PLANES] for each in (boxes, numbers, boxes | numbers)]
    assert torch.equal(told[2], told[0] + told[1])
    circle, mapped = told[2][0, network.asks.boxes.index("circle")], told[2][0, -len(network.asks.map) - 1 :]
    # From 0.1 to 0.5 of eight cells is 0.2 of the first, and all of three.
    torch.testing.assert_close(circle, torch.outer(*[torch.tensor([0.2, 1, 1, 1, 0, 0, 0, 0])] * 2))
    square = torch.zeros(8, 8)
    square[1:5, 1:5] = 1
    assert torch.equal(mapped[2], square)
    assert torch.equal(mapped[0], 1 - square)
    assert float(mapped[-1].min()) == 1
    (path,) = made[-1].save(tmp_path / "all.png")
    assert torch.equal(model.replay(read_recipe(path)).tensor, made[-1].tensor)
    again = Model.load(tmp_path / "run")
    assert again.blueprint.regions == model.blueprint.regions
    assert again.hash == model.hash


def test_a_run_killed_and_gone_on_with_ends_with_the_same_bytes(run_folder, tmp_path):
    run = Run(load_recipe(SMALL), tmp_path / "halves")
    for _ in run.events(lambda: run.state.step == 2):
        pass
    again = Run(load_recipe(SMALL), tmp_path / "halves")
    assert again.state.step == 2
    for _ in again.events():
        pass
    assert again.model().weights_hash == Model.load(run_folder).weights_hash


def test_what_is_drawn_for_training_is_dropped_apart_and_together():
    recipe = load_recipe(SMALL, objective={"name": "mse", "condition_dropout": 0.2}, data__number=400)
    prepared = prepare(recipe)
    denoiser = prepared.blueprint.build(0)
    stream = DrawStream(prepared.train, prepared.blueprint.codec, denoiser, recipe.objective, 8, 0)
    planes = stream.draws(np.arange(2000, dtype=np.int64)).cond[PLANES]
    boxes, maps = (
        planes[:, 7].amax((1, 2)),
        planes[:, -1].amax((1, 2)),
    )  # the planes that say that something is asked for
    assert set(boxes.tolist()) == set(maps.tolist()) == {0.0, 1.0}
    shares = [float(each.mean()) for each in (boxes, maps, boxes * maps)]
    kept = 0.8 * (1 - APART)
    assert shares == pytest.approx([kept, kept, kept * (1 - APART)], abs=0.03)
    again = stream.draws(np.arange(100, 110, dtype=np.int64)).cond[PLANES]
    assert torch.equal(again, planes[100:110])


def test_training_goes_on_from_a_model_that_knows_boxes(run_folder, tmp_path):
    start = {"data": SMALL["data"], "training": SMALL["training"], "start": {"model": str(run_folder)}}
    run = Run(load_recipe(start, conditioning__boxes=True), tmp_path / "more")
    assert run.blueprint.regions == Model.load(run_folder).blueprint.regions


def test_what_cannot_be_asked_or_learned_is_refused(model, tmp_path):
    with pytest.raises(BadOption, match="boxes: the model knows no 'circel'; did you mean 'circle'"):
        model.sample(1, boxes="circel 0 0 1 1")
    with pytest.raises(BadOption, match="boxes: expected one, or one for each of 3 samples, got 2"):
        model.sample(3, boxes=[BOXES, None])
    with pytest.raises(BadOption, match="map: a pixel is 9, and the model knows 7 classes: background, circle"):
        model.sample(1, map=np.full((32, 32), 9))
    with pytest.raises(
        DataError, match=r"conditioning\.boxes: .* has none: say where things stand in a metadata\.jsonl"
    ):
        prepare(load_recipe(SMALL, data__regions=False))
    nothing = {name: value for name, value in SMALL.items() if name != "conditioning"}
    plain = unnoise.train(nothing, tmp_path / "plain", progress=False)
    with pytest.raises(BadOption, match=r"boxes: this model was trained without; train one with conditioning\.boxes"):
        plain.sample(1, boxes=BOXES)
    spiral = load_recipe("spiral", conditioning__map="area")
    with pytest.raises(DataError, match=r"conditioning\.map: .* has none: give a folder of label maps with data\.maps"):
        prepare(spiral)
