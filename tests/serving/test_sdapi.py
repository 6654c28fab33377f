"""`/sdapi/v1`, as front ends of the Stable Diffusion web UI ask it."""

import base64
import io
import json
import time

import numpy as np
from PIL import Image

from unnoise.model import load
from unnoise.samplers.base import samplers

from .conftest import SLOW, error_of


def test_txt2img_makes_what_the_model_makes(client, folders):
    asked = {
        "prompt": "a", "negative_prompt": "", "seed": 7, "steps": 5, "cfg_scale": 2.0, "sampler_name": "Euler", "batch_size": 2,
        "width": 512, "height": 512, "enable_hr": False, "alwayson_scripts": {}, "scheduler": "Automatic",
    }  # fmt: skip
    answer = client.post("/sdapi/v1/txt2img", json=asked).json()
    info = json.loads(answer["info"])
    assert info["all_seeds"] == [7, 7]
    expected = load(folders["digits"]).sample(2, label="a", seed=7, steps=5, guidance=2.0, sampler="euler").images()
    for text, image in zip(answer["images"], expected, strict=True):
        found = Image.open(io.BytesIO(base64.b64decode(text)))
        assert abs(np.asarray(found, dtype=int) - np.asarray(image, dtype=int)).max() <= 1
    assert info["recipe"]["sampler"]["name"] == "euler"


def test_models_samplers_and_options(client):
    assert [each["model_name"] for each in client.get("/sdapi/v1/sd-models").json()] == ["digits"]
    assert [each["name"] for each in client.get("/sdapi/v1/samplers").json()] == list(samplers)
    assert "karras" in [each["name"] for each in client.get("/sdapi/v1/schedulers").json()]
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "digits", "other": 1}).json() == {}
    assert client.get("/sdapi/v1/options").json() == {"sd_model_checkpoint": "digits"}
    error_of(client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "nothing"}), 404)


def test_progress_and_interrupt(client):
    import threading

    found = []
    asked = {"steps": SLOW["steps"], "batch_size": SLOW["n"]}
    thread = threading.Thread(target=lambda: found.append(client.post("/sdapi/v1/txt2img", json=asked)))
    thread.start()
    told = {"state": {"sampling_step": 0}}
    while not (told["state"]["sampling_step"] > 2 and told["current_image"]):
        told = client.get("/sdapi/v1/progress").json()
        time.sleep(0.02)
    assert 0 < told["progress"] < 1
    assert told["eta_relative"] > 0
    assert Image.open(io.BytesIO(base64.b64decode(told["current_image"]))).format == "JPEG"
    assert client.post("/sdapi/v1/interrupt").json() == {}
    thread.join(30)
    error_of(found[0], 410)
    assert client.get("/sdapi/v1/progress").json()["progress"] == 0


def test_what_cannot_be_is_one_line(client):
    assert "trained without words" in error_of(client.post("/sdapi/v1/txt2img", json={"prompt": "z"}), 400)
    assert "makes images of 6x6" in error_of(client.post("/sdapi/v1/txt2img", json={"width": 64, "height": 64}), 400)
    assert "did you mean 'euler'" in error_of(client.post("/sdapi/v1/txt2img", json={"sampler_name": "Eulr"}), 400)
    spiral = {"override_settings": {"sd_model_checkpoint": "spiral"}}
    assert "makes no images" in error_of(client.post("/sdapi/v1/txt2img", json=spiral), 400)


def test_img2img_makes_what_the_model_makes_of_the_pictures(client, folders):
    given = [Image.fromarray(np.full((6, 6), grey, np.uint8)) for grey in (40, 200)]
    texts = []
    for k, picture in enumerate(given):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        texts.append(("data:image/png;base64," if k else "") + base64.b64encode(buffer.getvalue()).decode())
    asked = {
        "prompt": "a",
        "seed": 7,
        "steps": 5,
        "sampler_name": "Euler",
        "batch_size": 2,
        "resize_mode": 1,
        "mask": None,
    }
    for strength, images in ((0.4, texts), (0.0, texts), (None, texts[:1])):
        more = {} if strength is None else {"denoising_strength": strength}
        answer = client.post("/sdapi/v1/img2img", json={**asked, "init_images": images, **more}).json()
        assert "init_images" not in answer["parameters"]
        expected = load(folders["digits"]).sample(
            2, image=given[0] if len(images) == 1 else given, strength=0.75 if strength is None else strength,
            label="a", seed=7, steps=5, sampler="euler",
        ).images()  # fmt: skip
        for text, image in zip(answer["images"], expected, strict=True):
            found = Image.open(io.BytesIO(base64.b64decode(text)))
            assert abs(np.asarray(found, dtype=int) - np.asarray(image, dtype=int)).max() <= 1


def test_what_cannot_be_edited_is_one_line(client):
    def refused(**asked):
        return error_of(client.post("/sdapi/v1/img2img", json=asked), 400)

    black = base64.b64encode(b"no picture").decode()
    assert "init_images: field required" in refused()
    assert "init_images" in refused(init_images=[])
    assert "this is no picture" in refused(init_images=[black])
    assert "this is no picture" in refused(init_images=["/etc/passwd"])
    assert "denoising_strength: " in refused(init_images=[black], denoising_strength=1.5)
    assert refused(init_images=[black], mask=black).startswith("mask: only whole pictures are edited here")
