"""`unnoise serve`: models behind HTTP."""

from __future__ import annotations

import logging
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .places import DEVICE, PRECISION
from .progress import say

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..serving.settings import ServingSettings

MODELS = "Folders of models or runs, or NAME=PATH; and options such as `engine.active=64` or `serving.rate=60`."
RESULTS = "Where what is made is kept."


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

    for module in ("fastapi", "uvicorn"):
        try:
            __import__(module)
        except ImportError:
            raise MissingExtra("the server", module, "serve") from None


def prepare(
    texts: list[str], results: Path, memory: float | None, device: str, precision: str, keys: Path | None,
    host: str, allowed: list[str] | None, strict: bool,
) -> tuple[Engine, ServingSettings]:  # fmt: skip
    """The engine and what clients may do, of what was typed.

    Raises:
        UnnoiseError: Something is wrong with it.
    """
    import_server()
    from ..engine.engine import Engine
    from ..engine.results import Results
    from ..engine.settings import EngineSettings
    from ..engine.shelf import Shelf
    from ..errors import BadOption
    from ..options import build
    from ..serving.settings import LOCAL, ServingSettings

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
    shelf = Shelf(models, memory=size, device=device, precision=precision)  # type: ignore[arg-type]
    return Engine(shelf, Results(results), limits), settings


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
    memory: Annotated[
        float | None, typer.Option(help="Gigabytes of weights at once; half of the memory by default.")
    ] = None,
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

    - `curl localhost:8000/v1/images/generations -H 'content-type: application/json' -d '{"label": "3"}'`
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    engine, settings = prepare(models, results, memory, device, precision, keys, host, allow_host, strict)
    from ..serving.app import create
    from ..serving.running import listening, server_of

    with engine, listening(host, port) as sock:
        address = f"http://{'[' + host + ']' if ':' in host else host}:{sock.getsockname()[1]}"
        names = ", ".join(engine.shelf.names())
        told = f"{names} at {address} (see {address}/docs)"
        server = server_of(create(engine, settings), engine, settings, lambda: say(told))
        for number in (signal.SIGINT, signal.SIGTERM):  # which the server raises once more when it has stopped
            signal.signal(number, lambda number, frame: None)
        server.run(sockets=[sock])
