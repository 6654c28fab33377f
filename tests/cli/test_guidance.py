"""Guidance from the command line, as the help says, and mistaken."""

import pytest

from unnoise.samples import read_recipe

TINY = {
    "training__steps": 3, "training__checkpoint_every": 3, "training__sample_every": 0, "training__validation_size": 16,
    "training__validate_every": 3, "training__batch_size": 8, "training__warmup": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    import unnoise

    folder = tmp_path_factory.mktemp("guidance")
    for name, width in (("better", 16), ("weaker", 8)):
        unnoise.train("two-moons-labels", folder / name, progress=False, network__width=width, **TINY)
    return folder


@pytest.mark.parametrize(
    ("typed", "name", "scale"),
    [("2.5", "classifier_free", 2.5), ("apg:4", "apg", 4.0), ("cfg_pp", "cfg_pp", 0.6), ("apg", "apg", 1.0)],
)
def test_a_rule_is_typed_by_its_scale_its_name_or_both(unnoise, run, tmp_path, typed, name, scale):
    said = unnoise(
        "sample", run / "better", "-n", 2, "--steps", 2, "--label", 0, "--guidance", typed, "-o", tmp_path / "x.npz"
    )
    assert said.code == 0, said
    assert read_recipe(tmp_path / "x.npz")["guidance"]["name"] == name
    assert read_recipe(tmp_path / "x.npz")["guidance"]["scale"] == scale
    assert ("alone has scale" in said.err) == (typed in ("apg", "cfg_pp"))


def test_a_weaker_model_guides_and_the_file_is_made_again(unnoise, refused, run, tmp_path):
    file, weak = tmp_path / "x.npz", run / "weaker"
    args = ("sample", run / "better", "-n", 2, "--steps", 2, "--guidance", "autoguidance:2", f"guidance.weak={weak}")
    said = unnoise(*args, "-o", file)
    assert said.code == 0, said
    assert "does nothing" not in said.err
    again = unnoise("replay", file)
    assert again.code == 0, again
    assert (tmp_path / "x-replay.npz").read_bytes() == file.read_bytes()
    assert unnoise("replay", file, "--guide", weak, "-o", tmp_path / "y.npz").code == 0
    assert (tmp_path / "y.npz").read_bytes() == file.read_bytes()
    assert "what is asked for has" in refused("replay", file, "--guide", run / "better")


def test_a_classifier_is_learned_and_guides(unnoise, run, tmp_path):
    said = unnoise(
        "classifier", run / "better", "-o", tmp_path / "judge", "--steps", 5, "network.width=8", "batch_size=16"
    )
    assert said.code == 0, said
    assert "labels found, on" in said.out
    assert "at 0.1 of noise to 1 of signal" in said.out
    file, rule = tmp_path / "x.npz", f"guidance.classifier={tmp_path / 'judge'}"
    args = ("sample", run / "better", "-n", 2, "--steps", 2, "--label", 0, "--guidance", "classifier:2", rule)
    assert unnoise(*args, "-o", file).code == 0
    assert unnoise("replay", file).code == 0
    assert (tmp_path / "x-replay.npz").read_bytes() == file.read_bytes()


def test_what_is_mistyped_is_refused_in_one_line(refused, run, tmp_path):
    args = ("sample", run / "better", "-n", 1, "--steps", 1, "--label", 0, "-o", tmp_path / "x.npz", "--guidance")
    assert "did you mean 'apg'" in refused(*args, "apgg:2")
    assert "did you mean 'apg'" in refused(*args, "apgg")
    assert "expected a scale, a rule, or both" in refused(*args, "apg:much")
    assert "scale: must be at least 0" in refused(*args, "apg:-2")
    assert "weak: must be given" in refused(*args, "autoguidance:2")
    assert "guidance.weak: there is no model" in refused(*args, "autoguidance:2", f"guidance.weak={tmp_path / 'none'}")
    assert "expected network.OPTION=value" in refused("classifier", run / "better", "a.b.c=1", "-o", tmp_path / "judge")
    assert "steps: must be at least 1" in refused("classifier", run / "better", "--steps", 0, "-o", tmp_path / "judge")
    assert not (tmp_path / "judge").exists()
