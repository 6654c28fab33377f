"""Where the numbers of a run can be watched."""

import errno
import json
import os
import struct
import threading
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.cli.main import one_line
from unnoise.errors import BadOption, MissingExtra, UnknownName
from unnoise.recipes.logbook import Logbook, Pace, StepCost
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.recipes.tracking.base import TrackedRun, TrackingSettings, numbers_in, trackers
from unnoise.training import peak as peak_module
from unnoise.training.averages import power_exponent
from unnoise.training.peak import measured_peak, peak_memory

SMALL = (
    "training.steps=20", "training.checkpoint_every=10", "training.validate_every=10", "training.sample_every=20",
    "training.batch_size=32", "training.validation_size=16", "training.log_every=5", "network.width=16",
)  # fmt: skip


def run(folder, *options):
    made = Run(load_recipe("spiral", [*SMALL, *options]), folder)
    for _ in made.events():
        pass
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_shows_the_numbers_of_the_file_the_loss_of_each_time_and_the_samples(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = run(tmp_path / "run")
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    losses = {line["step"]: line["loss"] for line in lines if "lr" in line}
    assert list(losses) == [5, 10, 15, 20]
    shown = {e.step: e.value for e in board.Scalars("loss")}
    assert shown == pytest.approx(losses, rel=1e-6)
    tags = board.Tags()
    assert sum(tag.startswith("loss_by_time/") for tag in tags["scalars"]) == 16
    assert {"gradient_norm", "samples_per_second", "peak_memory_gb", "validation_loss"} <= set(tags["scalars"])
    assert tags["images"] == ["samples"]


def test_a_disk_that_is_full_is_told_once_and_by_the_folder_that_was_written_to(tmp_path, capsys):
    heard, before = threading.excepthook, set(threading.enumerate())
    tracker = trackers["tensorboard"](TrackedRun(tmp_path, {}, TrackingSettings(), 0))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def train():
        for step in range(1, 100):
            tracker.numbers({"loss": 0.5}, step)
            writer.join(0.1)

    [writer] = set(threading.enumerate()) - before
    writer._record_writer.write = full
    with pytest.raises(OSError, match="No space left on device") as refused:
        train()
    folder = tmp_path / "tensorboard"
    assert one_line(refused.value) == (f"no space left on device: {folder}: free some space, or write elsewhere")
    with pytest.raises(OSError, match="No space left on device"):
        tracker.close()
    assert capsys.readouterr().err == ""
    assert threading.excepthook is heard


def test_what_no_two_runs_have_alike_stands_last_in_a_line(tmp_path):
    for line in run(tmp_path / "run", "tracking.trackers=[]"):
        if "samples_per_second" in line:
            names = list(line)
            assert set(names[names.index("samples_per_second") :]) == {
                "samples_per_second",
                "peak_memory_gb",
                "waiting_for_data",
            }
            assert 0 <= line["waiting_for_data"] < 1
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_how_far_each_average_looks_back_is_told(tmp_path):
    asked = "training.ema=[power-0.1, 0.75]", "training.model_average=exponential-0.75", "tracking.trackers=[]"
    told = {line["step"]: line for line in run(tmp_path / "run", *asked) if "lr" in line}
    gamma = power_exponent(0.1)
    for step, line in told.items():
        # A power average of exponent gamma gives its newest weights (gamma + 1) / step, about.
        assert line["ema_horizon/power-0.1"] == pytest.approx(1 / (1 - (1 - 1 / step) ** (gamma + 1)), abs=0.06)
        assert line["ema_horizon"] == pytest.approx(min(4.0, (9 + step) / 9), abs=0.06)


def test_other_trackers_may_be_asked_for_when_a_run_goes_on(tmp_path):
    run(tmp_path / "run", "tracking.trackers=[]")
    again = Run(load_recipe("spiral", [*SMALL, "tracking.project=other"]), tmp_path / "run")
    assert again.finished


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_whose_library_is_not_installed_says_what_to_install(tmp_path, name, monkeypatch):
    monkeypatch.setattr(f"unnoise.recipes.tracking.{name}.find_spec", lambda _: None)
    trackers[name]  # its module is there
    with pytest.raises(MissingExtra, match=rf"pip install 'unnoise\[{name}\]'"):
        run(tmp_path / "run", f"tracking.trackers=[{name}]")


def test_a_tracker_that_nobody_knows_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'wandb'"):
        TrackingSettings(trackers=("wanbd",))


def picture(path):
    """A picture of noise in a file, and its pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def wandb_lines(path):
    """What a W&B run holds that `wandb sync` would upload: a log of records in blocks of 32 KiB, as LevelDB writes them."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, lines, record = path.read_bytes(), [], b""
    place, last = 7, 32768 - 7  # after the file's own head; none begins where its head would not fit into the block
    while place + 7 <= len(content):
        if place % 32768 > last:
            place += 32768 - place % 32768
            continue
        _, size, part = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if part in (1, 4):  # whole, or the last part of one
            made, record = Record.FromString(record), b""
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in made.history.item}
            lines += [items] if items else []
    return lines


def test_wandb_goes_on_with_the_run_that_it_began_and_gets_numbers_and_pictures(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setitem(os.environ, "WANDB_MODE", "offline")
    told = TrackedRun(tmp_path, {"a": 1}, TrackingSettings(trackers=("wandb",)), 0)
    pixels, found = picture(tmp_path / "drawn.png"), []
    for step in (1, 2):
        tracker = trackers["wandb"](told)
        tracker.numbers({"loss": 0.5 / step, "loss_by_time/0.03": 1.0}, step)
        tracker.picture("samples", tmp_path / "drawn.png", step)
        tracker.close()
        [folder] = {*(tmp_path / "wandb").glob("offline-run-*")} - {*found}
        found.append(folder)
    # offline-run-TIME-ID, and a number after it where two are begun in one second.
    assert len({folder.name.split("-")[3] for folder in found}) == 1
    wandb.teardown()  # until then some of it may wait to be written
    for step, folder in enumerate(found, start=1):
        [kept], [log] = folder.glob("files/media/images/samples*.png"), folder.glob("*.wandb")
        assert np.array_equal(pixels_of(kept), pixels)
        numbers, shown = wandb_lines(log)
        assert {name: numbers[name] for name in ("step", "loss", "loss_by_time/0.03")} == {
            "step": step, "loss": 0.5 / step, "loss_by_time/0.03": 1.0,
        }  # fmt: skip
        assert shown["step"] == step
        assert [shown[f"samples.{name}"] for name in ("_type", "width", "height")] == ["image-file", 7, 5]
        assert shown["samples.path"] == str(kept.relative_to(folder / "files"))


def test_mlflow_goes_on_with_the_run_that_it_began_and_gets_numbers_and_pictures(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    uri = str(tmp_path / "mlruns")
    told = TrackedRun(tmp_path, {"a": {"b": 1}}, TrackingSettings(trackers=("mlflow",), uri=uri), 0)
    for step in (1, 2):
        tracker = trackers["mlflow"](told)
        tracker.numbers({"loss": 0.5 / step, "loss_by_time/0.03": 1.0}, step)
        pixels = picture(tmp_path / f"{step}.png")
        tracker.picture("samples", tmp_path / f"{step}.png", step)
        tracker.close()
    client = MlflowClient(tracking_uri=uri)
    [found] = client.search_runs([client.get_experiment_by_name("unnoise").experiment_id])
    assert found.data.params == {"a.b": "1"}
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "loss")] == [(1, 0.5), (2, 0.25)]
    assert found.data.metrics["loss_by_time/0.03"] == 1.0
    assert [file.path for file in client.list_artifacts(found.info.run_id, "samples")] == [
        "samples/1.png",
        "samples/2.png",
    ]
    assert np.array_equal(pixels_of(client.download_artifacts(found.info.run_id, "samples/2.png")), pixels)
    assert found.info.status == "FINISHED"


def test_mlflow_without_what_speaks_to_its_database_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "unnoise.recipes.tracking.mlflow.find_spec", lambda name: None if name == "alembic" else find_spec("json")
    )
    for uri, wants in (
        ("", "tracking.trackers=mlflow without a folder or server as tracking.uri (sqlite:///{here}/mlflow.db)"),
        ("sqlite:///a.db", "tracking.uri=sqlite:///a.db"),
    ):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.chdir(tmp_path)
        told = TrackedRun(tmp_path, {}, TrackingSettings(trackers=("mlflow",), uri=uri), 0)
        with pytest.raises(MissingExtra) as refused:
            trackers["mlflow"](told)
        assert str(refused.value) == (
            f"{wants.format(here=tmp_path)} needs alembic, which is not installed: pip install 'unnoise[mlflow]'"
        )


def test_what_mlflow_refuses_at_the_beginning_is_one_line_and_later_it_does_not_end_the_run(
    tmp_path, monkeypatch, capsys
):
    from mlflow.exceptions import MlflowException

    settings = TrackingSettings(trackers=("mlflow",), uri=str(tmp_path / "mlruns"))
    tracker = trackers["mlflow"](TrackedRun(tmp_path, {}, settings, 0))

    def fail(*_, **__):
        raise MlflowException("the server is away. It may come back.")

    monkeypatch.setattr("mlflow.MlflowClient.log_metric", fail)
    for step in (1, 2):
        tracker.numbers({"loss": 0.5}, step)
    tracker.close()
    told = "note: MLflow does not take all of the run's numbers and pictures any more: the server is away"
    assert " ".join(capsys.readouterr().err.split()) == told
    (tmp_path / ".mlflow-id").write_text("0" * 32)
    with pytest.raises(BadOption) as refused:
        trackers["mlflow"](TrackedRun(tmp_path, {}, settings, 0))
    assert str(refused.value) == (
        f"tracking.uri: MLflow refuses {tmp_path / 'mlruns'}: Run '{'0' * 32}' not found: give a folder or a server that it "
        "can write to, or leave mlflow out of tracking.trackers"
    )


def test_numbers_by_time_get_the_time_into_their_names():
    line = {"step": 3, "loss": 1.0, "told": "x", "by_time": {"t": [0.1, 0.9], "loss": [1.0, 2.0], "floor": None}}
    assert numbers_in(line) == {"loss": 1.0, "loss_by_time/0.10": 1.0, "loss_by_time/0.90": 2.0}


def test_the_pace_leaves_out_what_is_no_training(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("unnoise.recipes.logbook.time.perf_counter", lambda: now[0])
    pace = Pace()
    for step in range(11):
        if step == 5:
            pace.interrupted()
            now[0] += 100
        now[0] += 0.5
        pace.stepped()
    assert pace.rate() == pytest.approx(2.0)
    assert pace.rate() == pytest.approx(2.0)  # nothing new: what was known


def test_the_peak_is_a_speed_that_products_do_not_exceed():
    cpu = torch.device("cpu")
    peak = measured_peak(torch.float32, cpu, torch.get_num_threads())
    assert 1e8 < peak < 1e14
    assert measured_peak(torch.float32, cpu, torch.get_num_threads()) == peak  # measured once
    assert peak_memory(cpu) > 50e6


@pytest.mark.parametrize(("rate", "sizes"), [(1e9, [256]), (1e12, [256, 1024])])
def test_a_machine_that_is_slow_with_such_numbers_is_measured_by_a_small_product(monkeypatch, rate, sizes):
    tried = []
    monkeypatch.setattr(peak_module, "_rate", lambda size, *_: tried.append(size) or rate + size)
    assert measured_peak.__wrapped__(torch.bfloat16, torch.device("cpu"), 1) == rate + sizes[-1]
    assert tried == sizes


def test_products_that_a_mac_only_promises_are_waited_for(monkeypatch):
    began = []
    ones, product = torch.ones, torch.mm
    monkeypatch.setattr(torch, "ones", lambda *size, dtype, device: ones(4, 4, dtype=dtype))
    monkeypatch.setattr(torch, "mm", lambda a, b: began.append("product") or product(a, b))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: began.append("wait"))
    assert peak_module.measured_peak.__wrapped__(torch.float32, torch.device("mps"), 1) > 0
    assert began == ["wait", "product", "wait"] * 6


def test_the_share_of_the_peak_is_that_of_all_processes_and_given_for_steps_that_matter(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("unnoise.recipes.logbook.measured_peak", lambda *of: asked.append(of) or 4e11)
    monkeypatch.setattr(Pace, "rate", lambda self: 2.5)  # steps a second
    settings, cpu = load_recipe("spiral", SMALL).training, torch.device("cpu")
    told = TrackedRun(tmp_path, {}, TrackingSettings(trackers=()), 0)
    for operations, processes, tflops, share in ((1e11, 1, 0.25, 0.625), (1e11, 2, 0.25, 0.312), (1e9, 1, None, None)):
        book = Logbook(told, settings, StepCost(operations, processes, torch.bfloat16, cpu))
        line = book._measured()
        book.close()
        assert (line.get("tflops"), line.get("fraction_of_peak")) == (tflops, share)
        assert line["samples_per_second"] == 2.5 * 32
    assert asked == [(torch.bfloat16, cpu, torch.get_num_threads())] * 2
