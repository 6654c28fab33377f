"""Where a learned network is kept: one folder for each data set and settings, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import DataError
from .digest import digest_of
from .files import features_folder
from .own_network import OwnNetwork

FORMAT = 2  # raised whenever the same data and settings would give another network
WEIGHTS, ABOUT = "weights.safetensors", "about.json"


@dataclass(frozen=True)
class Kept:
    """A learned network and what belongs to it.

    Args:
        network: Ready to be asked.
        steps: What is done to a sample before and after the weights.
        about: What a reader of a report should know of it.
        hash: Of the steps and the weights, see `digest_of`.
    """

    network: OwnNetwork
    steps: dict[str, Any]
    about: dict[str, Any]
    hash: str


@dataclass(frozen=True)
class Owner:
    """What a kept network was learned from.

    Args:
        data: Fingerprint of the data set.
        settings: How it was learned, as plain values.
    """

    data: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """32 hexadecimal digits of all that the network depends on."""
        text = json.dumps([FORMAT, self.data, dict(self.settings)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        """Where the network is kept."""
        return features_folder() / f"own-{self.key}"


def write(owner: Owner, kept: Kept) -> Kept:
    """Keeps a network, in place of a damaged one if there is one; with a note where that cannot be done."""
    from safetensors.torch import save_file

    facts = {"format": FORMAT, "data": owner.data, "settings": dict(owner.settings), "hash": kept.hash}
    facts |= {"steps": kept.steps, "about": kept.about}
    folder = owner.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as made:
            whole = Path(made, "whole")
            whole.mkdir()
            save_file({k: v.contiguous() for k, v in kept.network.state_dict().items()}, whole / WEIGHTS)
            (whole / ABOUT).write_text(json.dumps(facts, indent=1), encoding="utf-8")
            if folder.exists():
                os.replace(folder, Path(made, "damaged"))
            os.replace(whole, folder)
    except OSError as error:  # a full or read-only disk; what was learned serves this time
        return noted(kept, f"what was learned could not be kept in {folder}: {error.strerror or error}")
    return kept


def read(owner: Owner) -> Kept | str | None:
    """A kept network, None where there is none, or what is wrong with it where it is damaged.

    Raises:
        DataError: What stands there was learned from other data, or with other settings.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = owner.folder
    if not folder.exists():
        return None
    try:
        facts = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        data, settings, steps = facts["data"], facts["settings"], facts["steps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{ABOUT} cannot be read ({type(error).__name__})"
    _refuse_others(owner, data, settings)
    try:
        tensors = load_file(folder / WEIGHTS)
        if digest_of(steps, tensors) != facts["hash"]:
            return "its weights are not those that were kept"
        network = OwnNetwork(tuple(steps["seen"]), steps["classes"])
        network.load_state_dict(tensors)
        return Kept(network.eval(), steps, dict(facts["about"]), facts["hash"])
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        return f"{WEIGHTS} cannot be read ({type(error).__name__})"


def _refuse_others(owner: Owner, data: object, settings: object) -> None:
    remove = f"remove the folder {owner.folder}, and it is learned anew"
    if data != owner.data:
        raise DataError(
            f"the kept features were learned from another data set ({str(data)[:12]}... and not {owner.data[:12]}...): {remove}"
        )
    if settings != dict(owner.settings):
        raise DataError(f"the kept features were learned with other settings ({settings}): {remove}")


def noted(kept: Kept, note: str) -> Kept:
    """The same with one more line in `about["notes"]`."""
    return replace(kept, about={**kept.about, "notes": [*kept.about.get("notes", ()), note]})
