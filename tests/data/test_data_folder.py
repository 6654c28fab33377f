"""A folder of pictures: what is read, what is skipped, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.folder import FolderDataset
from unnoise.errors import BadOption, DataError

BLACK, WHITE = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)


def colours(rng, count, side=8):
    return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def fill(folder, pixels, save, name="{}.png"):
    for i, each in enumerate(pixels):
        save(folder / name.format(i), each)


def load(folder, **options):
    return FolderDataset(str(folder), **options).load()


def test_pictures_of_one_size_come_back_as_they_are_in_the_order_of_their_names(tmp_path, rng, save):
    pixels = colours(rng, 12)
    fill(tmp_path, pixels, save, "{:02}.png")
    data = load(tmp_path)
    assert data.spec.kind == "image"
    assert data.spec.shape == (3, 8, 8)
    np.testing.assert_array_equal(data.x.numpy(), pixels.transpose(0, 3, 1, 2))
    assert data.labels is None
    assert data.texts is None
    data.check()


def test_folders_are_labels_and_numbers_are_sorted_as_numbers(tmp_path, rng, save):
    for i, name in enumerate(["10", "2", "1"]):
        fill(tmp_path / name, colours(rng, 2), save, f"{i}_{{}}.png")
    data = load(tmp_path)
    assert data.spec.class_names == ("1", "2", "10")
    assert data.labels.tolist() == [0, 0, 2, 2, 1, 1]


def test_one_folder_that_holds_all_is_a_label_only_on_request(tmp_path, rng, save):
    fill(tmp_path / "images", colours(rng, 2), save)
    assert load(tmp_path).labels is None
    assert load(tmp_path, labels=True).spec.class_names == ("images",)


def test_labels_can_be_switched_off(tmp_path, rng, save):
    fill(tmp_path / "a", colours(rng, 2), save)
    fill(tmp_path, colours(rng, 1), save, "b{}.png")
    assert load(tmp_path, labels=False).labels is None


def test_pictures_outside_of_the_label_folders_are_refused(tmp_path, rng, save):
    fill(tmp_path / "cats", colours(rng, 17), save)
    fill(tmp_path, colours(rng, 3), save, "a{}.png")
    expected = (
        r"^labels missing for 3 of 20 images, e.g. a0.png: move them into a label folder or set data.labels=false$"
    )
    with pytest.raises(DataError, match=expected):
        load(tmp_path)


def test_labels_that_were_asked_for_must_be_there(tmp_path, rng, save):
    fill(tmp_path, colours(rng, 2), save)
    with pytest.raises(DataError, match="labels missing for 2 of 2 images"):
        load(tmp_path, labels=True)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere: check data.path"):
        load(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path, save):
    with pytest.raises(DataError, match="is a file"):
        load(save(tmp_path / "a.png", BLACK))


def test_a_folder_without_pictures_is_refused_with_what_it_holds(tmp_path):
    for name in ("a.txt", "b.TXT", "c.csv", "README"):
        (tmp_path / name).touch()
    with pytest.raises(
        DataError, match=r"no images in .*: it holds \.txt \(2\), files without an ending \(1\), \.csv \(1\)"
    ):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it is empty"):
        load(tmp_path / "empty")


def test_broken_pictures_among_good_ones_are_skipped_and_named(tmp_path, rng, save):
    pixels = colours(rng, 4)
    fill(tmp_path / "day", pixels[:2], save, "{}.png")
    fill(tmp_path / "holiday", pixels[2:], save, "b{}.png")
    (tmp_path / "holiday" / "a.jpg").write_bytes(b"\xff\xd8 no picture at all")
    whole = save(tmp_path / "day" / "cut.png", colours(rng, 1, 64)[0]).read_bytes()
    (tmp_path / "day" / "cut.png").write_bytes(whole[: len(whole) // 2])
    data = load(tmp_path, size=8)
    assert len(data.skipped) == 2
    assert data.skipped[0].startswith("day/cut.png: ")
    assert data.skipped[1] == "holiday/a.jpg: cannot identify image file"
    np.testing.assert_array_equal(data.x.numpy(), pixels.transpose(0, 3, 1, 2))
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert load(tmp_path, size=8).skipped == data.skipped


def test_a_folder_of_broken_pictures_is_refused(tmp_path, cache_dir):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of the 2 images can be read, e.g. a.jpg: cannot identify image file"):
        load(tmp_path)
    assert not list(cache_dir.iterdir())


def test_pictures_of_too_many_pixels_are_skipped(tmp_path, rng, save, monkeypatch):
    save(tmp_path / "a.png", WHITE)
    save(tmp_path / "b.png", colours(rng, 1, 12)[0])
    save(tmp_path / "c.png", colours(rng, 1, 64)[0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = load(tmp_path)
    assert len(data) == 1
    assert data.skipped == tuple(f"{name}: too many pixels (at most 100 are read)" for name in ("b.png", "c.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_says(tmp_path, rng, save, orientation):
    upright = colours(rng, 1)[0]
    # how the camera stores an upright picture under each orientation
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(load(tmp_path).x[0].numpy(), upright.transpose(2, 0, 1))


def test_transparent_pictures_are_laid_on_white(tmp_path, save):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255
    pixels[..., 0] = 200
    save(tmp_path / "a.png", pixels)
    data = load(tmp_path)
    assert data.x[0, :, 0, 0].tolist() == [200, 0, 0]
    assert data.x[0, :, 7, 0].tolist() == [255, 255, 255]
    kept = load(tmp_path, channels=4)
    np.testing.assert_array_equal(kept.x[0].numpy(), pixels.transpose(2, 0, 1))


def test_a_transparent_colour_of_a_palette_becomes_white(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    data = load(tmp_path)
    assert data.x[0, :, 0, 0].tolist() == [0, 255, 0]
    assert data.x[0, :, 1, 1].tolist() == [255, 255, 255]


def test_one_channel_is_inferred_only_if_every_pixel_is_grey(tmp_path, rng, save):
    grey = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    fill(tmp_path, grey[:39], save, "{:02}.png")
    save(tmp_path / "39.png", np.repeat(grey[39][..., None], 3, axis=2))
    one = load(tmp_path)
    np.testing.assert_array_equal(one.x.numpy(), grey[:, None])
    last = colours(rng, 1)[0]
    save(tmp_path / "40.png", last)
    three = load(tmp_path)
    np.testing.assert_array_equal(three.x[:40].numpy(), np.repeat(grey[:, None], 3, axis=1))
    np.testing.assert_array_equal(three.x[40].numpy(), last.transpose(2, 0, 1))
    assert load(tmp_path, channels=1).spec.shape == (1, 8, 8)


def test_sixteen_bits_are_scaled_to_eight(tmp_path, save):
    save(tmp_path / "a.png", np.array([[0, 257], [65535, 32768]], np.uint16))
    assert load(tmp_path).x.flatten().tolist() == [0, 1, 255, 128]


def test_pictures_are_resized_by_their_smaller_side_and_cropped_to_the_middle(tmp_path, save):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    save(tmp_path / "wide.png", wide)
    save(tmp_path / "small.png", WHITE[:4, :4])
    data = load(tmp_path, size=8, channels=1)
    assert data.x.shape == (2, 1, 8, 8)
    assert (data.x[0] == 255).all()
    assert (data.x[1, :, :, 2:-2] >= 250).all()
    assert (data.x[1] > 128).all()


def test_the_size_is_the_most_common_smaller_side_as_a_multiple_of_8(tmp_path, save):
    for name, shape in {"a": (30, 90), "b": (50, 30), "c": (64, 64)}.items():
        save(tmp_path / f"{name}.png", np.zeros((*shape, 3), np.uint8))
    assert load(tmp_path).spec.shape == (1, 24, 24)


def test_the_inferred_size_is_at_most_256(tmp_path, save):
    save(tmp_path / "a.jpg", np.zeros((600, 600, 3), np.uint8))
    assert load(tmp_path).spec.shape == (1, 256, 256)


def test_progress_is_told_and_ends_at_the_number_of_pictures(tmp_path, rng, save):
    fill(tmp_path, colours(rng, 70), save)
    told = []
    FolderDataset(str(tmp_path)).load(lambda *each: told.append(each))
    assert told == [("decoding images", 64, 70), ("decoding images", 70, 70)]


def test_hidden_files_are_left_alone(tmp_path, rng, save):
    fill(tmp_path, colours(rng, 2), save)
    for name in ("._0.png", ".git/a.png", "__MACOSX/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"junk")
    data = load(tmp_path)
    assert len(data) == 2
    assert not data.skipped


def test_a_link_back_to_the_folder_ends(tmp_path, rng, save):
    fill(tmp_path / "a", colours(rng, 2), save)
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert len(load(tmp_path)) == 2


def test_a_number_of_channels_that_no_picture_has_is_refused():
    with pytest.raises(BadOption, match="channels: must be 1"):
        FolderDataset("x", channels=2)


def test_postscript_is_never_handed_to_another_program(tmp_path, save):
    save(tmp_path / "a.png", BLACK)
    (tmp_path / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    (tmp_path / "c.eps").touch()
    assert load(tmp_path).skipped == ("b.png: cannot identify image file",)


def test_flips_and_shifts_are_for_training_and_leave_the_data_as_it_is(tmp_path, pictures):
    pictures(tmp_path, 3)
    plain, augmented = (FolderDataset(str(tmp_path), **options).load() for options in ({}, {"flips": True, "shift": 2}))
    assert torch.equal(plain.x, augmented.x)
    assert plain.fingerprint() == augmented.fingerprint()
    assert (augmented.augmentation.flips, augmented.augmentation.shift) == (True, 2)
    assert augmented.split(0.4)[0].augmentation == augmented.augmentation
