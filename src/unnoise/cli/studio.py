"""`unnoise studio`: the page on which models are watched, steered and trained."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Annotated

import typer

from .places import DEVICE, PRECISION
from .progress import say
from .serve import MEMORY, MODELS, RESULTS, say_stopping, set_up


def studio(
    models: Annotated[
        list[str] | None,
        typer.Argument(help=f"{MODELS} Those of --runs and --models by default, or those that come with unnoise."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for all of the machine's addresses.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes one that is free.")] = 8080,
    runs: Annotated[Path, typer.Option(help="Where run folders stand, and new ones are made.")] = Path("runs"),
    dropped: Annotated[
        Path, typer.Option("--models", help="Where models stand, and those go that are dropped in.")
    ] = Path("models"),
    data: Annotated[
        list[str] | None, typer.Option(help="A folder that data may be read from, beside this one; may be repeated.")
    ] = None,
    results: Annotated[Path, typer.Option(help=RESULTS)] = Path("results"),
    memory: Annotated[float | None, typer.Option(help=MEMORY)] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name that browsers may call it by.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "auto",
) -> None:
    """Opens a page with six rooms: Noise, Denoise, Steer, Train, Gallery and Models.

    - `unnoise studio`

    - `unnoise studio runs/digits emoji=runs/emoji-large --port 9000 --no-browser`

    The same address serves what `unnoise serve` does. Ctrl-C pauses trainings that were begun on the page.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.ERROR)
    setup = set_up(models or [], results, memory, device, precision, None, host, allow_host, False)
    engine, settings = setup.begin(), setup.serving
    from ..serving.app import create
    from ..serving.running import listening, server_of
    from ..shipped import by_name
    from ..studio.pages import page_routes, room_routes, shelved

    if not setup.models:
        for name, path in (shelved(runs, dropped) or by_name()).items():
            engine.shelf.add(path, name)
    rooms = room_routes(engine, runs=runs, models=dropped, data=data or ())
    with engine, listening(host, port) as sock:
        named = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else host
        address = f"http://{'[' + named + ']' if ':' in named else named}:{sock.getsockname()[1]}"

        def ready() -> None:
            say(f"the studio is at {address} (Ctrl-C ends it)")
            if browser:
                _open(address)

        server = server_of(
            create(engine, settings, routers=[rooms], open_routers=[page_routes()]), engine, settings, ready,
            say_stopping(settings.grace),
        )  # fmt: skip
        for number in (signal.SIGINT, signal.SIGTERM):  # which the server raises once more when it has stopped
            signal.signal(number, lambda number, frame: None)
        server.run(sockets=[sock])


def _open(address: str) -> None:
    """Opens a page, in a thread of its own since some browsers keep their caller waiting."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
