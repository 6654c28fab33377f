"""`unnoise demo`: everything at once, on one page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .progress import StopSignals, bar, console


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder that gets the runs and the page.")] = Path(
        "demo"
    ),
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Show the page in the browser.")] = False,
) -> None:
    """Trains two small models, samples from them, and tells on one page what a diffusion model is.

    It takes a few minutes on two cores. The same command again goes on where it stopped, and only writes the page anew
    where everything is trained.

    - `unnoise demo`

    - `unnoise demo --out /tmp/demo --open`
    """
    from ..recipes.demo import make_demo

    tasks: dict[str, int] = {}
    done_before: set[str] = set()
    with StopSignals() as stop, bar() as progress:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, facts="")
                if not console.is_terminal:
                    console.print(f"{what} ...", highlight=False)
            progress.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]
            if done >= total and what not in done_before:
                done_before.add(what)
                progress.update(tasks[what], visible=False)  # type: ignore[arg-type]
                console.print(f"{what}: done", highlight=False)

        page = make_demo(out, report=show, stop=stop)
    if page is None:
        console.print("stopped and saved; the same command goes on from there", highlight=False)
        sys.exit(128 + (stop.received or 0))
    typer.echo(page)
    if open_page:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
