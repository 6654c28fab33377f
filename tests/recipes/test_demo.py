import base64
import io
import re
import sys

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from unnoise.data.digits import DigitsDataset
from unnoise.errors import MissingExtra
from unnoise.evaluation.distances import mean_distance
from unnoise.recipes import demo
from unnoise.recipes.demo import make_demo
from unnoise.recipes.demo_findings import (
    Effort,
    comparable,
    compare_guidance,
    drawn_anew,
    judge_the_judge,
    nearest_real,
)

DIGITS = DigitsDataset().load()
TINY = {
    "spiral": ["training.steps=30", "training.validation_size=64", "training.validate_every=15", "network.width=16"],
    "digits": ["training.steps=12", "training.batch_size=16", "training.validation_size=16", "network.width=8"],
}
SMALL = Effort(points=60, digits=20, a_label=2, frames=3, guided_steps=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole demo of tiny training: its folder, its page, what was found, and what was reported."""
    pytest.importorskip("matplotlib")
    out, reports, found = tmp_path_factory.mktemp("demo"), [], []
    with pytest.MonkeyPatch.context() as patch:
        write = demo.write_page
        patch.setattr(demo, "write_page", lambda findings, folder: found.append(findings) or write(findings, folder))
        page = make_demo(out, overrides=TINY, effort=SMALL, report=lambda *line: reports.append(line))
    return out, page, found[0], reports


def words_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.read_text())))


def test_the_page_tells_every_part_of_the_story(made):
    _, page, _, _ = made
    headings = re.findall(r"<h2>(.*?)</h2>", page.read_text())
    assert [int(heading.split(".")[0]) for heading in headings] == list(range(1, 10))
    for word in (
        "Linear beside cosine",
        "Learning",
        "which way",
        "From noise",
        "How many steps",
        "guidance",
        "Ten of each",
    ):
        assert any(word in heading for heading in headings), word
    words = words_of(page)
    for word in (
        "Bayes floor",
        "energy distance",
        "sliced Wasserstein",
        "network calls",
        "diversity",
        "unnoise train digits",
    ):
        assert word in words, word


def test_the_page_needs_nothing_but_itself_and_every_picture_decodes(made):
    _, page, _, _ = made
    text = page.read_text()
    sources = re.findall(r'src="([^"]+)"', text)
    assert not re.search(r"https?:|<script|<link|href=", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    frames = []
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.split("base64,")[1], validate=True))) as picture:
            picture.load()
            frames.append(getattr(picture, "n_frames", 1))
    assert sorted(frames)[-2:] == [4, 4]
    assert len(frames) >= 15
    assert all(alt for alt in re.findall(r'alt="([^"]*)"', text))
    assert len(re.findall(r'alt="', text)) == len(sources)


def test_every_number_of_the_tables_was_measured(made):
    _, page, found, _ = made
    words = words_of(page)
    for name in ("spiral", "digits"):
        rows = found.steps[name]
        assert [row.steps for row in rows] == [0, 1, 5, 50]
        assert [row.calls for row in rows] == [0, 1, 5, 50]
        assert all(row.seconds > 0 for row in rows[1:])
        for row in rows:
            assert f"{row.energy:.4f}" in words
            assert f"{row.sliced:.4f}" in words
    assert [row.scale for row in found.guidance] == [0, 1, 3, 8]
    for row in found.guidance:
        assert (
            f"{row.adherence.value:.1%} {row.adherence.low:.1%} to {row.adherence.high:.1%} {row.diversity:.2f}"
            in words
        )
        assert row.adherence.trials == 20
    assert f"{found.digits.facts['validation_loss']:.4f}" in words
    assert f"{found.digits.facts['bayes_floor']:.4f}" in words


def test_without_guidance_one_noise_is_one_picture_whatever_is_asked_for(made):
    _, _, found, _ = made
    unguided = compare_guidance(found.digits, 0.0, 20, 2).samples
    bare = found.digits.model.sample(20, steps=2, guidance=1.0).tensor
    assert (unguided.int() - bare.int()).abs().max() <= 1


def test_the_same_command_again_trains_nothing_and_writes_the_page_anew(made):
    out, page, _, reports = made
    assert {what for what, _, _ in reports} == {
        "training spiral", "training digits", "sampling and measuring", "writing the page",
    }  # fmt: skip
    assert [line for line in reports if line[0] == "training spiral"][-1] == ("training spiral", 30, 30)
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.safetensors")}
    page.unlink()
    again = []
    assert make_demo(out, overrides=TINY, effort=SMALL, report=lambda *line: again.append(line)) == page
    assert again[0] == ("training spiral", 30, 30)
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.safetensors")} == before
    assert page.is_file()


def test_a_demo_that_is_stopped_saves_its_run_and_goes_on(tmp_path):
    pytest.importorskip("matplotlib")
    asked = iter([False] * 5)
    assert make_demo(tmp_path, overrides=TINY, effort=SMALL, stop=lambda: next(asked, True)) is None
    assert not (tmp_path / "index.html").exists()
    reports = []
    make_demo(tmp_path, overrides=TINY, effort=SMALL, report=lambda *line: reports.append(line), stop=lambda: True)
    assert 0 < reports[0][1] < 30


def test_without_matplotlib_it_says_so_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"the demo needs matplotlib.*pip install 'unnoise\[demo\]'"):
        make_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_data_drawn_anew_reaches_the_floor_of_the_formula():
    row = drawn_anew(DIGITS, 200, times=4)
    rows = comparable(DIGITS, DIGITS.x).flatten(1)
    assert row.energy == pytest.approx(mean_distance(rows, rows) / 200, rel=0.1)
    assert row.samples.shape == (200, 1, 8, 8)


def test_nearest_real_is_zero_for_copies_and_the_shift_for_shifted_ones():
    assert nearest_real(DIGITS.x[:50].clone(), DIGITS.x) == 0
    assert nearest_real(DIGITS.x[:50].double() + 2, DIGITS.x) == pytest.approx(2, rel=0.05)
    assert nearest_real(torch.tensor([[0.0], [3.0], [7.0]]), torch.tensor([[1.0]])) == 2
    assert nearest_real(DIGITS.x, DIGITS.x) > 10


def test_the_judge_is_right_on_nearly_all_real_digits():
    judged = judge_the_judge(DIGITS)
    assert judged.trials == round(len(DIGITS) * 0.2)
    assert judged.low > 0.94


def test_the_command_prints_the_page_and_its_progress(tmp_path, monkeypatch):
    from unnoise.cli.main import app

    def fake(out, *, report, stop):
        report("training spiral", 0, 2)
        report("training spiral", 2, 2)
        return out / "index.html"

    monkeypatch.setattr(demo, "make_demo", fake)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == str(tmp_path / "index.html")
    assert "training spiral: done" in done.output
    monkeypatch.setattr(demo, "make_demo", lambda out, *, report, stop: None)
    assert CliRunner().invoke(app, ["demo", "--out", str(tmp_path)]).exit_code == 128
