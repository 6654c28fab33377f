"""MLflow: a tracking server, or a folder or database that its environment names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import MissingExtra
from .base import TrackedRun, Tracker, trackers

ID_FILE = ".mlflow-id"


@trackers.register("mlflow")
class MLflowTracker(Tracker):
    """One MLflow run for one run folder, however often it is resumed."""

    def __init__(self, run: TrackedRun) -> None:
        if find_spec("mlflow") is None:
            raise MissingExtra("tracking.trackers=mlflow", "mlflow", "mlflow")
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=run.settings.uri or None)
        remembered = run.folder / ID_FILE
        if remembered.is_file():
            self._id = remembered.read_text(encoding="ascii").strip()
            self._client.set_terminated(self._id, "RUNNING")
            return
        found = self._client.get_experiment_by_name(run.settings.project)
        experiment = found.experiment_id if found else self._client.create_experiment(run.settings.project)
        self._id = self._client.create_run(experiment, run_name=run.name).info.run_id
        remembered.write_text(self._id, encoding="ascii")
        for name, value in _flat(run.recipe):
            self._client.log_param(self._id, name, value)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker.numbers`."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """See `Tracker.picture`."""
        self._client.log_artifact(self._id, str(path), artifact_path=name)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._client.set_terminated(self._id)


def _flat(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    """Options by dotted path, as text of the length that MLflow keeps."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", str(value)[:500]
