"""The recipes for captioned pictures and for flowers: each trains for a step on pictures of the kind that it is for."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unnoise.codecs.autoencoder import AutoencoderCodec
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.recipes import recipe as recipe_module
from unnoise.recipes.codec_folder import save_codec
from unnoise.recipes.recipe import load_any_recipe
from unnoise.recipes.run import Run

AUTOENCODERS = {
    "emoji-latent-unet": "emoji-autoencoder",
    "emoji-dit": "emoji-autoencoder",
    "flowers-latent": "flowers-autoencoder",
}
SHORT = (
    "training.steps=1",
    "training.batch_size=2",
    "training.sample_every=0",
    "training.validation_size=16",
    "training.warmup=0",
)


@pytest.fixture
def table(tmp_path):
    """Sixteen captioned pictures with labels, keywords among the captions."""
    rng = np.random.default_rng(0)
    encoded = []
    for i in range(16):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": f"{i}.png"})
    words = {"text": [f"a picture {i}" for i in range(16)], "keywords": [["some", f"word {i}"] for i in range(16)]}
    pq.write_table(pa.table({"image": encoded, "label": [i % 5 for i in range(16)], **words}), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


@pytest.mark.parametrize(
    "name",
    [
        "emoji-autoencoder",
        "flowers-autoencoder",
        "emoji-latent-unet",
        "emoji-dit",
        "flowers-latent",
        "clipart",
        "emoji-clip",
    ],
)
def test_a_recipe_for_captioned_pictures_learns_a_step(name, table, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    options = [*SHORT, f"data.path={table}"]
    if name in AUTOENCODERS:
        made = load_any_recipe(AUTOENCODERS[name], [f"data.path={table}"])
        codec = AutoencoderCodec.untrained((3, 64, 64), made.autoencoder, IdentityCodec.pixels())
        save_codec(tmp_path / "ae", codec, Spec("image", (3, 64, 64)), {"steps": 0})
        recipe = load_any_recipe(name, [*options, f"codec.path={tmp_path / 'ae'}"])
    else:
        recipe = load_any_recipe(name, options)
    run = Run(recipe, tmp_path / "run")
    for _ in run.events():
        pass
    made = run.made()
    if name.endswith("autoencoder"):
        assert made.codec.shape((3, 64, 64)) == ({"emoji-autoencoder": 4}.get(name, 8), 16, 16)
    elif name == "emoji-clip":
        assert made.read(["a picture 3", "some"]).shape == (2, 128)
    elif name == "flowers-latent":
        assert made.blueprint.spec.num_classes == 5
        assert made.blueprint.input_shape == (8, 16, 16)
        assert made.blueprint.text is None
    else:
        assert made.blueprint.input_shape == {"clipart": (3, 32, 32)}.get(name, (4, 16, 16))
        assert {"picture", "some"} & set(made.blueprint.text.words) == (
            {"picture"} if name == "clipart" else {"picture", "some"}
        )


@pytest.mark.parametrize("kind", ["*-autoencoder", "*-latent*", "emoji-*", "shapes*", "*clip*"])
def test_who_opens_a_recipe_reads_what_it_costs_and_what_it_reached(kind):
    files = sorted(Path(recipe_module.__file__).parent.glob(f"{kind}.yaml"))
    assert files
    for file in files:
        head = file.read_text(encoding="utf-8").partition("description:")[0]
        assert head.startswith("# Cost: "), file
        assert "Reached" in head, file
