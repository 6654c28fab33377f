"""The folder in which features are kept."""

from __future__ import annotations

from pathlib import Path

from ...files import cache_folder


def features_folder() -> Path:
    """Where features and the networks that make them are kept: `features` in the user's cache."""
    return cache_folder() / "features"
