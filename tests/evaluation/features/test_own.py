import json
import shutil

import pytest
import torch
from torch import Generator

from unnoise.data.base import Dataset, Spec
from unnoise.errors import DataError, ShapeError
from unnoise.evaluation.features.own import OwnFeatures
from unnoise.evaluation.features.own_network import OwnNetwork, strides
from unnoise.evaluation.features.own_training import vicreg
from unnoise.evaluation.features.own_views import light_view, mirrored, moved, softened, strong_view

QUICK = OwnFeatures(shown=600)


@pytest.fixture(scope="session")
def learned(digits, tmp_path_factory):
    """The network of the digits, and the cache that it was put into."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("learned")
        patch.setenv("UNNOISE_CACHE", str(cache))
        return OwnFeatures(shown=9_000).prepare(digits), cache


@pytest.fixture
def quick(random_data):
    """A data set that is learned in no time, and its extractor in this test's cache."""
    data = random_data("image", (1, 8, 8), 60, labelled=True)
    return data, QUICK.prepare(data)


def folder_in(cache):
    (folder,) = (cache / "features").glob("own-*")
    return folder


def test_labels_of_digits_that_it_has_not_seen_are_read_off_its_features(learned, digits):
    extractor, _ = learned
    assert extractor.about["accuracy"] >= 0.95
    assert extractor.about["held-out samples"] == 179
    features = extractor(digits.x)
    assert features.shape == (1797, extractor.dim)
    assert features.dtype == torch.float32
    labels = extractor.classify(features)
    assert labels.dtype == torch.int64
    assert float((labels == digits.labels).double().mean()) > 0.97


def test_features_have_mean_zero_and_mean_variance_one(learned, digits):
    features = learned[0](digits.x).double()
    assert float(features.mean(0).abs().max()) < 0.2
    assert abs(float(features.var(0).mean()) - 1) < 0.1


def test_a_sample_has_the_same_features_in_any_batch(learned, digits):
    extractor, _ = learned
    whole = extractor(digits.x[:100])
    torch.testing.assert_close(extractor(digits.x[37:38])[0], whole[37], rtol=0, atol=1e-6)
    torch.testing.assert_close(extractor(digits.x[30:99].flip(0)).flip(0), whole[30:99], rtol=0, atol=1e-6)
    assert extractor(digits.x[:0]).shape == (0, extractor.dim)


def test_distances_rise_with_blur_with_noise_and_with_each_class_that_is_missing(learned, digits, frechet):
    extractor, _ = learned
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(1))
    real, rest = digits.take(order[:900]), digits.take(order[900:])
    base = extractor(real.x)
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(rest.x.shape, generator=draw)

    def noisy(size):
        return (rest.x + size * noise).round().clamp(0, 255).to(torch.uint8)

    def blurred(share):
        soft = torch.nn.functional.avg_pool2d(rest.x.float(), 3, 1, 1)
        return (rest.x + share * (soft - rest.x)).round().clamp(0, 255).to(torch.uint8)

    def without(count):
        return rest.x[rest.labels >= count]

    for ladder in (map(noisy, (0, 16, 32, 64)), map(blurred, (0, 0.3, 0.6, 1)), map(without, (0, 1, 3, 5))):
        rungs = [frechet(base, extractor(x)) for x in ladder]
        assert rungs == sorted(rungs)
        assert rungs[-1] > 3 * rungs[0]


def test_the_same_data_and_seed_give_the_same_bytes(quick, cache_dir, tmp_path, monkeypatch):
    data, extractor = quick
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "other"))
    torch.manual_seed(99)
    torch.set_num_threads(2)
    again = QUICK.prepare(data)
    torch.set_num_threads(1)
    assert again.hash == extractor.hash
    weights = [(folder_in(cache) / "weights.safetensors").read_bytes() for cache in (cache_dir, tmp_path / "other")]
    assert weights[0] == weights[1]


def test_it_is_learned_once(quick):
    data, extractor = quick
    told = []
    again = QUICK.prepare(data, lambda *progress: told.append(progress))
    assert not told
    assert again.hash == extractor.hash
    assert again.about == extractor.about
    assert torch.equal(again(data.x), extractor(data.x))


def test_another_seed_other_settings_and_other_data_have_other_hashes(quick, random_data):
    data, extractor = quick
    other = random_data("image", (1, 8, 8), 60, labelled=True, seed=5)
    made = [OwnFeatures(shown=600, seed=1), OwnFeatures(shown=700), OwnFeatures(shown=600, size=6)]
    hashes = [extractor.hash, *(source.prepare(data).hash for source in made), QUICK.prepare(other).hash]
    assert len(set(hashes)) == 5


def test_progress_is_told_to_the_end(random_data):
    told = []
    QUICK.prepare(random_data("points", (2,)), lambda *progress: told.append(progress))
    assert told[-1] == ("learning features of the data", 600, 600)
    assert all(before[1] < after[1] for before, after in zip(told, told[1:], strict=False))


def test_a_break_leaves_nothing_behind(random_data, cache_dir):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        QUICK.prepare(random_data("points", (2,)), stop)
    assert not list((cache_dir / "features").glob("*"))


@pytest.mark.parametrize("damage", ["cut", "changed", "no weights", "no json", "no folder"])
def test_a_damaged_network_is_learned_again_with_a_note(quick, cache_dir, damage):
    data, extractor = quick
    folder = folder_in(cache_dir)
    weights, about = folder / "weights.safetensors", folder / "about.json"
    whole = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(whole[:1000])
    elif damage == "changed":
        weights.write_bytes(whole[:-4] + b"\x00\x00\x00\x00")
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no json":
        about.write_text("{")
    else:
        shutil.rmtree(folder)
    again = QUICK.prepare(data)
    assert again.hash == extractor.hash
    notes = again.about.get("notes", [])
    assert not notes if damage == "no folder" else "damaged and were learned again" in notes[0]
    assert "notes" not in QUICK.prepare(data).about  # what is kept is whole again
    assert weights.read_bytes() == whole
    assert [each.name for each in (cache_dir / "features").iterdir()] == [folder.name]


def test_preprocessing_that_was_changed_is_damage(quick, cache_dir):
    data, _ = quick
    about = folder_in(cache_dir) / "about.json"
    facts = json.loads(about.read_text())
    facts["steps"]["resize"] = "bicubic to 9 x 9"
    about.write_text(json.dumps(facts))
    assert "not those that were kept" in QUICK.prepare(data).about["notes"][0]


@pytest.mark.parametrize(
    ("field", "value", "said"), [("data", "0" * 64, "another data set"), ("settings", {"seed": 7}, "other settings")]
)
def test_a_network_of_another_owner_is_refused_by_name(quick, cache_dir, field, value, said):
    data, _ = quick
    about = folder_in(cache_dir) / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), field: value}))
    with pytest.raises(DataError, match=f"{said}.*remove the folder"):
        QUICK.prepare(data)


def test_without_a_disk_it_is_learned_for_this_time(random_data, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "file"))
    assert "could not be kept" in QUICK.prepare(random_data("points", (2,))).about["notes"][0]


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("points", (2,)),
        ("points", (1,)),
        ("image", (1, 5, 7)),
        ("image", (3, 40, 40)),
        ("image", (4, 70, 90)),
        ("array", (12,)),
        ("array", (1, 3000)),
        ("array", (2, 24, 60)),
        ("array", (1, 6, 20, 20)),
        ("array", (2, 2, 2, 2, 2)),
    ],
)
@pytest.mark.parametrize("labelled", [False, True])
def test_it_looks_at_samples_of_any_kind_and_shape(random_data, kind, shape, labelled):
    data = random_data(kind, shape, 40, labelled)
    source = OwnFeatures(shown=80)
    assert source.suits(data.spec)
    extractor = source.prepare(data)
    features = extractor(data.x)
    assert 128 <= extractor.dim <= 256
    assert features.shape == (40, extractor.dim)
    assert bool(torch.isfinite(features).all())
    assert (extractor.classify(features) is not None) == labelled
    assert extractor.about["learned by"] == ("labels" if labelled else "two views")
    assert (extractor.resize == "none") == (shape not in ((1, 5, 7), (4, 70, 90)))


def test_the_unit_of_the_data_does_not_matter(random_data):
    data = random_data("array", (1, 20), 60)
    small = Dataset(data.x * 1e-9, data.spec)
    rows = [QUICK.prepare(each)(each.x) for each in (data, small)]
    torch.testing.assert_close(rows[1], rows[0], rtol=0, atol=0.2)  # training magnifies the rounding


def test_labels_are_left_alone_when_asked(random_data):
    data = random_data("points", (2,), labelled=True)
    extractor = OwnFeatures(shown=80, labels=False).prepare(data)
    assert extractor.classify(extractor(data.x)) is None


def test_the_first_layer_leaves_few_places():
    assert strides((28, 28)) == (2, 2)
    assert strides((64, 8)) == (4, 1)
    assert strides((16_000,)) == (64,)
    assert OwnNetwork((1, 16_000)).eval()(torch.zeros(1, 1, 16_000)).shape == (1, 256)


def test_vicreg_of_two_views_that_are_alike_and_spread_counts_only_what_is_said_twice():
    z = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]]) * 3**0.5
    # Variances 4, so no spread is missing; the one covariance is 4, counted for both orders and both views over D = 2.
    assert float(vicreg(z, z)) == pytest.approx(2 * 2 * 4**2 / 2)
    # Without spread, each of both views misses 1 - sqrt(1e-4).
    flat = torch.zeros(4, 2)
    assert float(vicreg(flat, flat + 1)) == pytest.approx(25 * 1 + 25 * 0.99)


def test_views_keep_the_shape_of_a_sample_and_say_what_was_done_to_it():
    for shape, picture in (((6, 1, 8, 8), True), ((6, 3, 20, 12), True), ((6, 2), False), ((6, 1, 4, 4), False)):
        x = torch.rand(shape)
        for view in (light_view(x, Generator().manual_seed(0), picture), strong_view(x, Generator(), picture)[0]):
            assert view.shape == x.shape
            assert bool(torch.isfinite(view).all())
        _, done = strong_view(x, Generator().manual_seed(0), picture)
        assert done.shape == (6, 2)
        assert float(done.abs().max()) <= 1


def test_a_picture_is_moved_by_whole_pixels_and_mirrored_or_not():
    x = torch.arange(64.0).reshape(1, 1, 8, 8).expand(20, 3, 8, 8)
    whole = torch.nn.functional.pad(x[:1], (1, 1, 1, 1), mode="reflect")
    places = {tuple(whole[0, 0, i : i + 8, j : j + 8].flatten().tolist()) for i in range(3) for j in range(3)}
    found = {tuple(row.flatten().tolist()) for row in moved(x, Generator().manual_seed(0))[:, 0]}
    assert found <= places
    assert len(found) > 4
    turned = mirrored(x, Generator().manual_seed(0))[:, 0]
    flipped = (turned == x[:, 0].flip(2)).all(2).all(1)
    assert bool((flipped | (turned == x[:, 0]).all(2).all(1)).all())
    assert 0 < int(flipped.sum()) < 20


def test_a_softened_picture_keeps_its_mean_inside_and_loses_what_is_fine():
    flat, board = torch.full((1, 1, 8, 8), 3.0), (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).float()
    torch.testing.assert_close(softened(flat, torch.ones(1, 1, 1, 1)), flat)
    soft = softened(board[None, None], torch.tensor([0.5]).reshape(1, 1, 1, 1))[0, 0, 2:-2, 2:-2]
    torch.testing.assert_close(soft, 0.5 * board[2:-2, 2:-2] + 0.25)  # a checkerboard becomes grey


def test_without_labels_distances_rise_with_blur_and_noise_too(digits, frechet):
    extractor = OwnFeatures(shown=4000, labels=False).prepare(digits)
    real, rest = digits.x[::2], digits.x[1::2]
    base, noise = extractor(real), torch.randn(rest.shape, generator=Generator().manual_seed(0))
    for changed in (
        lambda size: softened(rest.float(), torch.full((1, 1, 1, 1), size)),
        lambda size: rest + 60 * size * noise,
    ):
        rungs = [frechet(base, extractor(changed(s).round().clamp(0, 255).to(torch.uint8))) for s in (0, 0.3, 0.6, 1)]
        assert rungs == sorted(rungs)
        assert rungs[-1] > 3 * rungs[0]


def test_data_that_cannot_be_learned_from_is_refused(random_data):
    with pytest.raises(DataError, match="from 3 samples"):
        QUICK.prepare(random_data("points", (2,), 3))
    with pytest.raises(DataError, match="all 5 samples are the same"):
        QUICK.prepare(Dataset(torch.zeros(5, 2), Spec("points", (2,))))


def test_samples_of_another_shape_are_refused(quick):
    with pytest.raises(ShapeError, match=r"expected samples of shape \(1, 8, 8\)"):
        quick[1](torch.zeros(3, 1, 9, 9, dtype=torch.uint8))
