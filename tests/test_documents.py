"""The documents tell the truth: their code runs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from unnoise.model import Model

from .conftest import make_model

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)
FENCED = re.compile(r"```.*?```", re.DOTALL)


def test_the_code_of_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(FENCE.findall((ROOT / "docs" / "guide.md").read_text()))
    names = {}
    exec(compile(code, "docs/guide.md", "exec"), names)
    assert float(names["schedule"].alpha(names["t"]) ** 2) == pytest.approx(0.52142, abs=1e-5)
    assert float(names["pushed"].mean()) > 1.2
    assert float(names["pushed"].std()) < 0.4
    assert names["model"].trained["validation_loss"] > names["model"].trained["bayes_floor"]


def test_the_code_of_the_score_view_runs_and_says_what_it_prints():
    code = "\n".join(FENCE.findall((ROOT / "docs" / "score-view.md").read_text()))
    names = {}
    exec(compile(code, "docs/score-view.md", "exec"), names)
    at = names["torch"].tensor(0.1, dtype=names["torch"].float64)
    near, far = names["score"](names["model"], names["torch"].tensor([[0.2], [3.0]]), at)
    assert float(near) > 0
    assert float(far) < -5
    assert float(names["forward"].drift_rate(at)) == pytest.approx(-(0.1 + 1.99) / 2)
    for ends in (names["x"], names["corrected"], names["annealed"]):
        assert float(ends.abs().mean()) == pytest.approx(1, abs=0.05)
        assert float(ends.abs().std()) == pytest.approx(0.3, abs=0.05)
        assert float((ends > 0).double().mean()) == pytest.approx(0.5, abs=0.06)


def run(page):
    """The names that the page's code leaves behind."""
    code, names = "\n".join(FENCE.findall((ROOT / "docs" / page).read_text())), {}
    exec(compile(code, f"docs/{page}", "exec"), names)
    return names


def test_the_code_of_choosing_a_sampler_runs_and_says_what_it_prints(capsys):
    names = run("choosing-a-sampler.md")
    printed = capsys.readouterr().out.splitlines()
    (ddim, heun, dpmpp, arc), noises = [eval(line) for line in printed[:4]], [line.split() for line in printed[4:6]]
    assert [calls for calls, _ in (ddim, heun, dpmpp, arc)] == [15] * 4
    assert arc[1] < 0.5 * min(ddim[1], heun[1], dpmpp[1])
    assert [name for name, _ in noises] == ["BrownianNoise", "NoiseSource"]
    assert float(noises[0][1]) < 0.4 * float(noises[1][1])
    assert float(names["noisy"].std()) == pytest.approx(1, abs=0.2)
    assert float((names["again"] - names["data"]).abs().max()) < 0.05


def test_the_code_of_large_runs_runs_and_says_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("large-runs.md")
    assert capsys.readouterr().out.split() == ["60", "60", "40"]


def test_the_table_of_choosing_a_sampler_is_that_of_the_registry():
    from unnoise.samplers.base import samplers
    from unnoise.samplers.grids import GRIDS, uniform

    text = (ROOT / "docs" / "choosing-a-sampler.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d|–) \| (\d+|as needed) \| (yes|no) \|", text, re.MULTILINE)
    expected = []
    for name in samplers:
        sampler = samplers.build(name)
        calls, order = sampler.network_calls(uniform(10)), sampler.order
        expected.append((name, str(order or "–"), str(calls or "as needed"), "yes" if sampler.stochastic else "no"))
    assert rows == expected
    assert f"There are {len(expected)}, from" in (ROOT / "README.md").read_text()
    grids = text.partition("| grid |")[2].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", grids, re.MULTILINE))) == list(GRIDS)


def test_the_code_of_which_loss_runs_and_says_what_it_prints():
    names = run("objectives.md")
    for losses in names["losses"].values():
        assert losses.tolist() == pytest.approx(names["losses"]["x0"].tolist(), rel=1e-9)
    where, importance = names["where"], names["importance"]
    assert float(where.mean()) == pytest.approx(2 / 3, abs=0.05)
    assert float((importance * where).mean()) == pytest.approx(1 / 2, abs=0.05)


def test_which_loss_names_every_weighting_and_density_of_times():
    from unnoise.objectives.times import time_densities
    from unnoise.objectives.weightings import weightings

    table = (ROOT / "docs" / "objectives.md").read_text().partition("## What there is")[2].partition("## A weight")[0]
    named = set(re.findall(r"[a-z_0-9]+", table))
    assert not (set(weightings) | set(time_densities) - {"uniform"}) - named


def test_the_code_of_averages_runs_and_says_what_it_prints(capsys):
    run("averages.md")
    exponential, power, halflife, *errors = capsys.readouterr().out.splitlines()
    assert exponential == "exponential-0.999 [0.1, 0.91818, 0.999]"
    assert power.startswith("power-0.1 [0.0, ")
    assert float(halflife.rpartition(" ")[2].rstrip("]")) == pytest.approx(0.5 ** (128 / 50_000), abs=1e-5)
    table = [[float(each.strip("%'")) for each in line.partition("[")[2].rstrip("]").split(", ")] for line in errors]
    for few, more in zip(table, table[1:], strict=False):
        assert all(a > 3 * b for a, b in zip(few, more, strict=True))
    assert max(table[1][1:3]) < 1


def test_averages_names_every_average_law_and_optimizer():
    from unnoise.training.averages import averages
    from unnoise.training.optimizers.base import optimizers
    from unnoise.training.rates import learning_rates

    text = (ROOT / "docs" / "averages.md").read_text()
    laws = text.partition("| law |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", laws, re.MULTILINE)))) == set(learning_rates)
    moves = text.partition("| name | a weight moves by |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", moves, re.MULTILINE)) == set(optimizers)
    assert all(f"`{name}-" in text for name in averages)


def test_the_code_of_arc_runs_and_its_error_falls_at_third_order():
    names = run("arc.md")
    error, sampler = names["error"], names["ArcSampler"]()
    assert error(100, sampler) / error(200, sampler) >= 8
    assert error(50, sampler) / error(100, sampler) >= 7
    assert float((names["x"] - names["exact"]).square().mean().sqrt()) < 0.05


def test_the_code_of_the_doctor_runs_and_says_what_it_prints(capsys):
    names = run("doctor.md")
    assert capsys.readouterr().out.splitlines() == ["error signal-left -> process.beta_end=0.999", "True"]
    finding = names["found"].findings[0][1]
    text = (ROOT / "docs" / "doctor.md").read_text()
    assert f"error    signal-left: {finding.seen}" in text
    assert finding.cause in text


def test_the_tables_of_the_doctor_are_those_of_the_registry():
    from unnoise.recipes.diagnosis.base import checks

    text = (ROOT / "docs" / "doctor.md").read_text()
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", text, re.M)) == sorted(checks)


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_links_and_pictures_of_the_documents_are_there(page):
    text = FENCED.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in target or (page.parent / target).exists(), target


def test_pictures_of_the_documents_are_small():
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert picture.stat().st_size < 150_000, picture.name


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    import unnoise

    monkeypatch.chdir(tmp_path)
    train = unnoise.train
    quick = {"training__steps": 2, "training__sample_every": 0, "training__validation_size": 16}
    monkeypatch.setattr(unnoise, "train", lambda *args, **options: train(*args, **options, **quick), raising=False)
    for code in FENCE.findall((ROOT / "README.md").read_text()):
        exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "threes.png").is_file()


def test_the_code_of_judging_runs_and_says_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run("judging.md")
    said, fid, kid, recall, falling, *parts = capsys.readouterr().out.splitlines()
    assert names["judged"].page.is_file()
    assert names["energy"].low <= names["energy"].value <= names["energy"].high
    assert "no sign of copying" in said
    low, high = (float(end) for end in kid.partition("(")[2].partition(")")[0].split(" to "))
    assert low <= 0 <= high  # two halves of the same
    assert float(fid.partition("(")[2].partition(" ")[0]) > 0  # and FID does not know it
    assert recall.startswith("recall")
    few, more, most = eval(falling)
    assert few > more > most
    assert [line.split()[:2] for line in parts[2:5]] == [["+", "denoiser:"], ["+", "guidance:"], ["+", "steps:"]]
    assert parts[-1].startswith("Mend the guidance first")


def test_the_code_of_the_page_on_data_runs_and_says_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    names = run("data.md")
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("shards, 200 samples of (3, 16, 16) ('dark', 'light')")
    assert said[1].startswith("torch.Size([3, 3, 16, 16]) torch.uint8")
    assert said[2:] == ["True", "True", "180 20", "True True"]
    assert names["data"].lanes == 4


def test_the_code_of_fine_tuning_runs_and_says_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run("fine-tuning.md")
    said, inner, *strengths = capsys.readouterr().out.splitlines()
    assert said == "('upper', 'lower', 'outer', 'inner')"
    assert "tensor(0.5" in inner or "tensor(0.4" in inner
    radii = [float(line.partition("tensor(")[2].rstrip(")")) for line in strengths]
    assert radii[2] < radii[0] - 0.3
    assert radii[2] == pytest.approx(0.5, abs=0.08)
    assert names["base"].spec.class_names == ("upper", "lower")


def test_the_code_of_latents_runs_and_says_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run("latents.md")
    told, shapes = capsys.readouterr().out.splitlines()
    assert set(eval(told)) == {"psnr", "ssim", *(f"psnr with noise of {noise}" for noise in (0.1, 0.2, 0.4))}
    assert eval(told)["psnr"] > 15
    assert shapes == "(4, 4, 4) torch.Size([2, 1, 8, 8])"
    assert names["report"].facts["held_out"]


def test_the_code_of_guidance_runs_and_says_what_it_prints(capsys):
    run("guidance.md")
    *plain, auto, judged = capsys.readouterr().out.splitlines()
    assert plain == [
        "1: mean 1.0, spread 1.0 of the class",
        "2: mean 1.3, spread 0.7 of the class",
        "7.5: mean 2.1, spread 0.5 of the class",
    ]
    assert auto == "mean 1.00, spread 0.7"
    assert float(judged.removeprefix("mean ")) == pytest.approx(1.3, abs=0.25)


def test_which_guidance_names_every_rule():
    from unnoise.guidance.base import guidances

    text = (ROOT / "docs" / "guidance.md").read_text()
    rows = re.findall(
        r"^\| `(\w+)` \|", text.partition("## Which rule when")[2].partition("\n\nA rule")[0], re.MULTILINE
    )
    assert sorted(rows) == list(guidances)


def test_one_table_measures_every_guidance_rule():
    from unnoise.guidance.base import guidances

    text = (ROOT / "docs" / "guidance.md").read_text()
    table = text.partition("| rule | g = 1 |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)`[^|]*((?:\| [\d.]+, [\d.]+ ){6})\|$", table, re.MULTILINE))
    assert sorted(rows) == list(guidances)
    assert "`rescale" in table
    assert "`interval" in table


def test_the_code_of_boxes_and_maps_runs_and_says_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("boxes-and-maps.md")
    assert capsys.readouterr().out.split() == ("torch.Size([2, 3, 32, 32]) ['circle 0.1 0.1 0.5 0.5', None]".split())


def test_the_code_of_editing_runs_and_prints_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = make_model("image")
    blueprint = replace(model.blueprint, spec=replace(model.spec, class_names=tuple("0123456789")))
    Model(blueprint, blueprint.build(0), model.sampling).save("runs/digits")
    names = run("editing.md")
    first, *printed = capsys.readouterr().out.splitlines()
    assert first == "0.35 4"
    page = (ROOT / "docs" / "editing.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert [tuple(line.split()) for line in printed] == rows
    assert (tmp_path / "edited.png").is_file()
    assert names["model"].sample(1, image=names["five"].tensor, strength=0).tensor.equal(names["five"].tensor)


def test_the_code_of_training_runs_and_parts_of_a_batch_are_the_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run("training.md")
    assert names["furthest"] < 2e-6
    assert names["whole"].finished
    assert names["parts"].finished


def test_the_code_of_shapes_runs_and_says_what_it_prints(capsys):
    names = run("shapes.md")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("(500, 3, 64, 64) ")
    assert said[0].endswith(names["picture"].caption)
    assert "[True, False, False, False] [True, False, True, True]" in said
    assert float(said[-3]) >= 0.99
    assert all(line.split()[1].startswith("+") and "take less guidance" in line for line in said[-2:])


def test_shapes_names_everything_that_is_held_out():
    from unnoise.data.scenes.scene import COLOURS, HELD_OUT_PAIRS, SHAPES

    text = (ROOT / "docs" / "shapes.md").read_text()
    assert all(f"{colour} {shape}" in text for colour, shape in HELD_OUT_PAIRS)
    assert ", ".join(COLOURS) in text
    assert ", ".join(SHAPES) in text
