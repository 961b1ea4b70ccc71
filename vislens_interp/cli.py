"""``vislens``: the library from a shell. Progress and warnings go to stderr, results to stdout."""

import argparse
import difflib
import os
import sys
import traceback
import warnings
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislens_interp.backends.base import DEFAULT_BACKEND, get_backend

if TYPE_CHECKING:  # nothing heavy here: `vislens --help` must answer at once
    import torch
    from torch import nn

    from vislens_interp.lens import FeatureLens
    from vislens_interp.result import LensResult

DEMOS = {"cifar10": ("zoo:cifar10_convnet", "conv3", 16), "embedded": ("zoo:cifar10_convnet", "conv3", 16)}
"""Backend to the model, the layer and the unit that ``vislens demo`` looks at."""
CACHED = ("embedded", "sd15")
"""Backends that embed images, which `--cache` can remember."""
DEMO_IMAGES = 8
DOSES = (0.5,)
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
        description="One unit of a shipped network, end to end. Needs no files: the reference images are synthetic.",
    )
    demo.add_argument("--out", required=True, metavar="DIR", help="folder for the result; made, or replaced if ours")
    demo.add_argument("--backend", choices=tuple(DEMOS), default=DEFAULT_BACKEND, help=f"default: {DEFAULT_BACKEND}")
    model, layer, unit = DEMOS[DEFAULT_BACKEND]
    demo.add_argument("--layer", help=f"dotted name of the layer of {model} (default: {layer})")
    demo.add_argument("--unit", type=int, help=f"channel or feature (default: {unit})")
    demo.add_argument("--images", metavar="DIR", help="images to start from instead of 8 synthetic ones")
    demo.set_defaults(run=_demo)

    visualize = commands.add_parser(
        "visualize",
        parents=[common],
        help="preferred and suppressed versions of your images, for one unit of a model",
        description="Make preferred and suppressed versions of images for one unit of a model.",
    )
    _add_model(visualize)
    visualize.add_argument("--layer", help="dotted name of the layer; left out: the model's own output")
    visualize.add_argument("--unit", type=int, required=True, help="channel or feature; see `vislens units`")
    visualize.add_argument("--images", required=True, metavar="DIR", help="a folder, or one file, to start from")
    visualize.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the result; made, or replaced if ours"
    )
    visualize.add_argument("--reference", metavar="DIR", help="images to fit on (default: the backend's own)")
    visualize.add_argument("--direction", choices=("both", "increase", "decrease"), default="both")
    visualize.add_argument("--method", choices=("edit", "optimize"), default="edit")
    visualize.add_argument("--alpha", type=float, help="edit weight: 0 keeps the image, 1 goes all the way")
    visualize.add_argument(
        "--doses",
        type=float,
        nargs="*",
        metavar="ALPHA",
        help="further weights for the report's dose-response; each makes every picture once more (default: 0.5)",
    )
    visualize.add_argument("--strength", type=float, help="refinement: 0 none, 1 ignores the image")
    visualize.add_argument(
        "--backend",
        default=DEFAULT_BACKEND,
        help="embedded (64 px), cifar10 (32 px) or sd15 (512 px; first: vislens download sd15);"
        f" default: {DEFAULT_BACKEND}",
    )
    visualize.add_argument(
        "--cache", metavar="DIR", help=f"keep embeddings here, for {' and '.join(CACHED)}: no image is embedded twice"
    )
    visualize.add_argument("--pool", choices=("mean", "max", "center"), default="mean", help="map to one number")
    visualize.add_argument("--noise-seed", type=int, default=42, help="seed of the refinement's noise (default: 42)")
    visualize.add_argument("--skip-bad", action="store_true", help="pass over unreadable files, with a warning")
    visualize.set_defaults(run=_visualize)

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
    download.add_argument("--debug", action="store_true", help="show the traceback of an error")
    download.set_defaults(run=_download)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, help="zoo:NAME (trained), timm:NAME or torchvision:NAME (random without --weights)"
    )
    parser.add_argument("--weights", metavar="FILE", help="safetensors file with the model's state dict")


def _demo(args: argparse.Namespace) -> None:
    _check_out(args.out)
    device = check_device(args.device)
    model, layer, unit = DEMOS[args.backend]
    args.layer = layer if args.layer is None else args.layer
    args.unit = unit if args.unit is None else args.unit
    lens = _lens(load_model(model), device, args.layer, args.unit, args.seed, backend=args.backend)
    lens.fit(progress=True)
    if args.images is None:
        images, names = lens.example_images(DEMO_IMAGES)
        result = lens.visualize(images, doses=DOSES, progress=True)
        result.names = list(names)
    else:
        result = lens.visualize(args.images, doses=DOSES, progress=True)
    _finish(result, args, model=model, weights=None)


def _visualize(args: argparse.Namespace) -> None:
    from vislens_interp.images import load_images

    _check_out(args.out)
    device = check_device(args.device)
    model = load_model(args.model, args.weights, args.seed)
    backend: Any = args.backend
    if args.cache is not None:
        if backend not in CACHED:
            raise ValueError(f"--cache {args.cache} is for {' and '.join(CACHED)}, not {backend!r}. Leave it out.")
        from vislens_interp import backends as backends  # registers them

        backend = get_backend(backend, device, cache=args.cache)
    lens = _lens(model, device, args.layer, args.unit, args.seed, args.pool, backend)
    on_error = "skip" if args.skip_bad else "raise"
    doses = args.doses if args.doses is not None else DOSES if args.method == "edit" else ()
    chosen = {"method": args.method, "alpha": args.alpha, "doses": doses, "strength": args.strength}
    lens.check(args.direction, **chosen)  # before a fit that takes minutes, as the images are opened
    images, names = load_images(args.images, size=lens.backend.size, on_error=on_error)
    if args.reference is not None:
        lens.fit(args.reference, on_error=on_error, progress=True)
    result = lens.visualize(images, args.direction, **chosen, seeds=args.noise_seed, progress=True)
    result.names = list(names)
    _finish(result, args, model=args.model, weights=args.weights)


def _units(args: argparse.Namespace) -> None:
    from vislens_interp.targets import list_units

    device = check_device(args.device)
    infos = list_units(load_model(args.model, args.weights, args.seed).to(device))
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

    repositories = sd15_repositories(args.precision)
    print(plan(repositories))
    if args.yes:
        download(repositories)
    else:
        print("nothing was downloaded; if you agree with the licences: vislens download sd15 --yes")


def _lens(
    model: "nn.Module",
    device: "torch.device",
    layer: str | None,
    unit: int,
    seed: int,
    pool: Any = "mean",
    backend: Any = DEFAULT_BACKEND,
) -> "FeatureLens":
    from vislens_interp.lens import FeatureLens

    return FeatureLens(model.to(device), layer, unit, pool=pool, backend=backend, seed=seed)


def _check_out(folder: str) -> None:
    from vislens_interp.result import check_folder

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


def check_device(name: str) -> "torch.device":
    """A device that is there; another one never takes its place.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    Raises:
        ValueError: There is no such device on this machine.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device={name!r} is unknown; expected cpu, cuda, cuda:N or mps.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(
                f"device={name!r} is not available: PyTorch {torch.__version__} sees {count} CUDA GPUs here. Pass"
                " --device cpu, or install a driver and a build of PyTorch for it."
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name!r} is not available on this machine. Pass --device cpu.")
    return device


def load_model(spec: str, weights: str | None = None, seed: int = 0) -> "nn.Module":
    """A model by name, in evaluation mode, with what prepares its images.

    Args:
        spec: ``"zoo:NAME"``, ``"timm:NAME"`` or ``"torchvision:NAME"``. Nothing is downloaded.
        weights: Safetensors file with the state dict; None leaves timm's and torchvision's models random, which is
            said in a warning.
        seed: Of random weights.

    Raises:
        ValueError: The name is unknown, or the weights do not fit.
        KeyError: The zoo has no such network.
        FileNotFoundError: There is no such weights file.
    """
    import torch

    from vislens_interp import zoo

    source, _, name = spec.partition(":")
    if source not in ("zoo", "timm", "torchvision") or not name:
        raise ValueError(
            f"model={spec!r} is unknown; expected zoo:NAME, timm:NAME or torchvision:NAME, such as"
            f" zoo:{zoo.available()[0]}."
        )
    if source == "zoo":
        if weights is not None:
            raise ValueError(f"weights={weights!r} does not go with model={spec!r}, which is trained. Leave it out.")
        return zoo.load(name)
    build = _timm if source == "timm" else _torchvision
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(name, spec, published=weights is not None)
    if weights is None:
        warnings.warn(
            f"{spec} has RANDOM WEIGHTS: what its units prefer means nothing. Pass --weights FILE.safetensors for"
            " trained ones.",
            stacklevel=2,
        )
    else:
        _load_weights(model, weights, spec)
    return model.eval()


def _timm(name: str, spec: str, *, published: bool) -> "nn.Module":
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise ValueError(_no_model(spec, name, timm.list_models()))
    return timm.create_model(name, pretrained=False)


def _torchvision(name: str, spec: str, *, published: bool) -> "nn.Module":
    from torchvision import models

    from vislens_interp.preprocess import Preprocess, preprocess_size

    known = models.list_models(module=models)  # the classifiers; detectors would download a backbone
    if name not in known:
        raise ValueError(_no_model(spec, name, known))
    weights: Any = models.get_model_weights(name)["DEFAULT"]
    transform: Any = weights.transforms()
    # What torchvision's builders set when they are given published weights; a test compares all of them.
    settings: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        settings = {"init_weights": False, "transform_input": published}
    elif name.startswith("vit_"):
        settings = {"image_size": preprocess_size(transform)}
    model: nn.Module = models.get_model(name, weights=None, **settings)
    model.preprocess = Preprocess(preprocess_size(transform), transform.mean, transform.std)
    return model


def _no_model(spec: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    source = spec.partition(":")[0]
    closest = ", ".join(f"{source}:{other}" for other in near)
    remedy = f"Closest: {closest}." if near else f"{source}.list_models() shows all."
    return f"model={spec!r} is not in {source}; expected one of its image classifiers. {remedy}"


def _load_weights(model: "nn.Module", weights: str, spec: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(weights).is_file():
        raise FileNotFoundError(f"weights={weights!r}: no such file; expected a safetensors file.")
    try:
        state = load_file(weights)
    except SafetensorError as error:
        raise ValueError(
            f"weights={weights!r} cannot be read as a safetensors file ({error}); it is truncated or another format."
            " Save the state dict with safetensors.torch.save_file."
        ) from error
    own = model.state_dict()
    # Counters of BatchNorm are not always saved, and evaluation does not read them.
    missing = sorted(key for key in own.keys() - state.keys() if not key.endswith("num_batches_tracked"))
    problems = [f"it lacks {len(missing)} tensors (first: {missing[0]!r})"] if missing else []
    if unexpected := sorted(state.keys() - own.keys()):
        problems.append(f"it holds {len(unexpected)} that the model has not (first: {unexpected[0]!r})")
    for key in sorted(own.keys() & state.keys()):
        if own[key].shape != state[key].shape:
            problems.append(f"{key!r} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}")
            break
    if problems:
        raise ValueError(
            f"weights={weights!r} does not fit {spec}: {'; '.join(problems)}. Pass the weights of this model."
        )
    model.load_state_dict(state, strict=False)


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
