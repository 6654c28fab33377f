"""Replicas as deployments of Ray Serve, which starts their processes, and replaces those that end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..errors import MissingExtra, UnnoiseError
from ..precision import fit_threads
from ..recipes.places.on_ray import cluster, import_ray
from .members import Gone, Line
from .replica import Replica
from .setup import Setup

PATIENCE = 600.0
"""Seconds until all replicas must be there."""
TOGETHER = 10_000
"""Calls to one replica at a time: as many as clients watch jobs."""


def import_serve() -> tuple[Any, Any]:
    """Ray, and Ray Serve.

    Raises:
        MissingExtra: It is not installed.
    """
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")  # read when it is imported
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 lets everything else on the machine go first
    ray = import_ray("--replicas")
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtra("--replicas", error.name or "ray.serve", "scale") from None
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return ray, serve


@contextmanager
def replicas(setup: Setup, count: int) -> Iterator[list[Line]]:
    """As many replicas on this machine, for as long as this lasts.

    Each is a deployment of its own with one replica, and not one of several replicas of a single deployment: calls to a deployment
    go to any of its replicas, and most calls here concern a job that one of them has.

    Args:
        setup: Of the server.
        count: How many.

    Raises:
        MissingExtra: Ray Serve is not installed.
        UnnoiseError: They cannot be started.
    """
    ray, serve = import_serve()
    from ray.serve.api import RunTarget
    from ray.serve.schema import LoggingConfig

    own = not ray.is_initialized()
    with cluster(ray, "", 0), ExitStack() as stack:
        gpus = int(ray.cluster_resources().get("GPU", 0)) if setup.device != "cpu" else 0
        share = -(-count // gpus) if gpus else count
        deployment = serve.deployment(
            Replica,
            name="replica",
            num_replicas=1,
            max_ongoing_requests=TOGETHER,
            # No processors: Ray waits for ever where there are not enough of them.
            ray_actor_options={"num_cpus": 0, "num_gpus": 1 / share if gpus else 0},
            health_check_period_s=1.0,
            health_check_timeout_s=120.0,  # of a machine that is very busy
            graceful_shutdown_timeout_s=1.0,
            logging_config=LoggingConfig(log_level="ERROR", enable_access_log=False),
        )
        threads = max(1, fit_threads() // (1 if gpus else count))
        serve.start(proxy_location="Disabled", logging_config=LoggingConfig(log_level="ERROR"))
        names = [f"unnoise-{place}" for place in range(count)]
        handles = serve.run_many(
            [
                RunTarget(deployment.bind(setup, os.getcwd(), threads, share), name=name, route_prefix=None)
                for name in names
            ],
            wait_for_applications_running=False,
        )
        if not own:  # else they end with the cluster
            stack.callback(lambda: [serve.delete(name) for name in names])
        _await(serve, names)
        yield [_RayLine(ray, handle) for handle in handles]


def _await(serve: Any, names: list[str]) -> None:
    """Returns once all are there."""
    until = time.monotonic() + PATIENCE
    while True:
        told = serve.status().applications
        states = {name: str(getattr(told.get(name), "status", "")).rpartition(".")[2] for name in names}
        if all(state == "RUNNING" for state in states.values()):
            return
        failed = next((name for name, state in states.items() if state == "DEPLOY_FAILED"), None)
        if failed is not None:
            lines = [line.strip() for line in told[failed].deployments["replica"].message.splitlines() if line.strip()]
            raise UnnoiseError(
                f"--replicas: a replica cannot be started: {lines[-1] if lines else 'Ray does not say why'}"
            )
        if time.monotonic() > until:
            raise UnnoiseError(f"--replicas: the replicas are not there after {PATIENCE:g} seconds: {states}")
        time.sleep(0.5)


class _RayLine(Line):
    """Calls by a handle of Ray Serve."""

    def __init__(self, ray: Any, handle: Any) -> None:
        from ray.serve.exceptions import RayServeException

        self._handle = handle
        self._failed, self._gone = ray.exceptions.RayTaskError, (ray.exceptions.RayError, RayServeException)

    async def call(self, method: str, *arguments: Any) -> Any:
        """See `Line.call`."""
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except self._failed:  # in the method: it is there
            raise
        except self._gone as error:
            raise Gone((str(error).strip().splitlines() or [type(error).__name__])[0]) from error
