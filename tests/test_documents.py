"""The documents tell the truth: their code runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)


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


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    import unnoise

    monkeypatch.chdir(tmp_path)
    train = unnoise.train
    quick = {"training__steps": 2, "training__sample_every": 0, "training__validation_size": 16}
    monkeypatch.setattr(unnoise, "train", lambda *args, **options: train(*args, **options, **quick), raising=False)
    for code in FENCE.findall((ROOT / "README.md").read_text()):
        exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "threes.png").is_file()
