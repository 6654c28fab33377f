"""`python -m unnoise`: the command line."""

from .cli.main import run

run()
