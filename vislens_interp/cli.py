"""``vislens``: the library from a shell. Progress and warnings go to stderr, results to stdout."""

import argparse
import os
import sys
import traceback
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislens_interp.backends.base import DEFAULT_BACKEND, get_backend
from vislens_interp.methods import METHODS

if TYPE_CHECKING:  # nothing heavy here: `vislens --help` must answer at once
    import torch
    from torch import nn

    from vislens_interp.lens import FeatureLens
    from vislens_interp.results.result import LensResult

DEMOS = {"cifar10": ("zoo:cifar10_convnet", "conv3", 16), "embedded": ("zoo:efficientnet_lite2", "blocks.4", 17)}
"""Backend to the model, the layer and the unit that ``vislens demo`` looks at."""
DEMO_EVERY = {"cifar10": 1, "embedded": 3}
"""The demo reads one of so many reference images, for a large network takes a tenth of a second for each."""
CACHED = ("embedded", "sd15")
"""Backends that embed images, which `--cache` can remember."""
DEMO_IMAGES = 8
ALPHAS = (0.5,)
COMPARED = ("edit", "ridge_pattern", "difference_of_means", "shuffled", "unedited")
"""Beside α = 0 and the weight of the pictures themselves, which cost nothing more."""
_EXPECTED = (ValueError, KeyError, TypeError, OSError)
"""What our own checks raise, and what the file system does: one line says it all."""


def main(argv: list[str] | None = None) -> int:
    """Run ``vislens``.

    Args:
        argv: Arguments after the command's name; None takes those of the process.

    Returns:
        Exit code: 0 success, 1 an error that was said in one line, 2 wrong usage, 130 interrupted.
    """
    parser = _parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:  # argparse's way of ending after --help (0) and wrong usage (2)
        return stop.code if isinstance(stop.code, int) else 2
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            args.run(args)
            sys.stdout.flush()  # here, where a closed pipe can still be caught
        except KeyboardInterrupt:
            print("vislens: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except _EXPECTED as error:
            if args.debug:
                traceback.print_exc()
            print(f"vislens: error: {_one_line(error)}", file=sys.stderr)
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vislens", description="See the natural images that a unit of a vision model prefers."
    )
    parser.add_argument("--version", action="version", version=f"vislens_interp {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seed", type=int, default=0, help="seed of the fit and of random weights (default: 0)")
    common.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu); never changed silently")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")

    demo = commands.add_parser(
        "demo",
        parents=[common],
        help="one unit of a shipped network, end to end, without any files",
        description="One unit of a shipped network, end to end. Needs no files: photographs come with the package.",
    )
    demo.add_argument("--out", required=True, metavar="DIR", help="folder for the result; made, or replaced if ours")
    demo.add_argument("--backend", choices=tuple(DEMOS), default=DEFAULT_BACKEND, help=f"default: {DEFAULT_BACKEND}")
    model, layer, unit = DEMOS[DEFAULT_BACKEND]
    demo.add_argument("--layer", help=f"dotted name of the layer of {model} (default: {layer})")
    demo.add_argument("--unit", type=int, help=f"channel or feature (default: {unit})")
    demo.add_argument("--images", metavar="DIR", help="images to start from instead of 8 of our own")
    demo.set_defaults(run=_demo)

    visualize = commands.add_parser(
        "visualize",
        parents=[common],
        help="preferred and suppressed versions of your images, for one unit of a model",
        description="Make preferred and suppressed versions of images for one unit of a model.",
    )
    _add_model(visualize)
    _add_lens(visualize)
    visualize.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the result; made, or replaced if ours"
    )
    visualize.add_argument("--direction", choices=("both", "increase", "decrease"), default="both")
    visualize.add_argument("--method", choices=tuple(METHODS), default="edit", help="default: edit")
    visualize.add_argument("--alpha", type=float, help="edit weight: 0 keeps the image, 1 goes all the way")
    visualize.add_argument(
        "--alphas",
        type=float,
        nargs="*",
        metavar="ALPHA",
        help="further weights for the report's dose-response; each makes every picture once more (default: 0.5)",
    )
    visualize.add_argument("--strength", type=float, help="refinement: 0 none, 1 ignores the image")
    visualize.add_argument("--noise-seed", type=int, default=42, help="seed of the refinement's noise (default: 42)")
    visualize.set_defaults(run=_visualize)

    compare = commands.add_parser(
        "compare",
        parents=[common],
        help="several methods on the same images, for one unit of a model",
        description="Run several methods on the same images, noise seeds and scorer, and write tables and figures.",
    )
    _add_model(compare)
    _add_lens(compare)
    compare.add_argument(
        "--out", required=True, metavar="DIR", help="folder for tables and figures; goes on where it was"
    )
    compare.add_argument(
        "--methods", nargs="+", choices=tuple(METHODS), default=COMPARED, metavar="METHOD", help=", ".join(METHODS)
    )
    compare.add_argument("--noise-seeds", type=int, nargs="+", default=(0, 1, 2), help="repetitions (default: 0 1 2)")
    compare.add_argument("--angle", type=float, help="edit angle in degrees at which methods are matched")
    compare.add_argument("--strength", type=float, help="refinement: 0 none, 1 ignores the image")
    compare.set_defaults(run=_compare)

    units = commands.add_parser(
        "units",
        parents=[common],
        help="the layers of a model and how many units each has",
        description="List the layers of a model and how many units each has.",
    )
    _add_model(units)
    units.set_defaults(run=_units)

    doctor = commands.add_parser(
        "doctor",
        help="versions, devices, weights, and what each backend lacks",
        description="Say what this machine has, and what each backend lacks on it. Changes and downloads nothing.",
    )
    doctor.add_argument("--debug", action="store_true", help="show the traceback of an error")
    doctor.set_defaults(run=_doctor)

    download = commands.add_parser(
        "download",
        help="the published weights of a backend; says sizes and licences first",
        description="Show sizes and licences of a backend's published weights and, with --yes, download what is missing"
        " into the Hugging Face hub's cache. An interrupted download goes on where it stopped.",
    )
    download.add_argument("backend", choices=("sd15",))
    download.add_argument("--yes", action="store_true", help="go on after having read sizes and licences")
    download.add_argument(
        "--precision", choices=("fp16", "fp32"), default="fp16", help="of Stable Diffusion's files (default: fp16)"
    )
    download.add_argument("--speedup", choices=("hyper-sd", "lcm"), help="also the LoRA for this speedup= of sd15")
    download.add_argument("--debug", action="store_true", help="show the traceback of an error")
    download.set_defaults(run=_download)

    accept = commands.add_parser(
        "accept",
        help="whether a backend does with its real weights what it should",
        description="Check sd15 with the real weights: files, networks, pictures. Writes accept.md and accept.json, to"
        " attach to an issue; every failure says what it means.",
    )
    accept.add_argument("backend", choices=("sd15",))
    accept.add_argument("--device", default="cpu", help="where to compute (default: cpu)")
    accept.add_argument("--precision", choices=("fp16", "fp32"), default="fp16", help="of the files (default: fp16)")
    accept.add_argument("--speedup", choices=("hyper-sd", "lcm"), help="compare its few steps with 50")
    accept.add_argument("--out", required=True, metavar="DIR", help="folder of the report")
    accept.add_argument("--debug", action="store_true", help="show the traceback of an error")
    accept.set_defaults(run=_accept)
    return parser


def _add_lens(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layer", help="dotted name of the layer; left out: the model's own output")
    parser.add_argument(
        "--unit", type=_unit, required=True, help="channel or feature, its name, or a place such as 17,3,3"
    )
    parser.add_argument(
        "--pool", default="mean", help="map to one number: mean, max, center, cls, token:K, patch_mean (default: mean)"
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="a folder, or one file, to start from")
    parser.add_argument("--reference", metavar="DIR", help="images to fit on (default: the backend's own)")
    parser.add_argument(
        "--backend",
        default=DEFAULT_BACKEND,
        help="embedded (224 px), cifar10 (32 px) or sd15 (512 px; first: vislens download sd15);"
        f" default: {DEFAULT_BACKEND}",
    )
    parser.add_argument(
        "--cache", metavar="DIR", help=f"keep embeddings here, for {' and '.join(CACHED)}: no image is embedded twice"
    )
    parser.add_argument("--skip-bad", action="store_true", help="pass over unreadable files, with a warning")


def _unit(text: str) -> int | str | tuple[int, ...]:
    """A unit from a shell: a number, numbers with commas between them, or a name."""
    parts = text.split(",")
    if all(part.strip().lstrip("-").isdigit() for part in parts):
        return tuple(int(part) for part in parts) if len(parts) > 1 else int(text)
    return text


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, help="zoo:NAME (trained), timm:NAME or torchvision:NAME (random without --weights)"
    )
    parser.add_argument("--weights", metavar="FILE", help="safetensors file with the model's state dict")


def _demo(args: argparse.Namespace) -> None:
    from vislens_interp.reference import ReferenceSet

    _check_out(args.out)
    device = _device(args.device)
    model, layer, unit = DEMOS[args.backend]
    args.layer = layer if args.layer is None else args.layer
    args.unit = unit if args.unit is None else args.unit
    lens = _lens(_model(model), device, args.layer, args.unit, args.seed, backend=args.backend)
    reference = ReferenceSet.for_fit(lens.backend)
    lens.fit(reference.at(range(0, len(reference), DEMO_EVERY[args.backend])), progress=True)
    if args.images is None:
        images, names = lens.reference_set.held_out()
        # Where they are crops of photographs: each photograph once, as a whole.
        whole = [row for row, name in enumerate(names) if name.endswith("-0")] or list(range(len(names)))
        rows = whole[:: max(1, len(whole) // DEMO_IMAGES)][:DEMO_IMAGES]
        result = lens.visualize(images[rows], alphas=ALPHAS, progress=True)
        result.names = [names[row] for row in rows]
    else:
        result = lens.visualize(args.images, alphas=ALPHAS, progress=True)
    _finish(result, args, model=model, weights=None)


def _aimed(args: argparse.Namespace) -> "FeatureLens":
    """The lens that the arguments of :func:`_add_lens` describe, not fitted."""
    device = _device(args.device)
    model = _model(args.model, args.weights, args.seed)
    backend: Any = args.backend
    if args.cache is not None:
        if backend not in CACHED:
            raise ValueError(f"--cache {args.cache} is for {' and '.join(CACHED)}, not {backend!r}. Leave it out.")
        from vislens_interp import backends as backends  # registers them

        backend = get_backend(backend, device, cache=args.cache)
    return _lens(model, device, args.layer, args.unit, args.seed, args.pool, backend)


def _compare(args: argparse.Namespace) -> None:
    from vislens_interp.images import load_images

    lens, out = _aimed(args), Path(args.out)
    on_error = "skip" if args.skip_bad else "raise"
    images, _ = load_images(args.images, size=lens.backend.size, on_error=on_error)
    if args.reference is not None:
        lens.fit(args.reference, on_error=on_error, progress=True)
    comparison = lens.compare(
        images,
        args.methods,
        args.noise_seeds,
        angle=args.angle,
        strength=args.strength,
        folder=out / "parts",
        progress=True,
    )
    comparison.to_csv(out / "scores.csv")
    print(comparison.to_markdown(out / "scores.md"))
    comparison.figure().savefig(out / "scores.png")
    comparison.pictures_figure().savefig(out / "pictures.png")
    for name in ("scores.csv", "scores.md", "scores.png", "pictures.png"):
        print(f"{name}: {out / name}")


def _visualize(args: argparse.Namespace) -> None:
    from vislens_interp.images import load_images

    _check_out(args.out)
    lens = _aimed(args)
    on_error = "skip" if args.skip_bad else "raise"
    alphas = args.alphas if args.alphas is not None else ALPHAS if args.method == "edit" else ()
    chosen = {"method": args.method, "alpha": args.alpha, "alphas": alphas, "strength": args.strength}
    lens.validate(args.direction, **chosen)  # before a fit that takes minutes, as the images are opened
    images, names = load_images(args.images, size=lens.backend.size, on_error=on_error)
    if args.reference is not None:
        lens.fit(args.reference, on_error=on_error, progress=True)
    result = lens.visualize(images, args.direction, **chosen, seeds=args.noise_seed, progress=True)
    result.names = list(names)
    _finish(result, args, model=args.model, weights=args.weights)


def _units(args: argparse.Namespace) -> None:
    from vislens_interp.targets import list_units

    device = _device(args.device)
    infos = list_units(_model(args.model, args.weights, args.seed).to(device))
    rows = [("layer", "kind", "shape", "units")]
    for info in infos:
        shape = " x ".join(str(side) for side in info.shape)
        rows.append((info.name or "(output)", info.kind, shape, "?" if info.n_units is None else str(info.n_units)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)))
    if any(info.n_units is None for info in infos):
        print(
            "?: the channel axis is not known; in Python, FeatureLens(..., layout=) says which it is", file=sys.stderr
        )


def _doctor(args: argparse.Namespace) -> None:
    from vislens_interp.doctor import report

    print(report())


def _download(args: argparse.Namespace) -> None:
    from vislens_interp.backends.weights import sd15_repositories
    from vislens_interp.download import download, plan

    repositories = sd15_repositories(args.precision, args.speedup)
    print(plan(repositories))
    if args.yes:
        download(repositories)
    else:
        print("nothing was downloaded; if you agree with the licences: vislens download sd15 --yes")


def _accept(args: argparse.Namespace) -> None:
    from vislens_interp.backends.diffusion.acceptance import Acceptance, write_report
    from vislens_interp.backends.weights import sd15_repositories

    device = _device(args.device)
    backend: Any = get_backend("sd15", device)
    fast: Any = None if args.speedup is None else get_backend("sd15", device, speedup=args.speedup)
    findings = Acceptance(backend, sd15_repositories(args.precision, args.speedup), fast=fast).run()
    path = write_report(findings, backend, args.out)
    if failed := [finding.name for finding in findings if finding.state == "failed"]:
        raise ValueError(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}. {path} says more.")
    print(f"all passed; {path}")


def _lens(
    model: "nn.Module",
    device: "torch.device",
    layer: str | None,
    unit: int | str | tuple[int, ...],
    seed: int,
    pool: Any = "mean",
    backend: Any = DEFAULT_BACKEND,
) -> "FeatureLens":
    from vislens_interp.lens import FeatureLens

    return FeatureLens(model.to(device), layer, unit, pool=pool, backend=backend, seed=seed)


def _check_out(folder: str) -> None:
    from vislens_interp.results.storage import check_folder

    check_folder(folder)


def _finish(result: "LensResult", args: argparse.Namespace, *, model: str, weights: str | None) -> None:
    origin = weights or ("shipped" if model.startswith("zoo:") else "random")
    if origin == "random":
        result.model += " with random weights"  # the figure has to say it too
    result.settings["command_line"] = {
        "model": model,
        "weights": origin,
        **{key: value for key, value in vars(args).items() if key not in ("run", "debug", "model", "weights")},
    }
    folder = Path(args.out)
    result.save(folder)
    print(result.summary())
    print(f"report: {folder / 'report.html'}")
    print(f"figure: {folder / 'figure.png'}")
    print(f"result: {folder / 'result.json'}")


def _device(name: str) -> "torch.device":
    from vislens_interp.models import check_device

    return check_device(name)


def _model(spec: str, weights: str | None = None, seed: int = 0) -> "nn.Module":
    from vislens_interp.models import load_model

    return load_model(spec, weights, seed)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    print(f"vislens: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def _version() -> str:
    try:
        return metadata.version("vislens_interp")
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
