"""What tests of recipes share."""

import pytest

from unnoise.training.prefetch import PrefetchedStream


@pytest.fixture(autouse=True, scope="module")
def _no_waiting():
    """No run says that its steps waited for their data, as any does on a machine that is busy enough: tests write it there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrefetchedStream, "waiting", 0.0)
        yield
