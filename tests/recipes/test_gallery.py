import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from unnoise.blueprint import Blueprint
from unnoise.cli.draw import draw_app
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Dataset, Spec
from unnoise.data.digits import DigitsDataset
from unnoise.data.spiral import SpiralDataset
from unnoise.denoisers.oracle import DatasetOracle, GaussianMixtureOracle
from unnoise.errors import BadOption, DataError, RunFolderError
from unnoise.model import Model
from unnoise.nn.mlp import MLPConfig
from unnoise.nn.unet import UNetConfig
from unnoise.process.cosine import CosineSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.recipes import gallery
from unnoise.recipes.gallery import (
    caption,
    choose,
    draw_run_samples,
    forward_strip,
    loss_by_time_picture,
    reverse_animation,
    run_loss_picture,
    schedules_side_by_side,
)
from unnoise.recipes.score_field import model_score, score_error, score_field
from unnoise.registry import Choice

LINEAR, EXPLODING = LinearSchedule(), VarianceExplodingSchedule(0.01, 20.0)
SPIRAL, DIGITS = SpiralDataset().load(), DigitsDataset().load()
CODEC = IdentityCodec((0.3, -0.2), (2.0, 0.5))
SMALL_UNET = Choice("unet", UNetConfig(width=8, multipliers=(1,), blocks=1, attention=()))


def points_model(denoiser=None, codec=CODEC, schedule=EXPLODING):
    blueprint = Blueprint(SPIRAL.spec, codec, schedule, "edm", 1.0, False, Choice("mlp", MLPConfig(width=8, depth=1)))
    return Model(blueprint, blueprint.build() if denoiser is None else denoiser)


def digits_model():
    return Model(b := Blueprint(DIGITS.spec, IdentityCodec.pixels(), LINEAR, "v", 0.6, False, SMALL_UNET), b.build())


def alpha_bar(level):
    """Of the linear schedule, from its definition."""
    return float(np.prod(1 - np.linspace(1e-4, 0.02, 1000)[: level + 1]))


@pytest.fixture
def drawn(monkeypatch):
    """What was handed to `strip`: pairs of pictures and captions."""
    calls = []
    whole = gallery.strip

    def spy(frames, captions=None, title=None):
        calls.append((list(frames), list(captions or [])))
        return whole(frames, captions, title)

    monkeypatch.setattr(gallery, "strip", spy)
    return calls


@pytest.mark.parametrize("level", [0, 249, 499, 900])
def test_captions_tell_alpha_bar_and_the_signal_to_noise_ratio_of_the_level(level):
    a = alpha_bar(level)
    t, name, bar, snr = caption(LINEAR, (level + 1) / 1000).split("\n")
    assert (t, name) == (f"t = {(level + 1) / 1000:g}", f"level {level}")
    assert float(bar.removeprefix("ᾱ = ")) == pytest.approx(a, rel=0.05, abs=5e-5)
    assert float(snr.removeprefix("SNR = ")) == pytest.approx(a / (1 - a), rel=5e-3)


def test_captions_are_finite_in_words_at_both_ends():
    assert caption(LINEAR, 0.0) == "t = 0\nclean data\nᾱ = 1.0000\nSNR = ∞"
    assert caption(CosineSchedule().zero_terminal_snr(), 1.0).endswith("level 999\nᾱ = 0.0000\nSNR = 0")
    assert caption(EXPLODING, 1.0) == "t = 1\nα = 1, σ = 20\nSNR = 0.0025"


def test_levels_and_times_give_the_same_strip(drawn):
    by_level = forward_strip(SPIRAL, None, LINEAR, levels=[-1, 249, 999])
    by_time = forward_strip(SPIRAL, None, LINEAR, (0.0, 0.25, 1.0))
    assert by_level.tobytes() == by_time.tobytes()
    assert [words.split("\n")[1] for words in drawn[0][1]] == ["clean data", "level 249", "level 999"]
    with pytest.raises(BadOption, match=r"levels: expected -1 \(clean data\) to 999, got \[1000\]"):
        forward_strip(SPIRAL, None, LINEAR, levels=[1000])
    with pytest.raises(BadOption, match="VarianceExplodingSchedule has none"):
        forward_strip(SPIRAL, None, EXPLODING, levels=[0])
    with pytest.raises(BadOption, match=r"all in \[0, 1\], got \[1.5\]"):
        forward_strip(SPIRAL, None, LINEAR, [1.5])


def test_the_frames_of_a_strip_are_the_closed_form_with_one_noise(monkeypatch):
    seen = []
    monkeypatch.setattr(gallery, "scatter", lambda x, *args, **options: seen.append(x) or Image.new("RGB", (9, 9)))
    forward_strip(SPIRAL, CODEC, LINEAR, levels=[-1, 249, 999])
    clean, some, most = (CODEC.encode(x.double()) for x in seen)
    torch.testing.assert_close(clean, CODEC.encode(SPIRAL.x.double()), atol=1e-6, rtol=0)
    noises = [
        (x - math.sqrt(alpha_bar(k)) * clean) / math.sqrt(1 - alpha_bar(k)) for k, x in ((249, some), (999, most))
    ]
    torch.testing.assert_close(noises[0], noises[1], atol=1e-5, rtol=0)
    assert float(noises[0].std()) == pytest.approx(1, abs=0.1)


def test_a_schedule_that_explodes_is_drawn_at_the_size_of_the_data(monkeypatch):
    seen = []
    monkeypatch.setattr(gallery, "scatter", lambda x, *args, **options: seen.append(x) or Image.new("RGB", (9, 9)))
    forward_strip(SPIRAL, IdentityCodec(), EXPLODING, (1.0,))
    assert float(seen[0].std()) == pytest.approx(1, abs=0.1)


def test_images_dissolve_in_a_grid_of_one_of_each_class(drawn):
    assert DIGITS.labels[choose(DIGITS, 12)].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    forward_strip(DIGITS, None, LINEAR, levels=[-1, 999])
    clean, noisy = (np.asarray(frame) for frame in drawn[0][0])
    scale = (clean.shape[0] - 4) // 3 - 4  # three cells with a gap of four pixels
    first = np.kron(DIGITS.x[choose(DIGITS, 1)[0], 0].numpy(), np.ones((scale // 8, scale // 8)))
    assert (clean[4 : 4 + scale, 4 : 4 + scale, 0] == first).all()
    assert (noisy != clean).mean() > 0.5


def test_schedules_stand_under_each_other_with_the_same_noise(drawn):
    schedules = {"linear": LINEAR, "cosine": CosineSchedule()}
    sheet = schedules_side_by_side(SPIRAL, None, schedules, (0.0, 0.5))
    (linear, _), (cosine, _) = drawn
    assert linear[0].tobytes() == cosine[0].tobytes()
    assert linear[1].tobytes() != cosine[1].tobytes()
    strips = [forward_strip(SPIRAL, None, each, (0.0, 0.5)) for each in schedules.values()]
    assert sheet.height > sum(each.height for each in strips)
    pixels = np.asarray(sheet)
    assert (pixels[-strips[1].height :, : strips[1].width] == np.asarray(strips[1])).all()


def test_the_animation_has_a_frame_for_the_noise_and_for_each_step(drawn):
    model = digits_model()
    frames = reverse_animation(model, 4, label=3, steps=5)
    assert len(frames) == 6
    assert len({frame.size for frame in frames}) == 1
    assert [words[0] for _, words in drawn] == [f"x at t = {1 - k / 5:.3f}" for k in range(6)]
    end = model.sample(4, label=3, steps=5)
    columns = gallery.image_grid(end.tensor, 2, round((300 / 2 - 4) / 8))
    assert drawn[-1][0][0].tobytes() == columns.tobytes()


def test_points_move_over_the_data(drawn):
    frames = reverse_animation(points_model(), 50, data=SPIRAL, steps=3, size=200)
    assert len(frames) == 4
    grey = np.array([0xB4, 0xBE, 0xC9])
    shown = [np.abs(np.asarray(pair[0]).astype(int) - grey).sum(2).min() for pair, _ in drawn]
    assert max(shown) < 60


def test_the_score_of_an_exact_gaussian_is_that_of_the_formula_in_the_units_of_the_data():
    mean, std, t = torch.tensor([[1.0, 0.5]]), torch.tensor([0.7]), 0.4
    oracle = GaussianMixtureOracle(mean, std, torch.ones(1), EXPLODING)
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = float(EXPLODING.sigma(torch.tensor(t, dtype=torch.float64)))
    scale, shift = torch.tensor(CODEC.scale).double(), torch.tensor(CODEC.shift).double()
    exact = -(x - (shift + scale * mean)) / (scale**2 * (0.7**2 + sigma**2))
    torch.testing.assert_close(model_score(points_model(oracle), x, t), exact, atol=1e-6, rtol=1e-6)


def test_the_exact_denoiser_of_the_data_has_no_error_and_silence_has_one():
    exact = DatasetOracle(CODEC.encode(SPIRAL.x.double()), EXPLODING)
    assert score_error(points_model(exact), SPIRAL, 0.4) == pytest.approx(0, abs=1e-9)

    class Silent(DatasetOracle):
        def forward(self, x_t, t, cond=None):
            return x_t  # the schedule keeps the signal's scale, so the score (D - x) / sigma^2 is 0

    silent = Silent(exact.points, EXPLODING)
    assert score_error(points_model(silent), SPIRAL, 0.4) == pytest.approx(1, abs=1e-9)


def test_the_learned_field_stands_above_the_exact_one():
    model = points_model(DatasetOracle(CODEC.encode(SPIRAL.x.double()), EXPLODING))
    one, both = score_field(model, 0.4), score_field(model, (0.3, 0.4), SPIRAL, size=200)
    assert one.height < 1.4 * one.width
    assert both.width > 400
    assert both.height > 400
    # The denoiser is exact, so the two rows agree: the lower one ends the picture but for its frame and gap.
    pixels = np.asarray(both.convert("L")).astype(int)
    lower = pixels[-212:-12, 12:212]
    rows = [y for y in range(20, 60) if (pixels[y : y + 200, 12:212] == lower).all()]
    assert len(rows) == 1


def test_a_score_field_needs_points_and_noise():
    with pytest.raises(
        DataError, match=r"needs a model of points in the plane, this one makes image of shape \(1, 8, 8\)"
    ):
        score_field(digits_model(), 0.5)
    with pytest.raises(BadOption, match=r"a time in \(0, 1\], got 0"):
        score_field(points_model(), 0.0)


def metrics(folder, floor=0.25, loss=True):
    by_time = {"t": [0.1, 0.5, 0.9], "loss": [0.5, 0.4, 0.6], "floor": None if floor is None else [0.2, 0.3, 0.6]}
    best = {"validation_loss": 0.5} | ({} if floor is None else {"bayes_floor": floor})
    lines = [{"step": step, "loss": 1 / step, "lr": 1e-3} for step in range(10, 200, 10)] if loss else []
    lines += [
        {"step": 100, **best, "by_time": by_time},
        {"step": 200, **best, "validation_loss": 0.4, "by_time": by_time},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_loss_is_drawn_with_its_floor_where_there_is_one(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    seen = {}
    whole = gallery.loss_curve
    monkeypatch.setattr(gallery, "loss_curve", lambda *a, **k: seen.update(k, args=a) or whole(*a, **k))
    metrics(tmp_path)
    assert run_loss_picture(tmp_path).width > 400
    steps, losses, smoothed = seen["args"]
    assert list(steps) == list(range(10, 200, 10))
    assert len(smoothed) == len(losses)
    assert min(losses) <= min(smoothed) <= max(smoothed) <= max(losses)
    assert (seen["floor"], seen["validation"]) == (0.25, ([100, 200], [0.5, 0.4]))
    metrics(tmp_path, floor=None)
    run_loss_picture(tmp_path)
    assert seen["floor"] is None
    assert loss_by_time_picture(tmp_path).width > 400
    metrics(tmp_path, loss=False)
    run_loss_picture(tmp_path)


def test_smoothing_leaves_a_constant_alone_and_does_not_lag_at_the_start():
    assert gallery.smoothed([3.0] * 100) == pytest.approx([3.0] * 100)
    assert gallery.smoothed([5.0, 1.0])[0] == 5.0


def test_a_folder_without_metrics_is_refused_in_one_line(tmp_path):
    with pytest.raises(RunFolderError, match="holds no metrics: give a run folder"):
        run_loss_picture(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 50, "loss": 1.0}\n')
    with pytest.raises(RunFolderError, match="was not validated yet"):
        loss_by_time_picture(tmp_path)


def test_samples_of_a_run_have_a_row_for_each_label_and_are_the_same_every_time(tmp_path):
    model = digits_model()
    draw_run_samples(model, tmp_path / "samples" / "1.png")
    draw_run_samples(model, tmp_path / "samples" / "2.png")
    first, second = ((tmp_path / "samples" / name).read_bytes() for name in ("1.png", "2.png"))
    assert first == second
    assert sorted(each.name for each in (tmp_path / "samples").iterdir()) == ["1.png", "2.png"]
    with Image.open(tmp_path / "samples" / "1.png") as picture:
        cell = 6 * 8 + 4
        left = picture.width - (4 + 8 * cell)
        assert 20 < left < 60
        assert picture.height == 4 + 10 * cell
        pixels = np.asarray(picture.convert("L"))
        numbers = [pixels[4 + i * cell : (i + 1) * cell, :left] for i in range(10)]
        assert all(number.min() < 100 for number in numbers)
        assert len({number.tobytes() for number in numbers}) == 10


def test_points_of_a_run_are_drawn_and_what_has_no_picture_is_passed_over(tmp_path):
    draw_run_samples(points_model(), tmp_path / "points.png")
    with Image.open(tmp_path / "points.png") as picture:
        assert picture.size == (480, 480)
    spec = Spec("array", (3, 5))
    unet = Choice("unet", UNetConfig(width=8, multipliers=(1,), blocks=1, attention=()))
    blueprint = Blueprint(spec, IdentityCodec(), LINEAR, "v", 1.0, False, unet)
    draw_run_samples(Model(blueprint, blueprint.build()), tmp_path / "array.png")
    assert not (tmp_path / "array.png").exists()
    with pytest.raises(DataError, match=r"samples of shape \(3, 5\) have no picture"):
        forward_strip(Dataset(torch.randn(4, 3, 5), spec), None, LINEAR)


runner = CliRunner()


def draw(*words):
    return runner.invoke(draw_app, [str(word) for word in words], catch_exceptions=False)


def test_the_command_line_draws_what_the_functions_draw(tmp_path):
    out = tmp_path / "deep" / "strip.png"
    done = draw("forward", "spiral", "-o", out, "--schedule", "cosine", "--times", "0,0.5")
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    with Image.open(out) as picture:
        assert picture.tobytes() == forward_strip(SPIRAL, None, CosineSchedule(), (0.0, 0.5)).tobytes()
    assert draw("schedules", "digits", "-n", 4, "-o", tmp_path / "both.webp").exit_code == 0
    model = points_model().save(tmp_path / "model")
    assert draw("score", model, "--data", "spiral", "--times", "0.4", "-o", tmp_path / "score.png").exit_code == 0
    assert draw("reverse", model, "-n", 20, "--steps", 3, "-o", tmp_path / "x.gif").exit_code == 0
    with Image.open(tmp_path / "x.gif") as animation:
        assert animation.n_frames == 4
    asked = digits_model().save(tmp_path / "digits")
    assert draw("reverse", asked, "--label", 3, "-n", 4, "--steps", 2, "-o", tmp_path / "3.webp").exit_code == 0


def test_the_exact_score_is_that_of_the_runs_own_data_unless_other_is_given(tmp_path):
    trained = points_model()
    model = Model(trained.blueprint, trained.denoiser, trained={"data": SPIRAL.fingerprint()}).save(tmp_path / "model")

    def height(name, *more):
        done = draw("score", model, "--times", "0.4", "-o", tmp_path / name, *more)
        assert done.exit_code == 0
        with Image.open(tmp_path / name) as picture:
            return picture.height, done.stderr

    alone, said = height("alone.png")
    assert "give it with --data" in said
    (tmp_path / "recipe.yaml").write_text("data: spiral\nnetwork: mlp\ntraining: {validation_share: 0.0}\n")
    both, said = height("both.png")
    assert both > 1.8 * alone
    assert "note" not in said
    assert height("given.png", "--data", "spiral")[0] == both
    assert (tmp_path / "given.png").read_bytes() == (tmp_path / "both.png").read_bytes()
    (tmp_path / "recipe.yaml").write_text("data: moons\nnetwork: mlp\n")
    assert height("changed.png")[0] == alone


def test_the_command_line_draws_losses(tmp_path):
    pytest.importorskip("matplotlib")
    metrics(tmp_path)
    assert draw("loss", tmp_path, "-o", tmp_path / "loss.png").exit_code == 0
    assert draw("loss", tmp_path, "--by-time", "-o", tmp_path / "time.png").exit_code == 0
    assert (tmp_path / "loss.png").read_bytes() != (tmp_path / "time.png").read_bytes()


def test_the_command_line_refuses_before_it_works(tmp_path):
    with pytest.raises(BadOption, match=r"cannot write strip.gif: the name must end in .png, .jpg, .jpeg, .webp"):
        draw("forward", "spiral", "-o", tmp_path / "strip.gif")
    with pytest.raises(BadOption, match=r"times: expected numbers with commas between.*got '0;1'"):
        draw("forward", "spiral", "--times", "0;1", "-o", tmp_path / "strip.png")
    assert list(tmp_path.iterdir()) == []
    assert "unnoise draw reverse runs/digits" in draw("reverse", "--help").stdout
