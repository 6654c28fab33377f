"""A run that starts from a model: which weights it takes over, which of them learn, and what is saved of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter import Adapter
from ..blueprint import Blueprint
from ..conditioning.text.network import TextNetwork
from ..data.base import AnyDataset, Spec
from ..data.relabel import relabelled
from ..errors import IncompatibleParts, ModelFolderError
from ..model import Model
from ..nn.base import Network
from ..nn.lora import attach, freeze
from ..objectives.mse import preconditioned
from ..options import plain
from .start import StartSettings

_PARTS = ("codec", "process", "denoiser")


class Start:
    """The model that a run starts from.

    Args:
        settings: Which, and what of it learns.

    Raises:
        ModelFolderError: There is no model, or it is damaged.
    """

    def __init__(self, settings: StartSettings) -> None:
        self.settings = settings
        try:
            self.model = Model.load(Path(settings.model).expanduser())
        except ModelFolderError as error:
            raise ModelFolderError(f"start.model: {error}") from None
        self.hash = self.model.weights_hash
        self.notes = [f"start: {note}" for note in self.model.notes]
        self.weights: dict[str, Tensor] = {}
        """Those that the run began with, by the network's own names: the model's, with a table for the labels as they now are."""
        self._names: tuple[str, ...] = ()
        self._own: tuple[str, ...] = ()
        self._resized: list[str] = []

    @property
    def known(self) -> tuple[str, ...]:
        """The labels of the model that the run starts from."""
        return self.model.spec.class_names

    def label(self, data: AnyDataset) -> tuple[AnyDataset, Spec]:
        """The data with its labels numbered as the new model will, and what a sample of that model is.

        Raises:
            IncompatibleParts: The model makes something of another kind.
        """
        made = self.model.spec
        if (made.kind, len(made.shape)) != (data.spec.kind, len(data.spec.shape)):
            raise IncompatibleParts(
                f"start.model: {self.settings.model} makes {made.kind} of shape {made.shape}, the data is {data.spec.kind} of "
                f"shape {data.spec.shape}: start from a model of such data, or give other data"
            )
        given, settings = data.spec.class_names, self.settings
        new = [name for name in given if name not in self.known]
        if not given and self.known:
            self.notes.append("start: the data has no labels: the model learns it as for no label, and keeps its own")
        names = given if given and settings.labels == "replace" else (*self.known, *new)
        gone = [name for name in self.known if name not in names]
        if new or gone:
            parts = [f"{len(given) - len(new)} known"]
            parts += [f"{len(new)} new, which begin as no label does ({_listed(new)})"] if new else []
            parts += [f"{len(gone)} of the model's dropped ({_listed(gone)})"] if gone else []
            self.notes.append(f"start: labels: {', '.join(parts)}")
        return relabelled(data, names), replace(data.spec, class_names=names)

    def begin(self, network: nn.Module, blueprint: Blueprint, seed: int) -> None:
        """Gives a fresh network the weights of the model, with adapters where they are asked for, and freezes the rest.

        Args:
            network: Changed in place; it then says what the model says, bit for bit.
            blueprint: Of the network.
            seed: Of the first values of adapters.

        Raises:
            IncompatibleParts: The network is another than the model's; the first difference is named.
            BadOption: A pattern means nothing.
        """
        assert isinstance(network, Network)
        self._names = blueprint.spec.class_names
        self.weights = self._fitted(network)
        network.load_state_dict(self.weights)
        settings = self.settings
        train = list(settings.train)
        if settings.lora is not None:
            attach(network, settings.lora, seed)
        if settings.lora is not None or train:  # new labels can only be learned in the table
            train += self._resized
        frozen = tuple(settings.freeze)
        if isinstance(network, TextNetwork) and not network.learned:
            frozen += ("text",)
        learned = freeze(network, train, frozen)
        self._own = tuple(learned)
        self._tell(network, blueprint)

    def _fitted(self, network: Network) -> dict[str, Tensor]:
        """The model's weights for a network that may have other labels."""
        inner = preconditioned(self.model.denoiser).network
        assert isinstance(inner, Network)
        old, new = inner.state_dict(), network.state_dict()
        tables, old_tables = _label_tables(network), _label_tables(inner)
        fitted = {}
        for name, fresh in new.items():
            if name in tables and (name in old_tables or not self.known):
                fitted[name] = self._table(old.get(name), fresh)
            elif name not in old or old[name].shape != fresh.shape:
                there = f"of shape {tuple(old[name].shape)}" if name in old else "missing"
                raise IncompatibleParts(
                    f"start.model: {self.settings.model} holds another network: {name} is {there} in it and of shape "
                    f"{tuple(fresh.shape)} here; leave out network.* and what else the recipe says of the model's parts"
                )
            else:
                fitted[name] = old[name].detach().clone()
        left = sorted(set(old) - set(new) - old_tables)
        if left:
            raise IncompatibleParts(
                f"start.model: {self.settings.model} holds another network: {left[0]} is in it and not here; leave out "
                "network.* and what else the recipe says of the model's parts"
            )
        self._resized = [name for name in tables if name not in old or not torch.equal(fitted[name], old[name])]
        return fitted

    def _table(self, old: Tensor | None, fresh: Tensor) -> Tensor:
        """The rows of a label table: those of known labels stay, new ones begin as that of no label, the last."""
        if old is None:
            return torch.zeros_like(fresh)
        rows = [self.known.index(name) if name in self.known else len(old) - 1 for name in self._names]
        return old[[*rows, len(old) - 1]].clone()

    def _tell(self, network: nn.Module, blueprint: Blueprint) -> None:
        here, there = blueprint.describe(), self.model.blueprint.describe()
        changed = [name for name in _PARTS if here[name] != there[name]]
        if changed:
            self.notes.append(
                f"start: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not what the model was trained with, "
                "so it has that to learn too"
            )
        if here["data"]["shape"] != there["data"]["shape"]:
            shapes = f"{tuple(here['data']['shape'])}, those of the model {tuple(there['data']['shape'])}"
            self.notes.append(f"start: samples are of shape {shapes}")
        learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
        total = sum(value.numel() for value in self.weights.values())
        kind = "in adapters beside" if self.settings.lora is not None else "of"
        self.notes.append(f"start: {learning:,} weights learn, {kind} the {total:,} of {self.settings.model}")

    def finished(
        self, averaged: Mapping[str, Tensor], blueprint: Blueprint
    ) -> tuple[dict[str, Tensor], Adapter | None]:
        """The weights of the model that was made, adapters merged, and the adapter by itself where there is one.

        Frozen weights are those that the run began with, to the bit, whatever precision it computed in.

        Args:
            averaged: What the network has learned, by its own names; frozen weights among it are passed over.
            blueprint: Of the model.
        """
        learned = {name: averaged[name].cpu() for name in self._own}
        if self.settings.lora is None:
            return {**self.weights, **learned}, None
        tables = {name: learned.get(name, self.weights[name]) for name in self._resized}
        adapter = Adapter.of(
            {name: value for name, value in learned.items() if name not in tables},
            self.settings.lora.scale,
            tables=tables,
            base=self.hash,
            base_labels=self.known,
            labels=blueprint.spec.class_names,
            facts=plain(self.settings.lora),
        )
        return adapter.apply(self.weights), adapter

    def facts(self) -> dict[str, Any]:
        """What a model's description says of where it began."""
        lora = {} if self.settings.lora is None else {"lora": plain(self.settings.lora)}
        return {"start": {"model": self.settings.model, "weights": self.hash}, **lora}


def _label_tables(network: Network) -> set[str]:
    """The weights of a network that have a row for every label, and one for none."""
    rows = network.num_classes + 1
    return {
        f"{name}.weight"
        for name, module in network.named_modules()
        if network.num_classes
        and isinstance(module, nn.Embedding)
        and module.num_embeddings == rows
        and not name.startswith("text.")  # whose rows are words
    }


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
