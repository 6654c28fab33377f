"""What a person may do wrong: each is one clear line on stderr and exit code 2, and nothing that exists is lost."""

import contextlib
import os
import resource
import signal

import numpy as np
import pytest
from PIL import Image

from unnoise.model import Model
from unnoise.training.checkpoint import checkpoints

QUICK = ("training.steps=4", "training.checkpoint_every=2", "training.sample_every=0", "training.validation_size=16")
TINY = (*QUICK, "network.width=8", "network.depth=1", "training.batch_size=8")


@pytest.fixture
def run(trained):
    """A tiny run of the spiral, finished."""
    return trained("run", "spiral", *TINY)


def picture(path, size=(12, 12), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


def test_a_folder_without_images(refused, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    line = refused("train", "images", "--data", tmp_path, "--out", tmp_path / "run")
    assert "no image" in line.lower()
    assert ".txt" in line


def test_data_that_does_not_exist(refused, tmp_path):
    assert "there is nothing at" in refused("train", "images", "--data", tmp_path / "nowhere")


def test_a_recipe_for_data_of_ones_own_says_how_to_give_it(refused):
    assert "--data PATH" in refused("train", "images")


def test_a_broken_jpeg_among_good_ones_is_skipped_counted_and_named(unnoise, tmp_path):
    for i in range(8):
        picture(tmp_path / "pictures" / f"{i}.jpg", seed=i)
    (tmp_path / "pictures" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    said = unnoise("data", tmp_path / "pictures")
    assert said.code == 0, said
    assert "bad.jpg" in said.out
    assert "8 image" in said.out
    assert "unreadable  1" in said.out
    trained = unnoise(
        "train", "images", "--data", tmp_path / "pictures", "--out", tmp_path / "run", "data.size=8", *QUICK,
        "network.width=8", "network.multipliers=[1, 1]", "network.blocks=1", "training.batch_size=4",
    )  # fmt: skip
    assert trained.code == 0, trained
    assert "bad.jpg" in trained.err


def test_labels_missing_for_some_files(refused, tmp_path):
    for i in range(4):
        picture(tmp_path / "pictures" / "cats" / f"{i}.png", seed=i)
        picture(tmp_path / "pictures" / "dogs" / f"{i}.png", seed=i + 9)
    picture(tmp_path / "pictures" / "stray.png")
    line = refused("train", "images", "--data", tmp_path / "pictures", "--out", tmp_path / "run")
    assert "stray.png" in line
    assert "data.labels=false" in line


def test_data_with_nan(refused, tmp_path):
    points = np.zeros((20, 2), dtype=np.float32)
    points[7] = np.nan
    np.save(tmp_path / "points.npy", points)
    line = refused("train", "spiral", "--data", tmp_path / "points.npy", "--out", tmp_path / "run")
    assert "1 of 20 samples hold NaN" in line
    assert "number 7" in line


def test_constant_data(refused, tmp_path):
    np.save(tmp_path / "points.npy", np.ones((20, 2), dtype=np.float32))
    assert "nothing to learn" in refused(
        "train", "spiral", "--data", tmp_path / "points.npy", "--out", tmp_path / "run"
    )


def test_an_image_smaller_than_the_stride_of_the_network(refused, tmp_path):
    for i in range(4):
        picture(tmp_path / "pictures" / f"{i}.png", size=(4, 4), seed=i)
    line = refused(
        "train", "images", "--data", tmp_path / "pictures", "--out", tmp_path / "run", "data.size=4",
        "network.multipliers=[1, 1, 1, 1]",
    )  # fmt: skip
    assert "network.multipliers" in line or "multipliers" in line
    assert "8" in line


def test_an_unknown_key_in_a_recipe_names_the_nearest_known_one(refused, tmp_path):
    assert "did you mean 'batch_size'" in refused("train", "spiral", "training.batchsize=3", "--out", tmp_path / "run")
    assert "did you mean 'training'" in refused("train", "spiral", "trainig.lr=3", "--out", tmp_path / "run")
    assert "did you mean 'spiral'" in refused("train", "sprial", "--out", tmp_path / "run")
    assert "did you mean 'cosine'" in refused("train", "spiral", "process.name=cosin", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_value_of_the_wrong_type_or_out_of_range(refused, tmp_path):
    assert "training.lr" in refused("train", "spiral", "training.lr=fast", "--out", tmp_path / "run")
    assert "at least 1" in refused("train", "spiral", "training.steps=0", "--out", tmp_path / "run")


def test_noise_prediction_on_a_schedule_that_ends_without_signal(refused, tmp_path):
    line = refused("train", "spiral", "denoiser.name=noise", "process.name=flow", "--out", tmp_path / "run")
    assert "alpha(1) = 0" in line


def test_zero_steps(refused, run):
    assert "at least 1" in refused("sample", run, "--steps", 0, "-o", run / "x.png")


def test_a_label_that_the_model_does_not_know(refused, unnoise, run, tmp_path):
    assert "knows no label" in refused("sample", run, "--label", 3, "-o", tmp_path / "x.png")
    said = unnoise("train", "two-moons-labels", "--out", tmp_path / "moons", *TINY)
    assert said.code == 0, said
    line = refused("sample", tmp_path / "moons", "--label", "uper", "-o", tmp_path / "x.png")
    assert "did you mean 'upper'" in line
    assert "knows no label 2" in refused("sample", tmp_path / "moons", "--label", 2, "-o", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_an_unknown_sampler_or_grid_names_the_nearest(refused, run, tmp_path):
    assert "did you mean 'heun'" in refused("sample", run, "--sampler", "huen", "-o", tmp_path / "x.png")
    assert "did you mean 'karras'" in refused("sample", run, "--grid", "karas", "-o", tmp_path / "x.png")
    assert "eta" in refused("sample", run, "--sampler", "ddim", "sampler.etta=1", "-o", tmp_path / "x.png")


def test_a_file_that_samples_cannot_be_written_to(refused, run, tmp_path):
    assert ".npz" in refused("sample", run, "-o", tmp_path / "x.npy")
    assert ".png" in refused("sample", run, "-o", tmp_path / "x.tiff")


def test_a_place_without_a_model(refused, tmp_path):
    assert "no model at" in refused("sample", tmp_path, "-o", tmp_path / "x.png")
    assert "no model at" in refused("info", tmp_path)


def test_a_damaged_model_is_made_again_from_the_checkpoint_and_said_so(unnoise, run, tmp_path):
    whole = Model.load(run)
    weights = next((run / "model").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-3] ^= 255
    weights.write_bytes(content)
    said = unnoise("sample", run, "-n", 3, "-o", tmp_path / "x.csv")
    assert said.code == 0, said
    assert "checksum does not fit" in said.err.replace("\n", " ")
    assert "made again from the checkpoint of step 4" in said.err.replace("\n", " ")
    again = Model.load(run)
    for a, b in zip(whole.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert bool((a == b).all())


def test_a_damaged_model_folder_without_checkpoints(refused, run, tmp_path):
    (run / "model").rename(tmp_path / "model")
    file = tmp_path / "model" / "model.yaml"
    text = file.read_text()
    file.write_text(text.replace("name: mlp", "name: mpl"))
    assert "did you mean 'mlp'" in refused("sample", tmp_path / "model")
    file.write_text(text[: len(text) // 2])
    assert "damaged" in refused("sample", tmp_path / "model")
    file.write_text(text.replace("format: 1", "format: 99"))
    assert "format 99" in refused("sample", tmp_path / "model")


def test_a_damaged_checkpoint_is_passed_over_and_said_so(unnoise, tmp_path):
    folder = tmp_path / "run"
    more = [option if not option.startswith("training.steps") else "training.steps=6" for option in TINY]
    assert unnoise("train", "spiral", "--out", folder, *more).code == 0
    straight = {n: p.clone() for n, p in Model.load(folder).denoiser.named_parameters()}
    newest = checkpoints(folder / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-100])
    said = unnoise("train", "spiral", "--out", folder, *more)
    assert said.code == 0, said
    assert "damaged checkpoint passed over" in said.err
    assert "going on from step 4" in said.err
    for name, weight in Model.load(folder).denoiser.named_parameters():
        assert bool((weight == straight[name]).all())


def test_a_run_of_another_recipe_is_never_overwritten(refused, run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    line = refused("train", "spiral", "--out", run, *TINY, "training.lr=0.5")
    assert "training.lr" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_not_a_run_is_never_written_to(refused, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    assert "not a run folder" in refused("train", "spiral", "--out", tmp_path, *TINY)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_no_number_stops_the_run(refused, tmp_path):
    line = refused(
        "train", "spiral", "--out", tmp_path / "run", *TINY, "training.log_every=1", "denoiser.sigma_data=1",
        "codec={name: identity, scale: [1.0e-38]}",
    )  # fmt: skip
    assert "lower training.lr" in line


@contextlib.contextmanager
def largest_file(size):
    """Within it no file can be written beyond so many bytes, which is how a full disk looks to a program."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_full(unnoise, run, tmp_path):
    before = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    with largest_file(3000):
        said = unnoise("train", "spiral", "--out", tmp_path / "other", *TINY)
    assert said.code == 2, said
    assert "file too large" in said.err.lower()
    assert "Traceback" not in said.err
    assert not list((tmp_path / "other").rglob("*.partial"))
    with largest_file(100):
        said = unnoise("sample", run, "-o", tmp_path / "x.png")
    assert said.code == 2, said
    assert "x.png: free some space" in said.err
    assert not (tmp_path / "x.png").exists()
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


def test_a_place_that_may_not_be_written_to(refused, run, tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root may write anywhere, so the place is one that nobody may
        place = "/proc/unnoise"
    else:
        (tmp_path / "locked").mkdir(mode=0o555)
        place = tmp_path / "locked" / "run"
    line = refused("train", "spiral", "--out", place, *TINY)
    assert str(place) in line
    assert str(place) in refused("sample", run, "-o", f"{place}/x.png")


@pytest.mark.parametrize("content", [b"a: b: c", b"[1]", b"\xff\xfe", b"", b"description: 2020-99-99"])
def test_the_recipe_of_a_run_damaged_by_hand(refused, run, content):
    (run / "recipe.yaml").write_bytes(content)
    assert "use another --out" in refused("train", "spiral", "--out", run, *TINY)


def test_a_file_that_is_no_recipe(refused, tmp_path):
    picture(tmp_path / "x.png")
    assert "expected a YAML file" in refused("train", tmp_path / "x.png")


def test_what_would_only_fail_at_the_first_samples_is_refused_at_once(refused, tmp_path):
    line = refused("train", "spiral", "--out", tmp_path / "run", "sampling.grid=unifrom", *TINY)
    assert "did you mean 'uniform'" in line
    assert not (tmp_path / "run").exists()
    assert "no levels" in refused("train", "spiral", "--out", tmp_path / "run", "sampling.grid=trailing", *TINY)


@pytest.mark.parametrize("value", ["0", "-1", ".nan", ".inf"])
def test_a_spread_of_the_data_that_is_not_positive(refused, tmp_path, value):
    line = refused("train", "spiral", "--out", tmp_path / "run", f"denoiser.sigma_data={value}", *TINY)
    assert "sigma_data: expected a positive number" in line


def test_numbers_beyond_64_bits(refused, run, tmp_path):
    assert "seed: must be at most" in refused("train", "spiral", "--seed", 10**20, "--out", tmp_path / "run", *TINY)
    assert "first: " in refused("sample", run, "--first", 10**20, "-o", tmp_path / "x.npz")
    assert "steps: must be at most" in refused("sample", run, "--steps", 10**20, "-o", tmp_path / "x.npz")


def test_more_memory_than_there_is(refused, tmp_path):
    line = refused("train", "spiral", "network.width=1000000", "--out", tmp_path / "run", *QUICK)
    assert "memory does not suffice" in line


def test_memory_that_runs_out_in_a_step(unnoise, run, monkeypatch):
    from torch import OutOfMemoryError

    from unnoise.training.gradient import Gradient

    def short(*_):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    longer = (*TINY, "training.steps=6")
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("steps: 4\n", "steps: 6\n", 1))
    with monkeypatch.context() as patched:
        patched.setattr(Gradient, "add", short)
        said = unnoise("train", "spiral", "--out", run, *longer)
    told = "unnoise: the memory does not suffice for 8 samples at once: add machine.micro_batch=4, which gives the same result"
    assert (said.code, said.err.splitlines()[-1].partition(";")[0]) == (2, told)
    said = unnoise("train", "spiral", "--out", run, *longer, "machine.micro_batch=4")
    assert said.code == 0, said
    assert "going on from step 4" in said.err


def test_a_folder_of_hidden_files_only_is_empty(unnoise, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".DS_Store").write_bytes(b"")
    assert unnoise("train", "spiral", "--out", tmp_path / "run", *TINY).code == 0


def test_a_run_that_never_saved_a_step_does_not_keep_its_folder(unnoise, refused, tmp_path):
    hybrid = ("objective=hybrid", "process=flow", "denoiser=velocity", "denoiser.learned_variance=true")
    assert "discrete schedule" in refused("train", "spiral", "--out", tmp_path / "run", *hybrid, *TINY)
    said = unnoise("train", "spiral", "--out", tmp_path / "run", *TINY)
    assert said.code == 0, said
    assert "hybrid" not in (tmp_path / "run" / "recipe.yaml").read_text()
    said = refused("train", "spiral", "--out", tmp_path / "run", "training.lr=0.5", *TINY)
    assert "another recipe (it differs in training.lr)" in said
    assert "--from" not in said
    said = refused("train", "spiral", "--out", tmp_path / "run", *TINY, "training.steps=50")
    assert f"begin with it: --from {tmp_path / 'run'} and another --out" in said


def test_guidance_without_a_label_is_said_to_do_nothing(unnoise, run, tmp_path):
    assert "guidance does nothing" in unnoise("sample", run, "--guidance", 3, "-n", 1, "-o", tmp_path / "x.npz").err


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew_over_its_model(refused, run):
    for file in checkpoints(run / "checkpoints"):
        file.write_bytes(b"x")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert "no whole checkpoint is left" in refused("train", "spiral", "--out", run, *TINY)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
