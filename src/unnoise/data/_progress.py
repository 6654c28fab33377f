"""How whoever reads data tells how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, how many there are
