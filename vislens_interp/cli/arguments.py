"""The arguments of ``vislens``: nothing heavy is imported here, so that ``vislens --help`` answers at once."""

import argparse
from typing import TypeAlias

from vislens_interp import __version__
from vislens_interp.config import DEFAULT_BACKEND
from vislens_interp.methods import METHODS

DEMOS = {"cifar10": ("zoo:cifar10_convnet", "conv3", 16), "embedded": ("zoo:efficientnet_lite2", "blocks.4", 17)}
"""Backend to the model, the layer and the unit that ``vislens demo`` looks at."""
CACHED = ("embedded", "sd15", "sdxl")
"""Backends that embed images, which `--cache` can remember."""
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
EPILOG = """exit codes:
  0    success
  1    an error, said in one line on stderr; or nobody reads the output
  2    wrong usage
  129, 130, 143    hung up, interrupted (Ctrl-C), terminated"""


def build_parser() -> argparse.ArgumentParser:
    """The arguments of all commands; ``args.command`` names the function of ``verbs`` that runs."""
    parser = argparse.ArgumentParser(
        prog="vislens",
        description="See the natural images that a unit of a vision model prefers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vislens_interp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    quiet = argparse.ArgumentParser(add_help=False)
    quiet.add_argument("--debug", action="store_true", help="show the traceback of an error")
    quiet.add_argument("--quiet", action="store_true", help="no progress, no warnings, no summary: errors alone")
    common = argparse.ArgumentParser(add_help=False, parents=[quiet])
    common.add_argument("--seed", type=parse_seed, default=0, help="seed of the fit and of random weights (default: 0)")
    common.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu); never changed silently")
    common.add_argument("--json", action="store_true", help="print the outcome as one JSON object")
    _add_demo(commands, common)
    _add_visualize(commands, common)
    _add_compare(commands, common)
    _add_audit(commands, common)
    _add_units(commands, common)
    _add_atlas(commands, common, quiet)
    _add_doctor(commands, quiet)
    _add_download(commands, quiet)
    _add_accept(commands, quiet)
    for name, command in commands.choices.items():
        command.set_defaults(command=name)
    return parser


def _add_demo(commands: Commands, common: argparse.ArgumentParser) -> None:
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


def _add_visualize(commands: Commands, common: argparse.ArgumentParser) -> None:
    visualize = commands.add_parser(
        "visualize",
        parents=[common],
        help="preferred and suppressed versions of images, for one unit of a model",
        description="Make preferred and suppressed versions of images for one unit of a model.",
    )
    _add_model(visualize)
    _add_lens(visualize, "a folder, or one file, to start from (default: photographs that say most of the unit)")
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
    visualize.add_argument(
        "--noise-seed", type=parse_seed, default=42, help="seed of the refinement's noise (default: 42)"
    )


def _add_compare(commands: Commands, common: argparse.ArgumentParser) -> None:
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
    compare.add_argument("--methods", nargs="+", choices=tuple(METHODS), metavar="METHOD", help=", ".join(METHODS))
    compare.add_argument(
        "--noise-seeds", type=parse_seed, nargs="+", default=(0, 1, 2), help="repetitions (default: 0 1 2)"
    )
    compare.add_argument("--angle", type=float, help="edit angle in degrees at which methods are matched")
    compare.add_argument("--strength", type=float, help="refinement: 0 none, 1 ignores the image")


def _add_audit(commands: Commands, common: argparse.ArgumentParser) -> None:
    audit = commands.add_parser(
        "audit",
        parents=[common],
        help="whether the pictures of a unit are to be believed: tests that can fail",
        description="Test whether pictures of a unit say how it treats photographs that nobody edited.",
    )
    _add_model(audit)
    _add_lens(audit, "photographs that judge (default: those held out)")
    audit.add_argument("--out", required=True, metavar="DIR", help="folder for the page; made, or replaced if ours")
    audit.add_argument("--methods", nargs="+", choices=tuple(METHODS), metavar="METHOD", help=", ".join(METHODS))
    audit.add_argument("--full", action="store_true", help="all tests: minutes")


def _add_units(commands: Commands, common: argparse.ArgumentParser) -> None:
    units = commands.add_parser(
        "units",
        parents=[common],
        help="the layers of a model and how many units each has",
        description="List the layers of a model and how many units each has.",
    )
    _add_model(units)


def _add_atlas(commands: Commands, common: argparse.ArgumentParser, quiet: argparse.ArgumentParser) -> None:
    atlas = commands.add_parser(
        "atlas",
        parents=[common],
        help="all units of a layer: a table, pictures and a site to search",
        description="Fit all units of a layer together and write a table, pictures and a site. Goes on where an"
        " interrupted run stopped. Then: vislens atlas serve DIR, vislens atlas query DIR WORDS, vislens atlas"
        " compare DIR OTHER.",
    )
    atlas.add_argument("--model", help="zoo:NAME (trained), timm:NAME or torchvision:NAME")
    atlas.add_argument("--weights", metavar="FILE", help="safetensors file with the model's state dict")
    atlas.add_argument("--layer", help="dotted name of the layer; left out: the model's own output")
    atlas.add_argument("--sae", metavar="DIR", help="dictionary over the layer (SAELens' files): its latents are units")
    atlas.add_argument("--pool", default="mean", help="map to one number: mean, max, center, ... (default: mean)")
    atlas.add_argument("--images", metavar="DIR", help="reference images, at least 200 (default: the backend's own)")
    atlas.add_argument("--backend", default=DEFAULT_BACKEND, help=f"default: {DEFAULT_BACKEND}")
    atlas.add_argument("--out", metavar="DIR", help="folder of the atlas")
    atlas.add_argument("--units", type=parse_units, metavar="0-511", help="only these, such as 0-63,100 (default: all)")
    atlas.add_argument("--top", type=int, metavar="N", help="only the best N of them")
    atlas.add_argument(
        "--by",
        choices=("selectivity", "sparsity", "correlation"),
        help="what --top calls the best (default: selectivity)",
    )
    atlas.add_argument("--inputs", type=int, default=6, metavar="N", help="edited prototypes of a unit (default: 6)")
    atlas.add_argument(
        "--edit-size",
        type=int,
        metavar="PX",
        help="see pictures at this side while they are edited, such"
        " as 128: half the time, and deep units move less (default: the backend's own, 224)",
    )
    atlas.add_argument("--draws", type=int, default=1000, help="permutations of each unit's null (default: 1000)")
    atlas.add_argument("--workers", type=int, default=0, help="processes beside this one (default: 0)")
    verbs = atlas.add_subparsers(title="of a finished atlas", metavar="serve | query | compare")
    serve = verbs.add_parser("serve", parents=[quiet], help="show the site in a browser on this machine")
    serve.add_argument("folder", metavar="DIR")
    serve.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    query = verbs.add_parser("query", parents=[quiet], help="list the units whose words or top images hold a word")
    query.add_argument("folder", metavar="DIR")
    query.add_argument("text", metavar="WORDS")
    query.add_argument("--limit", type=int, default=20, help="units at most (default: 20)")
    query.add_argument("--json", action="store_true", help="print one JSON object")
    compare = verbs.add_parser("compare", parents=[quiet], help="which unit of another layer or model is most alike")
    compare.add_argument("folder", metavar="DIR")
    compare.add_argument("other", metavar="OTHER", help="atlas on the same reference images")
    compare.add_argument("--limit", type=int, default=20, help="pairs printed at most (default: 20)")
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    for name, verb in verbs.choices.items():
        verb.set_defaults(command=f"atlas_{name}")


def parse_units(text: str) -> list[int]:
    """Units from a shell: numbers and ranges with commas between them.

    Raises:
        ArgumentTypeError: It is something else.
    """
    units: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()) or (last and int(last) < int(first)):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of units; expected one such as 0-511 or 3,7,20-29")
        units += range(int(first), int(last or first) + 1)
    return units


def _add_doctor(commands: Commands, quiet: argparse.ArgumentParser) -> None:
    commands.add_parser(
        "doctor",
        parents=[quiet],
        help="versions, devices, weights, and what each backend lacks",
        description="Say what this machine has, and what each backend lacks on it. Changes and downloads nothing.",
    )


def _add_download(commands: Commands, quiet: argparse.ArgumentParser) -> None:
    download = commands.add_parser(
        "download",
        parents=[quiet],
        help="the published weights of a backend; says sizes and licences first",
        description="Show sizes and licences of a backend's published weights and, with --yes, download what is missing"
        " into the Hugging Face hub's cache. An interrupted download goes on where it stopped.",
    )
    download.add_argument("backend", choices=("sd15", "sdxl"))
    download.add_argument("--yes", action="store_true", help="go on after having read sizes and licences")
    download.add_argument(
        "--precision", choices=("fp16", "fp32"), default="fp16", help="of Stable Diffusion's files (default: fp16)"
    )
    download.add_argument("--speedup", choices=("hyper-sd", "lcm"), help="also the LoRA for this speedup=")


def _add_accept(commands: Commands, quiet: argparse.ArgumentParser) -> None:
    accept = commands.add_parser(
        "accept",
        parents=[quiet],
        help="whether a backend does with its real weights what it should",
        description="Check sd15 or sdxl with the real weights: files, networks, pictures. Writes accept.md and"
        " accept.json, to attach to an issue; every failure says what it means.",
    )
    accept.add_argument("backend", choices=("sd15", "sdxl"))
    accept.add_argument("--device", default="cpu", help="where to compute (default: cpu)")
    accept.add_argument("--precision", choices=("fp16", "fp32"), default="fp16", help="of the files (default: fp16)")
    accept.add_argument("--speedup", choices=("hyper-sd", "lcm"), help="compare its few steps with 50")
    accept.add_argument("--anchor", metavar="FILE", help="the picture of diffusers' IP-Adapter test, see the runbook")
    accept.add_argument("--out", required=True, metavar="DIR", help="folder of the report")


def _add_lens(parser: argparse.ArgumentParser, images: str | None = None) -> None:
    """Which unit, and on what; ``images`` says what is taken without any, and None that they are needed."""
    parser.add_argument("--layer", help="dotted name of the layer; left out: the model's own output")
    parser.add_argument(
        "--unit", type=parse_unit, required=True, help="channel or feature, its name, or a place such as 17,3,3"
    )
    parser.add_argument(
        "--pool", default="mean", help="map to one number: mean, max, center, cls, token:K, patch_mean (default: mean)"
    )
    said = images or "a folder, or one file, to start from"
    parser.add_argument("--images", required=images is None, metavar="DIR", help=said)
    parser.add_argument("--reference", metavar="DIR", help="images to fit on (default: the backend's own)")
    parser.add_argument(
        "--backend",
        default=DEFAULT_BACKEND,
        help="embedded (224 px), cifar10 (32 px), sd15 (512 px; first: vislens download sd15) or sdxl (1,024 px);"
        f" default: {DEFAULT_BACKEND}",
    )
    parser.add_argument(
        "--cache", metavar="DIR", help=f"keep embeddings here, for {' and '.join(CACHED)}: no image is embedded twice"
    )
    parser.add_argument("--skip-bad", action="store_true", help="pass over unreadable files, with a warning")


def parse_seed(text: str) -> int:
    """A seed from a shell.

    Raises:
        ArgumentTypeError: It is no whole number from 0 to 2**32 - 1.
    """
    if not (text.isascii() and text.isdigit()) or int(text[:20]) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; expected a whole number from 0 to {2**32 - 1}")
    return int(text)


def parse_unit(text: str) -> int | str | tuple[int, ...]:
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
