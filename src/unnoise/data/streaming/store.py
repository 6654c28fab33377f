"""Where shards lie: on this machine, or at any URL that fsspec knows; the latter are kept here as copies, or read through."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ...errors import DataError, MissingExtra
from ...files import cache_folder
from .._room import make_room

_MARKS = ("ETag", "etag", "md5Hash", "checksum", "version_id", "mtime", "LastModified", "created")
_CHUNK = 2**20
_ONE_AT_A_TIME = threading.Lock()
"""Two threads that make room at once, each for its own file, would remove more than they must."""


@dataclass(frozen=True)
class Shard:
    """One file of a data set.

    Args:
        name: Relative to where the data set stands.
        place: Its path on this machine, or its URL.
        size: In bytes.
        mark: Another one as soon as the file is: its time of change, or what the store says of its content.
    """

    name: str
    place: str
    size: int
    mark: str

    @property
    def remote(self) -> bool:
        """Whether it lies at a URL."""
        return is_url(self.place)

    @property
    def key(self) -> str:
        """64 hexadecimal digits, a name for what is made of this state of the file."""
        return hashlib.sha256(repr((self.place, self.size, self.mark)).encode()).hexdigest()


def is_url(path: str) -> bool:
    """Whether a path is a URL, such as s3://bucket/folder."""
    protocol, found, _ = path.partition("://")
    return bool(found) and protocol.replace("+", "").isalnum()


def find_shards(path: str, suffixes: Sequence[str]) -> list[Shard]:
    """The shards that a path means, in the order of their names.

    Args:
        path: A file, a pattern or a folder, on this machine or at a URL.
        suffixes: What their names end in, such as ".tar".

    Raises:
        DataError: There are none, or the store cannot be reached.
        MissingExtra: A package for this kind of URL is not installed.
    """
    found = _at_url(path, suffixes) if is_url(path) else _here(Path(path).expanduser(), suffixes)
    if not found:
        raise DataError(f"there are no {' or '.join(suffixes)} files at {path}: give a file, a pattern, or a folder")
    return found


def _here(path: Path, suffixes: Sequence[str]) -> list[Shard]:
    root = path if path.is_dir() else path.parent
    if path.is_dir():
        names = [str(file) for file in path.rglob("*") if file.name.endswith(tuple(suffixes))]
    else:
        names = [str(path)] if path.is_file() else glob.glob(str(path), recursive=True)
    files = sorted(Path(name) for name in names if Path(name).is_file() and not Path(name).name.startswith("."))
    if glob.has_magic(str(root)):
        root = Path(os.path.commonpath([file.parent for file in files])) if files else root
    return [local_shard(file, file.relative_to(root).as_posix()) for file in files]


def local_shard(file: Path, name: str) -> Shard:
    """A file of this machine as a shard.

    Raises:
        DataError: It is gone.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None
    return Shard(name, os.path.abspath(file), status.st_size, str(status.st_mtime_ns))


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise MissingExtra(f"data at {url}", "fsspec", "remote") from None
    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        raise DataError(f"{url} cannot be read: {error}") from None
    except ValueError as error:
        raise DataError(
            f"{url} cannot be read: {error}: give a URL that fsspec knows, such as s3://bucket/folder"
        ) from None


def _at_url(url: str, suffixes: Sequence[str]) -> list[Shard]:
    fs, path = _filesystem(url)
    try:
        names = fs.glob(path) if glob.has_magic(path) else fs.find(path)
        details = {name: fs.info(name) for name in sorted(names)}
    except Exception as error:  # each store has its own
        raise DataError(f"{url} cannot be read: {type(error).__name__}: {error}") from None
    files = {name: info for name, info in details.items() if info.get("type") == "file"}
    if not glob.has_magic(path):
        files = {name: info for name, info in files.items() if name.endswith(tuple(suffixes))}
    root = str(PurePosixPath(os.path.commonpath(list(files)))) if len(files) > 1 else ""
    return [
        Shard(
            name.removeprefix(root).lstrip("/") if root else PurePosixPath(name).name,
            fs.unstrip_protocol(name),
            int(info["size"]),
            next((str(info[key]) for key in _MARKS if info.get(key)), ""),
        )
        for name, info in files.items()
    ]


@dataclass(frozen=True)
class Store:
    """Opens shards.

    Args:
        most: Bytes of copies of remote shards that are kept on this machine, the oldest leaving first; 0 reads through.
    """

    most: int

    def open(self, shard: Shard) -> IO[bytes]:
        """A shard as a file that can be read anywhere.

        Raises:
            DataError: It is gone, or is not the one any more that was listed.
        """
        if not shard.remote:
            return self._opened(shard, Path(shard.place))
        fs, path = _filesystem(shard.place)
        try:
            if self.most:
                return self._copy(shard, fs, path)
            return fs.open(path, "rb")  # type: ignore[no-any-return]
        except DataError:
            raise
        except Exception as error:  # each store has its own
            raise DataError(f"{shard.place} cannot be read: {type(error).__name__}: {error}") from None

    def _opened(self, shard: Shard, path: Path) -> IO[bytes]:
        now = local_shard(path, shard.name)
        if (now.size, now.mark) != (shard.size, shard.mark):
            raise DataError(f"the shard {shard.name} has changed since the data was opened: {path}; start again")
        try:
            return path.open("rb")
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None

    def _copy(self, shard: Shard, fs: Any, path: str) -> IO[bytes]:
        """The copy of a remote shard, open: whoever has it open can read it, though others make room meanwhile."""
        folder = cache_folder() / "shards"
        copy = folder / shard.key
        with suppress(FileNotFoundError):
            opened = copy.open("rb")
            with suppress(OSError):
                os.utime(copy)  # it was used
            return opened
        folder.mkdir(parents=True, exist_ok=True)
        make_room(folder, self.most - shard.size)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="making-", delete=False) as file:
            try:
                with fs.open(path, "rb") as source:
                    shutil.copyfileobj(source, file, _CHUNK)
                file.flush()  # before anybody sees it
                if file.tell() != shard.size:
                    raise DataError(f"{shard.place} has {file.tell()} bytes, and {shard.size} were listed: start again")
                opened = Path(file.name).open("rb")
                os.replace(file.name, copy)
            finally:
                Path(file.name).unlink(missing_ok=True)
        with _ONE_AT_A_TIME:
            make_room(folder, self.most, keep=copy)  # again, since others may have copied meanwhile
        return opened


def digest(file: IO[bytes], told: Callable[[int], None] = lambda done: None) -> str:
    """What a file holds, in 32 hexadecimal digits.

    Args:
        file: Open at its beginning.
        told: Called with the bytes that are read so far.
    """
    hashed, done = hashlib.blake2b(digest_size=16), 0
    for chunk in _chunks(file):
        hashed.update(chunk)
        done += len(chunk)
        told(done)
    return hashed.hexdigest()


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
