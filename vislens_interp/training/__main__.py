"""``python -m vislens_interp.training NAME --data DIR --out DIR``: train a network of the zoo, or one's own backend."""

import argparse
import importlib
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from vislens_interp.files import write_atomically, write_text

RECIPES = ("cifar10_convnet", "cifar10_cvae", "cifar10_ddpm")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Train one recipe, or go on with it where an earlier call stopped.

    Args:
        argv: The arguments; None takes the process's own.

    Returns:
        0 when weights were written, 1 when the recipe could not run.
    """
    parser = _Parser(
        prog="python -m vislens_interp.training",
        description="Train a network of the zoo. An interrupted run goes on where it was when called again.",
    )
    parser.add_argument("name", metavar="NAME", help=f"the recipe: {', '.join(RECIPES)}")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.zip and test.zip, or train/, test/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights, the history, the checkpoint")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes; call again to go on")
    parser.add_argument("--steps", type=int, help="optimiser steps of the whole run; default: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grayscale", action="store_true", help="grey images, as in the paper (cifar10_convnet)")
    args = parser.parse_args(argv)

    if args.name not in RECIPES:
        parser.error(f"recipe {args.name!r} is unknown; expected one of {', '.join(RECIPES)}.")
    if args.steps is not None and args.steps < 1:
        parser.error(f"--steps {args.steps} must be at least 1.")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: no CUDA device is available; use --device cpu.")
    recipe = importlib.import_module(f"vislens_interp.training.{args.name}")
    options = {"device": args.device, "seed": args.seed, "minutes": args.minutes}
    options |= {"steps": args.steps} if args.steps is not None else {}
    if args.grayscale:
        if "grayscale" not in inspect.signature(recipe.run).parameters:
            parser.error(f"--grayscale: recipe {args.name!r} has colour images only.")
        options["grayscale"] = True

    folder = args.out / "checkpoints" / args.name
    # What makes a run another one; a device and a time limit do not.
    identity = {key: value for key, value in options.items() if key not in ("device", "minutes")}
    try:
        _check_same_run(folder, identity)
        model, progress = recipe.run(args.data, folder, **options)
        # A recipe whose network is loaded from more than a file of weights says how it is saved.
        save = getattr(recipe, "save", _save)
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
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    print(f"{path}: {progress.step} steps in {progress.seconds / 60:.1f} minutes")
    return 0


def _check_same_run(folder: Path, identity: dict[str, object]) -> None:
    said = folder / "options.json"
    if said.is_file() and (folder / "checkpoint.safetensors").is_file():
        before = json.loads(said.read_text(encoding="utf-8"))
        if before != identity:
            raise ValueError(
                f"checkpoint in {str(folder)!r} belongs to a run with {before}, not {identity}; pass those options, or "
                "another --out."
            )
    write_text(said, json.dumps(identity))


def _save(model: nn.Module, path: Path) -> Path:
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    return write_atomically(path.with_suffix(".safetensors"), lambda temporary: save_file(weights, temporary))


if __name__ == "__main__":
    sys.exit(main())
