"""What a server lets its clients do."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadOption
from ..options import Checked, option

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServingSettings(Checked):
    """What a server lets its clients do.

    Args:
        keys: SHA-256 of the API keys that are accepted, by the names of their owners; everybody may ask where there are none.
    """

    hosts: tuple[str, ...] = option(LOCAL, help="names that clients may call this server by; * for any")
    most_bytes: int = option(4 * 2**20, help="bytes of the body of a request at most", low=1)
    rate: int = option(0, help="requests that one key may make a minute; 0 for any number", low=0)
    body_seconds: float = option(30.0, help="seconds in which a body must have come", low=0.001)
    grace: float = option(30.0, help="seconds that what is under way gets when the server shuts down", low=0.0)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False, metadata={"help": "API keys, hashed"})

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keys", dict(self.keys))

    def owner(self, key: str) -> str | None:
        """Whose key this is; None if nobody's. It takes the same time for every key, right or wrong."""
        told, found = hashed(key), None
        for name, known in self.keys.items():
            if hmac.compare_digest(told, known):
                found = name
        return found


def hashed(key: str) -> str:
    """What is kept of an API key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def read_keys(file: str | Path) -> dict[str, str]:
    """The API keys of a file, hashed, by their owners: one `NAME: KEY` a line; what follows a # is a comment.

    Raises:
        BadOption: A line is something else, or two keys have one name, or a key is too short to be a secret.
        OSError: The file cannot be read.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, colon, key = (part.strip() for part in text.partition(":"))
        if not colon or not re.fullmatch(r"[\w.-]{1,64}", name) or " " in key:
            raise BadOption(f"{file}, line {number}: expected NAME: KEY")
        if len(key) < 16:
            raise BadOption(f"{file}, line {number}: the key of {name} is shorter than 16 characters")
        if name in keys:
            raise BadOption(f"{file}, line {number}: {name} has a key already")
        keys[name] = hashed(key)
    if not keys:
        raise BadOption(f"{file} holds no keys: write one as NAME: KEY")
    return keys
