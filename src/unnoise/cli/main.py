"""The command `unnoise`: its subcommands, and how errors reach a person."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from .adherence import adherence
from .check import check_app
from .classifier import classifier
from .compact import compact
from .compare import compare, grid
from .demo import demo
from .diagnose import diagnose
from .doctor import doctor
from .draw import draw_app
from .ema import ema
from .encode import encode
from .evaluate import evaluate
from .look import data, info, list_parts
from .lora import lora_app
from .nll import nll
from .pack import pack
from .plan import plan
from .progress import StoppedInALine
from .reconstruct import reconstruct
from .retrieve import retrieve
from .sample import replay, sample
from .serve import serve
from .studio import studio
from .train import train
from .tune import tune

app = typer.Typer(
    name="unnoise",
    cls=StoppedInALine,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"unnoise {version('unnoise')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Diffusion models, from noise to data: train one, sample from it, look at the result.

    `unnoise train digits` then `unnoise sample runs/digits -n 16 --label 3 -o threes.png`
    """


app.command("train")(train)
app.command("sample")(sample)
app.command("replay")(replay)
app.command("serve")(serve)
app.command("studio")(studio)
app.command("tune")(tune)
app.command("classifier")(classifier)
app.command("ema")(ema)
app.command("plan")(plan)
app.command("doctor")(doctor)
app.command("diagnose")(diagnose)
app.command("info")(info)
app.command("data")(data)
app.command("pack")(pack)
app.command("compact")(compact)
app.command("encode")(encode)
app.command("reconstruct")(reconstruct)
app.command("retrieve")(retrieve)
app.command("nll")(nll)
app.command("evaluate")(evaluate)
app.command("adherence")(adherence)
app.command("compare")(compare)
app.command("grid")(grid)
app.command("list")(list_parts)
app.command("demo")(demo)
app.add_typer(draw_app, name="draw")
app.add_typer(check_app, name="check")
app.add_typer(lora_app, name="lora")


def run() -> None:
    """The entry point. What a user can mend is one line on stderr, and exit code 2."""
    # Before torch is imported: its waiting threads otherwise spin, which on a busy machine costs up to ten times the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ..errors import UnnoiseError

    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UnnoiseError, OSError) as error:
        _tell(f"unnoise: {one_line(error)}")
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _tell("unnoise: the memory does not suffice: take a smaller batch or a smaller network")
        sys.exit(2)


def _tell(line: str) -> None:
    """Says a line on stderr; one that several processes of torchrun come to say is said once."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from ..training.parallel import first_to_say

        if not first_to_say(line):
            return
    print(line, file=sys.stderr)


def one_line(error: BaseException) -> str:
    """An error in one line: for the operating system's, what failed and on which file."""
    if isinstance(error, OSError) and error.strerror:
        full, forbidden = ": free some space, or write elsewhere", ": choose a place that you may write to"
        hints = {
            errno.ENOSPC: full,
            errno.EDQUOT: full,
            errno.EFBIG: full,
            errno.EACCES: forbidden,
            errno.EROFS: forbidden,
        }
        hint = hints.get(error.errno or 0, "")
        return (
            f"{error.strerror.lower()}: {error.filename}{hint}" if error.filename else f"{error.strerror.lower()}{hint}"
        )
    return " ".join(str(error).split())
