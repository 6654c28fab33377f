"""`/v1/images/generations`, asked by OpenAI's own client."""

import base64
import io

import numpy as np
import openai
import pytest
from PIL import Image

from unnoise.model import load
from unnoise.samples import read_recipe


@pytest.fixture(scope="module")
def ask(client):
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_the_images_are_those_that_the_command_line_writes_byte_for_byte(ask, folders, tmp_path):
    answer = ask.images.generate(
        model="digits", prompt="", n=3, size="auto", extra_body={"seed": 7, "steps": 5, "label": "a", "strict": True}
    )
    files = load(folders["digits"]).sample(3, seed=7, steps=5, label="a").save(tmp_path / "cli")
    assert [base64.b64decode(each.b64_json) for each in answer.data] == [file.read_bytes() for file in files]
    assert answer.usage.total_tokens == 0
    assert answer.size == "6x6"
    assert answer.output_format == "png"
    assert answer.created > 1_700_000_000


def test_what_others_ask_at_the_same_time_changes_no_byte_in_strict_mode(ask, folders, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def make(seed):
        told = {"seed": seed, "steps": 6 + seed % 3, "strict": seed % 2 == 0, "guidance_scale": 2.0, "label": "b"}
        return ask.images.generate(model="digits", prompt="", extra_body=told).data[0].b64_json

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    for seed in range(0, 8, 2):
        (file,) = (
            load(folders["digits"])
            .sample(1, seed=seed, steps=6 + seed % 3, guidance=2.0, label="b")
            .save(tmp_path / str(seed))
        )
        assert base64.b64decode(made[seed]) == file.read_bytes()


def test_partial_images_are_streamed_and_the_last_is_the_image(ask):
    told = {"seed": 3, "num_inference_steps": 12, "label": "a"}
    events = list(ask.images.generate(model="digits", prompt="", stream=True, partial_images=3, extra_body=told))
    assert [each.type for each in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert [each.partial_image_index for each in events[:3]] == [0, 1, 2]
    pictures = [Image.open(io.BytesIO(base64.b64decode(each.b64_json))) for each in events]
    assert all(picture.size == (6, 6) for picture in pictures)
    whole = ask.images.generate(model="digits", prompt="", extra_body=told)
    assert events[-1].b64_json == whole.data[0].b64_json
    assert events[-1].usage.total_tokens == 0
    # What is estimated in the end comes near to what it becomes.
    first, _, last, end = (np.asarray(picture.convert("L"), dtype=float) for picture in pictures)
    assert abs(last - end).mean() < abs(first - end).mean()


def test_an_image_carries_its_recipe(ask, tmp_path):
    answer = ask.images.generate(model="digits", prompt="", extra_body={"sampler": {"name": "ddim", "eta": 1.0}})
    (tmp_path / "one.png").write_bytes(base64.b64decode(answer.data[0].b64_json))
    recipe = read_recipe(tmp_path / "one.png")
    assert recipe["sampler"] == {"name": "ddim", "eta": 1.0}
    assert recipe["seed"] == answer.model_extra["unnoise"]["seed"]


def test_images_by_address_and_in_other_formats(ask, client):
    answer = ask.images.generate(model="digits", prompt="", n=2, response_format="url", output_format="jpeg")
    for each in answer.data:
        found = client.get(each.url)
        assert found.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(found.content)).format == "JPEG"
    webp = ask.images.generate(model="digits", prompt="", output_format="webp")
    assert Image.open(io.BytesIO(base64.b64decode(webp.data[0].b64_json))).format == "WEBP"


def test_points_come_as_one_picture_of_them_all(ask):
    answer = ask.images.generate(model="spiral", prompt="", n=50)
    (one,) = answer.data
    assert Image.open(io.BytesIO(base64.b64decode(one.b64_json))).size[0] > 100


def test_seeds_are_drawn_anew_where_none_is_said(ask):
    one, other = (ask.images.generate(model="digits", prompt="") for _ in range(2))
    assert one.data[0].b64_json != other.data[0].b64_json


@pytest.mark.parametrize(
    ("told", "kind", "param", "message"),
    [
        ({"model": "digit"}, openai.NotFoundError, None, "did you mean 'digits'"),
        ({"prompt": "a cat"}, openai.BadRequestError, "prompt", "this model was trained without words"),
        ({"size": "1024x1024"}, openai.BadRequestError, "size", "makes images of 6x6"),
        ({"size": "big"}, openai.BadRequestError, "size", "size:"),
        ({"n": 0}, openai.BadRequestError, "n", "n:"),
        ({"extra_body": {"smapler": "heun"}}, openai.BadRequestError, "smapler", "did you mean 'sampler'"),
        ({"extra_body": {"sampler": "huen"}}, openai.BadRequestError, "sampler.name", "did you mean 'heun'"),
        ({"extra_body": {"label": "c"}}, openai.BadRequestError, "label", "no label 'c'"),
    ],
)
def test_wrong_requests_are_the_client_s_own_errors(ask, told, kind, param, message):
    with pytest.raises(kind, match=message) as caught:
        ask.images.generate(**{"model": "digits", "prompt": "", **told})
    assert caught.value.param == param
    assert caught.value.body["type"] == "invalid_request_error"


def test_an_error_on_the_way_ends_a_stream_with_it(ask):
    told = {"steps": 1000, "timeout": 1.0, "n": 64}
    with pytest.raises(openai.APIError, match="was not done within"):
        list(ask.images.generate(model="digits", prompt="", stream=True, partial_images=1, extra_body=told))


def test_the_models_are_listed(ask):
    listed = {each.id: each for each in ask.models.list()}
    assert set(listed) == {"digits", "spiral"}
    assert listed["digits"].model_extra["labels"] == ["a", "b"]
    assert ask.models.retrieve("digits").model_extra["shape"] == [1, 6, 6]
    assert "path" not in ask.models.retrieve("digits").model_extra
    with pytest.raises(openai.NotFoundError):
        ask.models.retrieve("nothing")
