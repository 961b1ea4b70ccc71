"""The command line of a benchmark: one parser, and the arguments that several of them have."""

import argparse
from pathlib import Path
from typing import Any

ARGUMENTS: dict[str, dict[str, Any]] = {
    "--data": {"type": Path, "help": "the folder of real files (docs/data.md)"},
    "--out": {"type": Path, "required": True, "help": "folder of cells and results; a run goes on there"},
    "--weights": {"type": Path, "help": "folder of networks that the recipes of docs/training.md wrote"},
    "--device": {"default": "cpu", "help": "cpu (default), cuda, ..."},
    "--seed": {"type": int, "default": 0},
    "--threads": {"type": int, "default": 1},
    "--share": {"type": lambda text: share(text), "default": (0, 1), "help": "I/N: every N-th part, for N processes"},
    "--quick": {"action": "store_true", "help": "everything tiny: shows that it runs, measures nothing"},
}


def share(text: str) -> tuple[int, int]:
    """``"0/2"`` as (0, 2): the first of two processes."""
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise argparse.ArgumentTypeError(f"{text}: expected I/N with I from 0 to N - 1, such as 0/2")
    return int(first), int(count)


def parser(about: str | None, *names: str, parts: tuple[str, ...] = (), needed: str = "") -> argparse.ArgumentParser:
    """A parser that knows some of :data:`ARGUMENTS`.

    Args:
        about: The module's docstring.
        names: Which of them.
        parts: Choices of a first word.
        needed: Of the names, what has to be given.
    """
    epilog = "README.md beside the module says what is measured, and how to run it."
    formatter = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=about, epilog=epilog, formatter_class=formatter)
    if parts:
        made.add_argument("part", choices=parts)
    for name in names:
        made.add_argument(name, **ARGUMENTS[name] | ({"required": True} if name in needed.split() else {}))
    return made
