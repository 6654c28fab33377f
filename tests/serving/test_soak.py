"""A few seconds of what `benchmarks/_soak.py` does for ten minutes."""

import sys
from pathlib import Path


def test_mixed_requests_of_many_clients_all_get_an_answer_and_every_job_an_end(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
    from _soak import soak

    seen = soak(seconds=4.0, clients=6)
    assert seen["wrong"] == []
    assert seen["unended"] == []
    assert sum(seen["counts"].values()) > 10
    assert seen["health"]["status"] == "ok"
    assert seen["health"]["waiting"] == 0
    if sys.platform == "linux":
        assert min(seen["memory_mb"]) > 50
