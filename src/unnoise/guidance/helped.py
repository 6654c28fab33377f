"""Rules that a second network helps: its folder by name, as recipes hold it, or the network itself."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

from torch import nn

from ..errors import BadOption
from .base import Guidance


class Helped(Guidance):
    """A base of rules that hold a network beside the one that they steer.

    The option that `helper` names is a folder, or the network itself. A folder is a promise: `holding` makes the rule that can
    be asked. Samples carry the folder and the hash of what stood in it, so that they are only made again with the same help.

    Raises:
        BadOption: The rule changes something, and nothing helps it.
    """

    helper: ClassVar[str]
    """The option that holds the network."""
    from_null = False
    sha256: str
    """The hash that the network must have; any if empty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.idle and self.held in (None, ""):
            raise BadOption(f"{self.helper}: must be given, as a folder, for a rule that changes something")

    @property
    def idle(self) -> bool:
        """Whether it changes nothing, with the options that it has."""
        return all(getattr(self, name) == value for name, value in self.neutral.items())

    @property
    def held(self) -> Any:
        """The folder, the network, or None."""
        return getattr(self, self.helper)

    def holding(self, network: nn.Module | str, sha256: str | None = None) -> Self:
        """The same rule with another network, or folder.

        Args:
            network: The network, or where it stands.
            sha256: Its hash; as before if left out.
        """
        changes = {self.helper: network, "sha256": self.sha256 if sha256 is None else sha256}
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def network(self) -> Any:
        """What helps.

        Raises:
            BadOption: It is only named.
        """
        if isinstance(self.held, nn.Module):
            return self.held
        raise BadOption(
            f"{self.helper}: {self.held!r} is only a name: sample through a model, which loads it, or give the network itself"
        )
