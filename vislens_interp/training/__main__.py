"""``python -m vislens_interp.training NAME --data DIR --out DIR``: train a network of the zoo, or one's own backend."""

import argparse
import importlib
import inspect
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from vislens_interp.files import check_writable, write_text
from vislens_interp.models import check_device
from vislens_interp.random_state import check_seed
from vislens_interp.streams import Stopped, stopping_cleanly, usable_streams
from vislens_interp.training.card import write_card
from vislens_interp.training.loop import Progress, save_weights
from vislens_interp.training.shards import restore, write_shards

RECIPES = (
    "cifar10_convnet",
    "cifar10_cvae",
    "cifar10_ddpm",
    "decoder",
    "map_generator",
    "reference",
    "vit_tiny64",
    "simclr_resnet50",
    "words",
)
DATA_HELP = (
    "folder with train.zip and test.zip, or train/, test/; the recipes at 64 px also take val, train_0.zip and on, and "
    "a folder of images alone, of which every tenth is held out"
)
STOPPED = "\n{}; the same command goes on from the last checkpoint."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Train one recipe, or go on with it where an earlier call stopped.

    Args:
        argv: The arguments; None takes the process's own.

    Returns:
        0 when weights were written, 1 when the recipe could not run, 130 after Ctrl-C and 143 after SIGTERM. Wrong
        usage ends the process with 2.
    """
    with usable_streams(), stopping_cleanly(STOPPED):
        args, recipe, options = _parsed(argv)
        try:
            path, progress = _train(args, recipe, options)
        except ImportError as error:
            print(
                f"error: recipe {args.name!r}: {error}. Install it: pip install 'vislens_interp[train]'",
                file=sys.stderr,
            )
            return 1
        except (OSError, ValueError, MemoryError) as error:
            print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as stop:
            stopped = stop if isinstance(stop, Stopped) else Stopped()
            print(STOPPED.format(stopped.word), file=sys.stderr, flush=True)
            return stopped.code
        with suppress(OSError, ValueError):  # nobody listens, and the weights are there
            print(f"{path}: {progress.step} steps in {progress.seconds / 60:.1f} minutes", flush=True)
    return 0


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m vislens_interp.training",
        description="Train a network of the zoo. An interrupted run goes on where it was when called again.",
    )
    parser.add_argument("name", metavar="NAME", help=f"the recipe: {', '.join(RECIPES)}")
    parser.add_argument("--data", type=Path, required=True, help=DATA_HELP)
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights, the history, the checkpoint")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes; call again to go on")
    parser.add_argument("--steps", type=int, help="optimiser steps of the whole run; default: the recipe's")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="another number for one of the recipe's settings, such as batch_size=64; may be repeated",
    )
    parser.add_argument("--seed", type=int, help="of weights, order and noise; default: 0")
    parser.add_argument("--grayscale", action="store_true", help="grey images, as in the paper (cifar10_convnet)")
    parser.add_argument("--shard-mib", type=float, help="also write the checkpoint in parts of at most so many MiB")
    parser.add_argument("--shard-half", action="store_true", help="those parts in half precision, half the size")
    parser.add_argument("--terms", help="under which terms the images are, for the model card")
    return parser


def _parsed(argv: Sequence[str] | None) -> tuple[argparse.Namespace, ModuleType, dict[str, Any]]:
    """The arguments, the recipe, and what it is called with; wrong usage ends the process."""
    parser = _parser()
    args = parser.parse_args(argv)

    if args.name not in RECIPES:
        parser.error(f"recipe {args.name!r} is unknown; expected one of {', '.join(RECIPES)}.")
    if args.steps is not None and args.steps < 1:
        parser.error(f"--steps {args.steps} must be at least 1.")
    if args.minutes is not None and not 0 < args.minutes < math.inf:
        parser.error(f"--minutes {args.minutes:g} must be a number above 0; leave it out for the whole run.")
    if args.shard_mib is not None and not 0 < args.shard_mib < math.inf:
        parser.error(f"--shard-mib {args.shard_mib:g} must be above 0: MiB a part; 16 is usual.")
    if args.shard_half and args.shard_mib is None:
        parser.error("--shard-half is of the parts that --shard-mib makes; expected both. Add --shard-mib 16.")
    try:
        check_device(args.device)
        check_seed(args.seed or 0, "--seed")
    except ValueError as error:
        parser.error(str(error))
    recipe = importlib.import_module(f"vislens_interp.training.{args.name}")
    parameters = inspect.signature(recipe.run).parameters
    options: dict[str, Any] = {"device": args.device}
    if "seed" in parameters:
        options["seed"] = args.seed or 0
    elif args.seed is not None:
        parser.error(f"--seed {args.seed}: recipe {args.name!r} draws nothing at random. Leave it out.")
    if "minutes" in parameters:
        options["minutes"] = args.minutes
    if args.steps is not None:
        if "steps" not in parameters:
            parser.error(f"--steps {args.steps}: recipe {args.name!r} takes no optimiser steps. Leave it out.")
        options["steps"] = args.steps
    for option, value in (("--minutes", args.minutes), ("--shard-mib", args.shard_mib)):
        if value is not None and "steps" not in parameters:
            parser.error(f"{option} {value:g}: recipe {args.name!r} keeps no checkpoint. Leave it out.")
    if args.terms is not None and not hasattr(recipe, "ABOUT"):
        parser.error(f"--terms: recipe {args.name!r} writes no model card. Leave it out.")
    for setting in args.set:
        try:
            options |= _setting(setting, _numbers(recipe))
        except ValueError as error:
            parser.error(str(error))
    if args.grayscale:
        if "grayscale" not in parameters:
            parser.error(f"--grayscale: recipe {args.name!r} has colour images only.")
        options["grayscale"] = True
    return args, recipe, options


def _numbers(recipe: ModuleType) -> dict[str, int | float]:
    """The recipe's own numbers, by the names of its settings."""
    defaults = {name: known.default for name, known in inspect.signature(recipe.run).parameters.items()}
    return {name: value for name, value in defaults.items() if type(value) in (int, float)}


def _train(args: argparse.Namespace, recipe: ModuleType, options: Mapping[str, object]) -> tuple[Path, Progress]:
    """Run the recipe, and write its weights, history and card."""
    folder = args.out / "checkpoints" / args.name
    checkpoint = folder / "checkpoint.safetensors"
    # What makes a run another one; a device and a time limit do not.
    identity = {key: value for key, value in options.items() if key not in ("device", "minutes")}
    check_writable(checkpoint)
    restore(checkpoint)
    _check_same_run(folder, identity)
    model, progress = recipe.run(args.data, folder, **options)
    # A recipe whose network is loaded from more than a file of weights says how it is saved.
    save = getattr(recipe, "save", save_weights)
    path = save(model, args.out / args.name)
    record = {
        "recipe": args.name,
        "options": options,
        "torch": torch.__version__,
        "step": progress.step,
        "seconds": progress.seconds,
        "history": progress.history,
    }
    write_text(args.out / f"{args.name}.json", json.dumps(record, indent=1))
    if hasattr(recipe, "ABOUT"):
        write_card(
            args.out / f"{args.name}.md",
            about=recipe.ABOUT,
            data=progress.data,
            terms=args.terms,
            parameters=sum(weight.numel() for weight in getattr(model, "parameters", list)()),
            options=_numbers(recipe) | {key: value for key, value in options.items() if type(value) in (int, float)},
            progress=progress,
            device=args.device,
        )
    if args.shard_mib is not None:  # last, so that nothing is lost where a part would be too small
        write_shards(checkpoint, args.shard_mib, half=args.shard_half)
    return path, progress


def _setting(said: str, numbers: dict[str, int | float]) -> dict[str, int | float]:
    """``NAME=NUMBER`` as what the recipe's ``run`` takes, in the type of its own number."""
    numbers = {name: value for name, value in numbers.items() if name != "seed"}  # which has an option of its own
    name, _, value = said.partition("=")
    if name not in numbers:
        raise ValueError(f"--set {said}: the recipe has no number {name!r}; expected one of {', '.join(numbers)}.")
    kind = int if type(numbers[name]) is int else float
    lowest = 0 if name.startswith("w_") else 1 if kind is int else math.ulp(0.0)
    try:
        number = kind(value)
    except ValueError:
        raise ValueError(
            f"--set {said}: {value!r} is no {kind.__name__}; expected one, as {name}={numbers[name]}."
        ) from None
    if not lowest <= number < math.inf:
        limit = "at least 1" if kind is int else "0 or more" if lowest == 0 else "above 0"
        raise ValueError(f"--set {said}: {name} must be {limit}, and finite; {numbers[name]} is the recipe's own.")
    return {name: number}


def _check_same_run(folder: Path, identity: dict[str, object]) -> None:
    said = folder / "options.json"
    if said.is_file() and (folder / "checkpoint.safetensors").is_file():
        try:
            before = json.loads(said.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{str(said)!r} is truncated or no JSON ({error}); expected the options of the run. Delete it if the "
                "checkpoint beside it is of this run, which it is compared with."
            ) from error
        if before != identity:
            raise ValueError(
                f"checkpoint in {str(folder)!r} belongs to a run with {before}, not {identity}; pass those options, or "
                "another --out."
            )
    write_text(said, json.dumps(identity))


if __name__ == "__main__":
    sys.exit(main())
