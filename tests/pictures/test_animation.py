import io

import numpy as np
import pytest
from PIL import Image

from unnoise.errors import BadOption, ShapeError
from unnoise.pictures.animation import read_comment, save_animation
from unnoise.pictures.saving import replace

FRAMES = [Image.new("RGB", (20, 10), (0, 20 * i, 200 - 20 * i)) for i in range(7)]


def durations(picture):
    times = []
    for i in range(picture.n_frames):
        picture.seek(i)
        picture.load()
        times.append(picture.info["duration"])
    return times


@pytest.mark.parametrize("suffix", [".gif", ".png", ".apng", ".webp", ".GIF"])
def test_frames_times_loop_and_comment_come_back(tmp_path, suffix):
    path = tmp_path / "new" / f"run{suffix}"
    comment = 'seed: 3, prompt: "größer" ' + "x" * 600
    save_animation(FRAMES, path, fps=12.5, hold_last=1.5, comment=comment)
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.size) == (7, (20, 10))
        assert picture.info["loop"] == 0
        assert durations(picture) == [80] * 6 + [1580]
        for i, frame in enumerate(FRAMES):
            picture.seek(i)
            assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - np.asarray(frame)).max() <= 4
    assert read_comment(path) == comment
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("format", ["gif", "png", ".webp"])
def test_a_stream_and_a_single_frame_are_fine(format):
    stream = io.BytesIO()
    save_animation(FRAMES[:1], stream, format=format)
    with Image.open(io.BytesIO(stream.getvalue())) as picture:
        assert picture.convert("RGB").getpixel((3, 3)) == (0, 0, 200)
    assert read_comment(io.BytesIO(stream.getvalue())) is None


def test_a_gif_keeps_one_palette_and_stays_small():
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((200, 200), 0) for _ in range(20)]
    stream = io.BytesIO()
    save_animation(frames, stream, format="gif")
    content = stream.getvalue()
    assert len(content) < 20 * 200 * 200 / 4
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.n_frames == 20


def test_transparent_frames_stand_on_paper():
    stream = io.BytesIO()
    save_animation([Image.new("RGBA", (4, 4), (9, 9, 9, 0)), Image.new("L", (4, 4), 0)], stream, format="gif")
    with Image.open(stream) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_what_cannot_be_saved_is_refused_before_a_file_is_made(tmp_path):
    with pytest.raises(BadOption, match=r"\.gif, \.png, \.apng, \.webp, got '\.mp4'"):
        save_animation(FRAMES, tmp_path / "run.mp4")
    with pytest.raises(BadOption, match="no suffix"):
        save_animation(FRAMES, tmp_path / "run")
    with pytest.raises(BadOption, match="a stream has no suffix"):
        save_animation(FRAMES, io.BytesIO())
    with pytest.raises(BadOption, match="at least one picture"):
        save_animation([], tmp_path / "run.gif")
    with pytest.raises(BadOption, match="fps"):
        save_animation(FRAMES, tmp_path / "run.gif", fps=0)
    with pytest.raises(BadOption, match="hold_last"):
        save_animation(FRAMES, tmp_path / "run.gif", hold_last=-1)
    with pytest.raises(ShapeError, match="20x10, 21x10"):
        save_animation([*FRAMES, Image.new("RGB", (21, 10))], tmp_path / "run.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    replace(path, b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
