"""Work by Ray's workers, in one small cluster: the same bytes and numbers as without it, also where a worker is killed."""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from unnoise.errors import BadOption, MissingExtra, SamplingDiverged
from unnoise.model import Model
from unnoise.recipes.bulk import sample_into
from unnoise.recipes.judging.run import evaluate
from unnoise.recipes.places.base import Job
from unnoise.recipes.places.on_ray import RayPlace, cluster, import_ray

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves the logs of its processes open
]


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    """Ray with a cluster of this machine's, as a command makes it; what the tests run in it finds it there."""
    folders, make = [], tempfile.mkdtemp
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # where Ray keeps the token of its clusters
        patch.setenv("RAY_AUTH_MODE", "")
        patch.delenv("RAY_AUTH_MODE")  # which Ray sets
        found = import_ray()
        patch.setattr(tempfile, "mkdtemp", lambda *args, **kw: folders.append(make(*args, **kw)) or folders[-1])
        with cluster(found, "", 2**20):
            found.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
            assert Path(folders[0]).is_dir()
            yield found
    assert not found.is_initialized()
    assert not Path(folders[0]).exists()


class Trouble(Job):
    """Kills its process in the part that begins at 4, once; raises in the part that begins at 100."""

    def __init__(self, mark):
        self.mark = mark

    def on(self, device):
        return self

    def __call__(self, part, progress=None):
        if part.start == 4 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if part.start == 100:
            raise SamplingDiverged("no number")
        return [os.getpid(), sum(part)]


def test_samples_are_the_same_files_as_without_ray(ray, digits, tmp_path):
    model, label = Model.load(digits), [str(k % 10) for k in range(20)]
    how = {"label": label, "sampler": "ancestral", "steps": 3, "guidance": 2.0, "seed": 7, "first": 3, "batch_size": 3}
    for name, place in (("here", "here"), ("ray", {"name": "ray", "workers": 2, "device": "cpu"})):
        assert sample_into(tmp_path / name, model, 20, place=place, **how).made == 20
    here, there = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("here", "ray"))
    assert there == here
    for k in (4, 9):
        (tmp_path / "ray" / f"{k:06d}.png").unlink()
    again = sample_into(tmp_path / "ray", model, 20, **how)  # and without Ray it goes on
    assert (again.made, again.found) == (6, 14)
    assert {f.name: f.read_bytes() for f in (tmp_path / "ray").iterdir()} == here


def test_an_evaluation_gives_the_same_numbers_to_the_last_digit(ray, moons, tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.recipes.judging.evaluation.block_size", lambda shape: 16)
    how = {"n": 70, "metrics": ("energy", "mmd"), "features": "pixels", "memorisation": False}
    for name, place in (("here", "here"), ("ray", {"name": "ray", "workers": 1, "device": "cpu"})):
        evaluate(moons, out=tmp_path / name, place=place, **how)
    here, there = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("here", "ray"))
    assert there == here
    for file in (tmp_path / "here").rglob("*.npy"):
        assert (tmp_path / "ray" / file.relative_to(tmp_path / "here")).read_bytes() == file.read_bytes()


def test_the_part_of_a_killed_worker_is_made_again_and_an_error_of_the_job_arrives_as_it_is(ray, tmp_path):
    kept, parts = {}, [range(low, low + 4) for low in range(0, 12, 4)]
    place = RayPlace(workers=1, device="cpu")
    assert place.run(Trouble(tmp_path / "mark"), parts, kept.__setitem__)
    assert {part: found[1] for part, found in kept.items()} == {part: sum(part) for part in parts}
    assert kept[parts[0]][0] != kept[parts[1]][0] == kept[parts[2]][0]  # another process took its place
    with pytest.raises(SamplingDiverged, match="no number"):
        place.run(Trouble(tmp_path / "mark"), [range(100, 104)], kept.__setitem__)


def test_gpus_that_are_not_there_are_refused(ray, tmp_path):
    if not ray.cluster_resources().get("GPU"):
        with pytest.raises(BadOption, match="no GPU"):
            RayPlace(device="cuda").run(Trouble(tmp_path), [range(4)], dict().__setitem__)


def test_samples_of_a_folder_cannot_be_made_elsewhere(pictures, real_digits, tmp_path):
    with pytest.raises(BadOption, match="holds samples and no model"):
        evaluate(
            pictures("made", real_digits.x[:40]), data="digits", features="pixels", place="ray", out=tmp_path / "o"
        )


def test_torchrun_and_ray_do_not_share_the_samples_out_twice(moons, tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.recipes.judging.run._together", _two)
    with pytest.raises(BadOption, match="torchrun"):
        evaluate(moons, n=20, place="ray", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _two():
    from contextlib import nullcontext

    return nullcontext((0, 2, lambda: None))


def test_without_ray_it_is_said_what_to_install(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"--on ray needs ray, .*pip install 'unnoise\[scale\]'"):
        sample_into(tmp_path / "out", Model.load(digits), 4, place="ray")
