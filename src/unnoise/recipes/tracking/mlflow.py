"""MLflow: a tracking server, a folder or a database, by `tracking.uri` or MLflow's own settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import BadOption, MissingExtra
from .base import TrackedRun, Tracker, trackers

ID_FILE = ".mlflow-id"
_DATABASES = ("sqlite", "mysql", "postgresql", "mssql")


@trackers.register("mlflow")
class MLflowTracker(Tracker):
    """One MLflow run for one run folder, however often it is resumed.

    Where MLflow refuses it at the beginning, training does not begin; where it fails later, training goes on without what it
    refused, which is told once.
    """

    def __init__(self, run: TrackedRun) -> None:
        if find_spec("mlflow") is None:
            raise MissingExtra("tracking.trackers=mlflow", "mlflow", "mlflow")
        from mlflow import get_tracking_uri
        from mlflow.exceptions import MlflowException

        self._failed = False
        uri = run.settings.uri or get_tracking_uri()
        _make_ready(uri, run.settings.uri)
        try:
            self._begin(run, uri)
        except MlflowException as error:
            raise BadOption(
                f"tracking.uri: MLflow refuses {uri}: {_line(error)}: give a folder or a server that it can write to, or leave "
                "mlflow out of tracking.trackers"
            ) from None

    def _begin(self, run: TrackedRun, uri: str) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
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
        with self._going_on():
            for name, value in values.items():
                self._client.log_metric(self._id, name, value, step=step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """See `Tracker.picture`."""
        with self._going_on():
            self._client.log_artifact(self._id, str(path), artifact_path=name)

    def close(self) -> None:
        """See `Tracker.close`."""
        with self._going_on():
            self._client.set_terminated(self._id)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Training does not end because a server does: what it refuses is not shown there."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if not self._failed:
                from ..watch import say

                say(f"note: MLflow does not take all of the run's numbers and pictures any more: {_line(error)}")
            self._failed = True


def _make_ready(uri: str, asked: str) -> None:
    """Sees to what MLflow needs for a kind of URI beside itself.

    Raises:
        MissingExtra: It is a database, and what speaks to one is not installed.
    """
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in _DATABASES:
        wants = (
            f"tracking.uri={asked}"
            if asked
            else f"tracking.trackers=mlflow without a folder or server as tracking.uri ({uri})"
        )
        for module in ("sqlalchemy", "alembic"):
            if find_spec(module) is None:
                raise MissingExtra(wants, module, "mlflow")
    elif scheme in ("", "file"):
        # Newer versions refuse folders without it, and write them as ever with it.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")


def _line(error: Exception) -> str:
    """What an error says first, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".: ")


def _flat(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    """Options by dotted path, as text of the length that MLflow keeps."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", str(value)[:500]
