"""`unnoise serve`: models behind HTTP."""

from __future__ import annotations

import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .places import DEVICE, PRECISION
from .progress import say

if TYPE_CHECKING:
    from ..serving.front import Front
    from ..serving.setup import Setup

MODELS = "Folders of models or runs, or NAME=PATH; and options such as `engine.active=64` or `serving.rate=60`."
RESULTS = "Where what is made is kept."
MEMORY = "Gigabytes of weights at once; half of the memory by default."
REPLICAS = "Processes that share out the requests, by Ray Serve; one a GPU, or a few processors each."


def split(texts: list[str]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """The models by name, and the options by what they belong to, of what was typed.

    Raises:
        BadOption: Two models have one name, or an option is none.
    """
    from ..errors import BadOption
    from ..recipes.recipe import override, parse_override

    models: dict[str, str] = {}
    options: dict[str, Any] = {"engine": {}, "serving": {}}
    for text in texts:
        if re.match(r"(engine|serving)\.\w+=", text):
            override(options, *parse_override(text))
            continue
        name, equals, path = text.partition("=")
        if not equals:
            name, path = Path(text).resolve().name, text
        if name in models and models[name] != path:
            raise BadOption(f"two models would be called {name!r}: {models[name]} and {path}; say NAME=PATH for one")
        models[name] = path
    return models, options


def keys_of(file: Path | None) -> dict[str, str]:
    """The API keys, hashed, by their owners: of a file, or of $UNNOISE_API_KEY.

    Raises:
        BadOption: The file holds something else.
    """
    import os

    from ..serving.settings import hashed, read_keys

    if file is not None:
        return read_keys(file)
    own = os.environ.get("UNNOISE_API_KEY", "")
    return {"default": hashed(own)} if own else {}


def import_server() -> None:
    """Makes sure that the server can be had.

    Raises:
        MissingExtra: What it stands on is not installed.
    """
    from ..errors import MissingExtra

    for module in ("fastapi", "fastapi_offline", "greenlet", "python_multipart", "uvicorn"):
        try:
            __import__(module)
        except ImportError:
            raise MissingExtra("the server", module, "serve") from None


def set_up(
    texts: list[str], results: Path, memory: float | None, device: str, precision: str, keys: Path | None,
    host: str, allowed: list[str] | None, strict: bool,
) -> Setup:  # fmt: skip
    """What the server is made of, of what was typed.

    Raises:
        UnnoiseError: Something is wrong with it.
    """
    import_server()
    from ..engine.settings import EngineSettings
    from ..errors import BadOption
    from ..options import build
    from ..serving.settings import LOCAL, ServingSettings
    from ..serving.setup import Setup

    models, options = split(texts)
    known = keys_of(keys)
    if host not in LOCAL and not known:
        say(f"note: everybody who reaches {host} may ask: give API keys with --keys")
    hosts = ("*",) if host not in LOCAL and not allowed else (*LOCAL, *(allowed or ()))
    settings = build(ServingSettings, {"hosts": hosts, "keys": known, **options["serving"]}, "serving")
    limits = build(EngineSettings, {"strict": strict, **options["engine"]}, "engine")
    if memory is not None and not memory > 0:
        raise BadOption(f"--memory: expected gigabytes above 0, got {memory}")
    size = None if memory is None else int(memory * 1e9)
    return Setup(models, results, size, device, precision, limits, settings)  # type: ignore[arg-type]


def say_stopping(grace: float) -> Callable[[], None]:
    """Says that the server stops, and how long that may take.

    Args:
        grace: Seconds that requests under way have.
    """
    return lambda: say(
        f"stopping after the requests under way, at most {grace:g} s; Ctrl-C again stops at once and gives them up"
    )


def serve(
    models: Annotated[list[str], typer.Argument(help=MODELS)],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for all of the machine's addresses.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes one that is free.")] = 8000,
    keys: Annotated[
        Path | None, typer.Option(help="A file of API keys, NAME: KEY; $UNNOISE_API_KEY without; else none is needed.")
    ] = None,
    results: Annotated[Path, typer.Option(help=RESULTS)] = Path("results"),
    replicas: Annotated[int, typer.Option(help=REPLICAS)] = 1,
    memory: Annotated[float | None, typer.Option(help=MEMORY)] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Never share network calls: the bytes of `unnoise sample`.")
    ] = False,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name that clients may call it by.")] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "auto",
) -> None:
    """Serves models over HTTP: OpenAI's images, jobs of its own with live events, and the web UI's routes.

    - `unnoise serve runs/digits`

    - `unnoise serve runs/digits emoji=runs/emoji-large --port 9000 --keys keys.txt serving.rate=60`

    - `unnoise serve runs/digits --replicas 4`

    - `curl localhost:8000/v1/images/generations -H 'content-type: application/json' -d '{"label": "3"}'`
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    setup = set_up(models, results, memory, device, precision, keys, host, allow_host, strict)
    from ..errors import BadOption
    from ..serving.app import create
    from ..serving.running import listening, server_of

    if replicas < 1:
        raise BadOption(f"--replicas: must be at least 1, got {replicas}")
    with listening(host, port) as sock, ExitStack() as stack:
        address = f"http://{'[' + host + ']' if ':' in host else host}:{sock.getsockname()[1]}"
        told = f"{', '.join(sorted(setup.models))} at {address} (see {address}/docs)"
        ready, stopping = (lambda: say(told)), say_stopping(setup.serving.grace)
        if replicas > 1:
            front = stack.enter_context(_several(setup, replicas))
            server = server_of(front, front, setup.serving, ready, stopping)
        else:
            engine = stack.enter_context(setup.begin())
            server = server_of(create(engine, setup.serving), engine, setup.serving, ready, stopping)
        for number in (signal.SIGINT, signal.SIGTERM):  # which the server raises once more when it has stopped
            signal.signal(number, lambda number, frame: None)
        server.run(sockets=[sock])


@contextmanager
def _several(setup: Setup, count: int) -> Iterator[Front]:
    """What stands before as many replicas, which are there for as long as this lasts."""
    from ..engine.results import Results
    from ..serving.front import Front
    from ..serving.members import Member
    from ..serving.replicas import import_serve, replicas

    setup.shelf()  # what is wrong with a model is said before anything is started
    import_serve()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what was begun is ended then, too
    say(f"starting {count} replicas")
    with replicas(setup, count) as lines:
        yield Front([Member(k, line) for k, line in enumerate(lines)], Results(setup.results), setup.serving)
