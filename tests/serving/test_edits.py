"""`/v1/images/edits`, asked by OpenAI's own client."""

import base64
import io

import numpy as np
import openai
import pytest
from PIL import Image

from unnoise.model import load
from unnoise.samples import read_recipe

from .conftest import error_of


@pytest.fixture(scope="module")
def ask(client):
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two pictures larger than the model's."""
    folder, chance = tmp_path_factory.mktemp("given"), np.random.default_rng(0)
    for name in ("one.png", "two.jpg"):
        Image.fromarray(chance.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(folder / name)
    return folder / "one.png", folder / "two.jpg"


def of(answer):
    return [base64.b64decode(each.b64_json) for each in answer.data]


def test_the_images_are_those_that_the_command_line_writes_byte_for_byte(ask, folders, files, tmp_path):
    told = {"seed": 7, "steps": 5, "label": "a", "strict": True, "strength": 0.4, "guidance_scale": 2.0}
    with files[0].open("rb") as picture:
        answer = ask.images.edit(model="digits", image=picture, prompt="", n=3, extra_body=told)
    how = {"seed": 7, "steps": 5, "label": "a", "strength": 0.4, "guidance": 2.0}
    written = load(folders["digits"]).sample(3, image=files[0], **how).save(tmp_path / "cli")
    assert of(answer) == [file.read_bytes() for file in written]
    assert (answer.size, answer.output_format) == ("6x6", "png")
    (tmp_path / "one.png").write_bytes(of(answer)[0])
    recipe = read_recipe(tmp_path / "one.png")
    assert recipe["strength"] == 0.4
    (again,) = load(folders["digits"]).replay(recipe).save(tmp_path / "again.png")
    assert again.read_bytes() == of(answer)[0]


def test_several_pictures_give_one_image_each_and_options_may_be_anything_that_json_can_say(
    ask, folders, files, tmp_path
):
    told = {"seed": 3, "strict": True, "strength": 0.5, "sampler": '{"name": "ddim", "eta": 0.5}', "grid": "[0.5, 0.2]"}
    answer = ask.images.edit(model="digits", image=[file.read_bytes() for file in files], prompt="", extra_body=told)
    expected = load(folders["digits"]).sample(
        2, image=list(files), sampler={"name": "ddim", "eta": 0.5}, grid=[0.5, 0.2], seed=3
    ).save(tmp_path / "cli")  # fmt: skip
    assert of(answer) == [file.read_bytes() for file in expected]
    told |= {"sampler": {"name": "ddim", "eta": 0.5}, "grid": [0.5, 0.2]}
    spelt = ask.images.edit(model="digits", image=list(files), prompt="", extra_body=told)
    assert of(spelt) == of(answer)


def test_at_strength_0_the_picture_comes_back_in_the_model_s_size(ask, files):
    (made,) = of(ask.images.edit(model="digits", image=files[0], prompt="", extra_body={"strength": 0}))
    grey = Image.open(files[0]).convert("L")
    expected = np.asarray(grey.resize((6, 6), Image.Resampling.LANCZOS, box=(3, 0, 27, 24)), dtype=int)
    assert np.abs(np.asarray(Image.open(io.BytesIO(made)), dtype=int) - expected).max() <= 1


def test_partial_images_are_streamed_and_the_last_is_the_image(ask, files):
    told = {"seed": 3, "num_inference_steps": 12, "label": "a", "strength": 0.7, "strict": True}
    asked = {"model": "digits", "image": files[0], "prompt": "", "extra_body": told}
    events = list(ask.images.edit(**asked, stream=True, partial_images=2))
    assert [each.type for each in events] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    assert [each.partial_image_index for each in events[:2]] == [0, 1]
    assert events[-1].b64_json == ask.images.edit(**asked).data[0].b64_json
    assert events[-1].usage.total_tokens == 0


def test_a_job_begins_from_a_picture_or_from_points(client, folders, files):
    text = "data:image/jpeg;base64," + base64.b64encode(files[1].read_bytes()).decode()
    for asked in (
        {"model": "digits", "n": 2, "image": text, "strength": 0.3, "strict": True, "steps": 3},
        {"model": "spiral", "n": 2, "image": [[0.5, -1.0], [0.0, 1.0]], "strength": 0.3, "strict": True, "steps": 3},
    ):
        job = client.engine.job(client.post("/v1/jobs", json=asked).json()["id"])
        assert job.wait(60)
        given = files[1] if asked["model"] == "digits" else asked["image"]
        expected = load(folders[asked["model"]]).sample(2, image=given, strength=0.3, steps=3)
        assert job.samples().tensor.equal(expected.tensor)
        assert client.get(f"/v1/jobs/{job.id}").json()["recipe"]["image"] == job.recipe["image"]
        (listed,) = client.get("/v1/jobs", params={"limit": 1}).json()["data"]
        assert (listed["id"], listed["recipe"]["strength"], "image" in listed["recipe"]) == (job.id, 0.3, False)
        # What is kept of the picture is what the model sees of it.
        assert job.request.image == job.recipe["image"] == expected.recipe["image"]


@pytest.mark.parametrize(
    ("told", "param", "message"),
    [
        ({"extra_body": {"strength": 2}}, "strength", "less than or equal to 1"),
        ({"extra_body": {"strength": "much"}}, "strength", "valid number"),
        ({"extra_body": {"strength_": 0.5}}, "strength_", "did you mean 'strength'"),
        ({"image": b"no picture"}, "image", "this is no picture: cannot identify image file"),
        ({"mask": b"any"}, "mask", "only whole pictures are edited here"),
        ({"prompt": "a cat"}, "prompt", "this model was trained without words"),
        ({"size": "1024x1024"}, "size", "makes images of 6x6"),
        ({"size": "big"}, "size", "size: expected auto or WIDTHxHEIGHT such as 64x64, got 'big'"),
        ({"n": 0}, "n", "n:"),
        ({"image": [b"1", b"2"], "n": 3}, "image", "image: "),
        ({"model": "spiral"}, "image", "the model makes no pictures"),
        ({"extra_body": {"sampler": "huen"}}, "sampler.name", "did you mean 'heun'"),
        ({"extra_body": {"sampler": {"called": "heun"}}}, "sampler", "sampler: "),
        ({"extra_body": {"steps": "[" * 2000}}, "steps", "steps:"),
    ],
    ids=range(14),
)  # fmt: skip
def test_wrong_requests_are_the_client_s_own_errors(ask, files, told, param, message):
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        ask.images.edit(**{"model": "digits", "prompt": "", "image": files[0], **told})
    assert caught.value.param == param
    assert caught.value.body["type"] == "invalid_request_error"
    assert "\n" not in caught.value.body["message"]


def test_what_is_no_form_or_too_large_is_one_line(client, start, files):
    assert "multipart/form-data" in error_of(client.post("/v1/images/edits", json={"image": "x"}), 400)
    no_boundary = {"content-type": "multipart/form-data"}
    error_of(client.post("/v1/images/edits", content=b"x", headers=no_boundary), 400)
    damaged = {"content-type": "multipart/form-data; boundary=b"}
    error_of(client.post("/v1/images/edits", content=b"--c\r\nx", headers=damaged), 400)
    assert "send the picture" in error_of(client.post("/v1/images/edits", files={"other": b"x"}, data={"n": "1"}), 400)
    named = client.post("/v1/images/edits", data={"image": str(files[0]), "model": "digits"}, files={"x": b"1"})
    assert "x: there is no such option" in error_of(named, 400)
    named = client.post("/v1/images/edits", files={"image": (None, str(files[0])), "model": (None, "digits")})
    assert "image: expected a picture as data:image/png;base64" in error_of(named, 400)
    for twice in (
        {"sampler": "ddim", "sampler[eta]": "1"},
        {"sampler[eta]": "1", "sampler": "ddim"},
        {"n": "1", "n[]": "2"},
    ):
        both = client.post("/v1/images/edits", data=twice, files={"image": files[0].read_bytes()})
        assert "it is said twice" in error_of(both, 400)
    small = start(most_bytes=1000)
    assert "may have 1,000 bytes" in error_of(small.post("/v1/images/edits", files={"image": bytes(2000)}), 413)


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_unpacked(client):
    buffer = io.BytesIO()
    Image.new("1", (5000, 5000)).save(buffer, "PNG")
    answer = client.post("/v1/images/edits", files={"image": buffer.getvalue()}, data={"model": "digits"})
    assert "5000 x 5000 is too large" in error_of(answer, 400)
