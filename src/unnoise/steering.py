"""What helps a guidance rule: the folder that it names, found, checked against the model that it steers, and loaded.

A classifier's folder is like a model's, with the weights of the classifier as its only part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import torch
from torch import nn

from .blueprint import Blueprint
from .codecs.base import Codec
from .conditioning.text.network import TextNetwork
from .denoisers.base import Denoiser
from .errors import BadOption, IncompatibleParts, ModelFolderError, UnnoiseError
from .guidance.base import Guidance, guidances
from .guidance.classifier import ClassifierGuidance
from .guidance.helped import Helped
from .guidance.noisy_classifier import NoisyClassifier
from .model_folder import MODEL_FILE, digest, model_place, read_description, read_parts, write_folder
from .objectives.mse import preconditioned
from .placement import precision_of
from .precision import Precision

KIND = "classifier"
"""What the description of a classifier's folder calls it."""
_SAME_SPACE = {"latents", "posterior", "tile", "path"}
"""Options of codecs that do not change what a latent means."""


class Loaded(Protocol):
    """What is needed of a model that was loaded."""

    blueprint: Blueprint
    denoiser: Denoiser

    @property
    def hash(self) -> str:
        """Of its description and weights."""
        ...

    def on(self, device: str | torch.device, precision: Precision) -> Loaded:
        """The same where it samples."""
        ...


@dataclass(frozen=True)
class Help:
    """A network that helps a rule.

    Args:
        network: A denoiser or a classifier.
        sha256: Of its description and weights.
        labels: Those that it knows.
    """

    network: nn.Module
    sha256: str
    labels: tuple[str, ...]


def space_of(codec: Codec) -> str:
    """A name of the space of a codec, the same for two whose latents mean the same; 64 hexadecimal digits."""
    options = {name: value for name, value in codec.describe().items() if name not in _SAME_SPACE}
    whole = [options, digest(codec.weights()) if codec.learned else ""]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


class Helps:
    """What helps the rules that guide one model: found in the folders that they name, checked, and each loaded once.

    Args:
        steered: What the model is made of.
        denoiser: The model's; what helps stands where it does. A weaker model computes in its precision, a classifier in float32.
        load: Loads a model.
    """

    def __init__(self, steered: Blueprint, denoiser: Denoiser, load: Callable[[str], Loaded]) -> None:
        self.steered, self.denoiser, self.load = steered, denoiser, load
        self._found: dict[tuple[str, str], Help] = {}

    def pinned(self, rule: Guidance) -> Guidance:
        """The rule with the hash of what helps it, as recipes of samples hold it.

        Raises:
            ModelFolderError: There is nothing of the kind, it is damaged, or it has another hash than the rule says.
            IncompatibleParts: It does not go with the model.
            BadOption: The rule holds a network that stands in no folder.
        """
        return rule.holding(rule.held, self._help(rule).sha256) if _needs_help(rule) else rule

    def armed(self, rule: Guidance) -> Guidance:
        """The rule with the network that helps it; errors as in `pinned`."""
        return rule.holding(self._help(rule).network) if _needs_help(rule) else rule

    def labels(self, rule: Guidance) -> tuple[str, ...]:
        """The labels that what helps the rule knows; errors as in `pinned`."""
        return self._help(rule).labels if _needs_help(rule) else ()

    def memory(self) -> int:
        """Bytes of the weights of all that was loaded."""
        held = [weight for help in list(self._found.values()) for weight in help.network.parameters()]
        return sum(weight.numel() * weight.element_size() for weight in held)

    def _help(self, rule: Helped) -> Help:
        where = f"guidance.{rule.helper}"
        if isinstance(rule.held, nn.Module):
            raise BadOption(f"{where}: samples name what guided them, so give its folder, and not the network itself")
        if isinstance(rule, ClassifierGuidance) and rule.conditional and not self.steered.spec.class_names:
            raise BadOption("guidance.conditional: the model itself knows no labels: set guidance.conditional=false")
        key = rule.helper, str(rule.held)
        if key not in self._found:
            try:
                self._found[key] = self._weaker(key[1]) if rule.helper == "weak" else self._classifier(key[1])
            except (ModelFolderError, IncompatibleParts) as error:
                raise type(error)(f"{where}: {error}") from None
        found = self._found[key]
        if rule.sha256 and rule.sha256 != found.sha256:
            raise ModelFolderError(
                f"{where}: what stands at {rule.held} has hash {found.sha256[:12]}, and what is asked for has "
                f"{rule.sha256[:12]}: give the right folder; to replay a file, with --guide"
            )
        return found

    def _weaker(self, path: str) -> Help:
        model = self.load(path).on(next(self.denoiser.parameters()).device, precision_of(self.denoiser))
        own = model.blueprint
        if own.process != self.steered.process:
            told = f"{own.process!r}, and not {self.steered.process!r}"
            raise IncompatibleParts(f"a weaker model must have learned the same process; {path} has {told}")
        self._check_data(own.spec.shape, space_of(own.codec))
        self._check_labels(own.spec.class_names)
        if _reader(own, model.denoiser) != _reader(self.steered, self.denoiser):
            raise IncompatibleParts("it reads words by another encoder than the model, which reads them for both")
        if _keys(model.denoiser) != _keys(self.denoiser):
            asked = [", ".join(sorted(_keys(each))) or "nothing" for each in (model.denoiser, self.denoiser)]
            raise IncompatibleParts(f"its network is told {asked[0]}, and the model's {asked[1]}")
        return Help(model.denoiser, model.hash, own.spec.class_names)

    def _classifier(self, path: str) -> Help:
        classifier, described, sha256 = read_classifier(path)
        self._check_data(tuple(described["data"]), str(described["space"]))
        if self.steered.spec.class_names:
            self._check_labels(classifier.class_names)
        return Help(classifier.to(next(self.denoiser.parameters()).device), sha256, classifier.class_names)

    def _check_data(self, shape: tuple[int, ...], space: str) -> None:
        made = self.steered.spec.shape
        if shape != made:
            raise IncompatibleParts(f"it is for data of shape {shape}, and the model makes {made}")
        if space != space_of(self.steered.codec):
            raise IncompatibleParts("it works in another space than the model: it must be trained with the same codec")

    def _check_labels(self, labels: tuple[str, ...]) -> None:
        own = self.steered.spec.class_names
        if labels != own:
            raise IncompatibleParts(
                f"it knows the labels {', '.join(labels) or '(none)'}, and the model {', '.join(own) or '(none)'}"
            )


def _reader(blueprint: Blueprint, denoiser: Denoiser) -> tuple[str, str] | None:
    """A name of what reads prompts for a denoiser; None where nothing does."""
    network = preconditioned(denoiser).network
    if blueprint.text is None or not isinstance(network, TextNetwork):
        return None
    return json.dumps(blueprint.text.describe(), sort_keys=True), digest(network.text.state_dict())


def _keys(denoiser: Denoiser) -> set[str]:
    return set(getattr(preconditioned(denoiser).network, "condition_keys", ()))


def _needs_help(rule: Guidance) -> TypeGuard[Helped]:
    return isinstance(rule, Helped) and not rule.idle


def replaced_help(guidance: dict[str, Any], folder: str) -> dict[str, Any]:
    """The description of a rule with what helps it in another folder.

    Raises:
        BadOption: Nothing helps this rule.
    """
    kind = guidances[str(guidance["name"])]
    if not issubclass(kind, Helped):
        raise BadOption(f"no second model guided this file (its rule is {guidance['name']}): leave --guide out")
    return {**guidance, kind.helper: folder}


def check_place(folder: Path) -> None:
    """Refuses a folder in which a classifier would take the place of something else.

    Raises:
        BadOption: A model stands there, or a run, or files that are none of a classifier's.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MODEL_FILE).is_file() or read_description(folder).get("kind") != KIND:
        raise BadOption(f"{folder} holds something that is no classifier: choose another folder, with -o")


def write_classifier(
    folder: Path, classifier: NoisyClassifier, steered: Blueprint, trained: dict[str, Any] | None = None
) -> None:
    """Writes a classifier of noisy data; one that stands there is replaced at once and whole.

    Args:
        folder: Where.
        classifier: What was trained.
        steered: What the models are made of that it may steer: their data and their codec.
        trained: How, as plain values.

    Raises:
        OSError: The folder cannot be written.
    """
    values = {
        "kind": KIND,
        "classifier": classifier.describe(),
        "data": list(steered.spec.shape),
        "space": space_of(steered.codec),
        "trained": trained or {},
    }
    write_folder(folder, values, parts={"classifier": classifier.state_dict()})


def read_classifier(path: str | Path) -> tuple[NoisyClassifier, dict[str, Any], str]:
    """A classifier of noisy data, its description, and the hash of both.

    Raises:
        ModelFolderError: There is none, or it is damaged.
    """
    folder = model_place(path)
    described = read_description(folder)
    if described.get("kind") != KIND:
        raise ModelFolderError(f"{path} is no classifier of noisy data: `unnoise classifier MODEL` trains one")
    try:
        classifier = NoisyClassifier(**described["classifier"])
        classifier.load_state_dict(read_parts(folder, described)["classifier"])
        sha256 = hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()
    except (UnnoiseError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFolderError(f"the classifier at {path} cannot be built: {str(error).splitlines()[0]}") from None
    return classifier.eval(), described, sha256
