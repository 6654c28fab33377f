"""`unnoise diagnose`."""

OPTIONS = ("training.steps=60", "training.sample_every=0", "training.validation_size=16", "network.width=16")


def test_it_prints_the_parts_and_what_to_mend_first_and_leaves_a_page(unnoise, tmp_path):
    run = tmp_path / "run"
    assert unnoise("train", "two-moons-labels", "--out", run, *OPTIONS).code == 0
    said = unnoise("diagnose", run, "-n", 100, "--steps", 3, "--fine", 12, "--guidance", 2)
    assert said.code == 0
    lines = said.out.splitlines()
    assert [line.split()[:2] for line in lines[2:5]] == [["+", "denoiser:"], ["+", "guidance:"], ["+", "steps:"]]
    assert lines[-1] == f"page  {run / 'diagnosis' / 'index.html'}"
    assert (run / "diagnosis" / "index.html").is_file()
    beside = unnoise("diagnose", run, "-n", 100, "--steps", 3, "--fine", 12, "--guidance", 2, "--reference", run)
    assert beside.code == 0
    assert f"At no noise level does it err more than {run}." in (run / "diagnosis" / "index.html").read_text()
    nowhere = unnoise("diagnose", run, "--reference", tmp_path / "nowhere")
    assert nowhere.code != 0
    assert f"there is no model at {tmp_path / 'nowhere'}" in nowhere.err


def test_a_folder_of_samples_has_no_parts(unnoise, tmp_path):
    (tmp_path / "points.csv").write_text("x,y\n" + "1,2\n3,4\n" * 10)
    said = unnoise("diagnose", tmp_path / "points.csv", "--data", "moons")
    assert said.code == 2
    assert "is no model" in said.err
