"""What each command of ``vislens`` does: a function a command, called with its arguments."""

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislens_interp.cli.arguments import CACHED, DEMOS
from vislens_interp.streams import say

if TYPE_CHECKING:  # each command imports what it needs
    import torch
    from torch import nn

    from vislens_interp.backends.base import Backend
    from vislens_interp.lens import FeatureLens
    from vislens_interp.results.result import LensResult

DEMO_EVERY = {"cifar10": 1, "embedded": 3}
"""The demo reads one of so many reference images, for a large network takes a tenth of a second for each."""
ALPHAS = (0.5,)
"""Beside α = 0 and the weight of the pictures themselves, which cost nothing more."""
FILES = {"report": "report.html", "figure": "figure.png", "result": "result.json"}
COMPARISON_FILES = ("parts", "scores.csv", "scores.md", "comparison.json", "scores.png", "pictures.png")
"""What ``vislens compare`` writes."""
NOT_KEPT = ("command", "debug", "json", "model", "quiet", "weights")
"""Arguments that a result does not keep among those of the command line: how it was shown, or kept elsewhere."""


def demo(args: argparse.Namespace) -> None:
    """Run ``vislens demo``."""
    from vislens_interp.lens import FeatureLens
    from vislens_interp.reference import ReferenceSet
    from vislens_interp.results.storage import check_folder

    check_folder(args.out)
    device = _device(args.device)
    model, layer, unit = DEMOS[args.backend]
    args.layer = layer if args.layer is None else args.layer
    args.unit = unit if args.unit is None else args.unit
    lens = FeatureLens(_model(model).to(device), args.layer, args.unit, backend=args.backend, seed=args.seed)
    reference = ReferenceSet.for_fit(lens.backend)
    lens.fit(reference.at(range(0, len(reference), DEMO_EVERY[args.backend])), progress=not args.quiet)
    result = lens.visualize(args.images, alphas=ALPHAS, progress=not args.quiet)
    _describe(result, args, model=model, weights=None)
    result.save(args.out)
    _tell(result, args)


def _aimed(args: argparse.Namespace) -> "FeatureLens":
    """The lens that the arguments of :func:`_add_lens` describe, not fitted."""
    from vislens_interp.lens import FeatureLens

    device = _device(args.device)
    model = _model(args.model, args.weights, args.seed)
    backend: str | Backend = args.backend
    if args.cache is not None:
        if backend not in CACHED:
            raise ValueError(
                f"--cache {args.cache} is for {', '.join(CACHED[:-1])} and {CACHED[-1]}, not {backend!r}. Leave it out."
            )
        from vislens_interp.backends.base import get_backend

        backend = get_backend(backend, device, cache=args.cache)
    return FeatureLens(model.to(device), args.layer, args.unit, pool=args.pool, backend=backend, seed=args.seed)


def compare(args: argparse.Namespace) -> None:
    """Run ``vislens compare``."""
    from vislens_interp.evaluation.compare import DEFAULT_METHODS, check_comparison
    from vislens_interp.files import check_writable, write_atomically, write_text
    from vislens_interp.images import load_images
    from vislens_interp.results.result import json_values

    out = Path(args.out)
    check_writable(out / "parts" / "part")
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    strange = [name for name in held if name not in COMPARISON_FILES and not name.startswith(".")]
    if strange and "comparison.json" not in held:  # which would mark all of it as ours
        raise ValueError(
            f"--out {args.out} holds {strange[0]!r} and no earlier comparison; expected a new or empty folder, or an"
            " earlier comparison. Name another one."
        )
    lens = _aimed(args)
    on_error = "skip" if args.skip_bad else "raise"
    images, _ = load_images(args.images, size=lens.backend.size, on_error=on_error)
    methods = args.methods or DEFAULT_METHODS
    check_comparison(lens, methods, args.noise_seeds, angle=args.angle, strength=args.strength)
    if args.reference is not None:
        lens.fit(args.reference, on_error=on_error, progress=not args.quiet)
    comparison = lens.compare(
        images,
        methods,
        args.noise_seeds,
        angle=args.angle,
        strength=args.strength,
        folder=out / "parts",
        progress=not args.quiet,
    )
    comparison.to_csv(out / "scores.csv")
    table = comparison.to_markdown(out / "scores.md")
    content = {"scores": comparison.table(), "notes": comparison.notes}
    record = json_values({"kind": "vislens_interp comparison", **content}, "comparison")
    # Before the pictures: by it a later run knows the folder as ours.
    write_text(out / "comparison.json", json.dumps(record, indent=1))
    figures = {"scores.png": comparison.figure(), "pictures.png": comparison.pictures_figure()}
    for name, figure in figures.items():
        write_atomically(out / name, partial(figure.savefig, format="png"))
    paths = {name: str(out / name) for name in ("comparison.json", "scores.csv", "scores.md", *figures)}
    _report(args, table, paths, content)


def audit(args: argparse.Namespace) -> None:
    """Run ``vislens audit``."""
    from vislens_interp.audit.result import check_folder
    from vislens_interp.audit.run import open_photographs
    from vislens_interp.files import check_writable
    from vislens_interp.images import load_images

    check_writable(check_folder(args.out))
    lens = _aimed(args)
    on_error = "skip" if args.skip_bad else "raise"
    images = None
    if args.images is not None:
        images, _ = load_images(args.images, size=lens.backend.size, on_error=on_error)
        open_photographs(images, lens.backend.size, full=args.full)  # enough of them?
    lens.fit(args.reference, on_error=on_error, progress=not args.quiet)
    found = lens.audit(images, args.methods, full=args.full, seed=args.seed)
    folder = found.save(args.out)
    paths = {name: str(folder / file) for name, file in (("report", "audit.html"), ("result", "audit.json"))}
    _report(args, str(found), paths, {"audit": found.to_dict()})


def visualize(args: argparse.Namespace) -> None:
    """Run ``vislens visualize``."""
    from vislens_interp.evaluation.stream import stream
    from vislens_interp.results.storage import check_folder

    check_folder(args.out)
    lens = _aimed(args)
    on_error = "skip" if args.skip_bad else "raise"
    alphas = args.alphas if args.alphas is not None else ALPHAS if args.method == "edit" else ()
    chosen = {"method": args.method, "alpha": args.alpha, "alphas": alphas, "strength": args.strength}
    fit = partial(lens.fit, args.reference, on_error=on_error, progress=not args.quiet)
    result = stream(
        lens,
        args.images,
        args.out,
        args.direction,
        **chosen,
        judge=None,
        mode=None,
        seeds=args.noise_seed,
        on_error=on_error,
        progress=not args.quiet,
        fit=None if args.reference is None else fit,  # after the images were opened, for it takes minutes
        describe=partial(_describe, args=args, model=args.model, weights=args.weights),
    )
    _tell(result, args)


def units(args: argparse.Namespace) -> None:
    """Run ``vislens units``."""
    from vislens_interp.targets import list_units

    device = _device(args.device)
    infos = list_units(_model(args.model, args.weights, args.seed).to(device))
    if args.json:
        keys = ("name", "kind", "shape", "n_units")
        print(json.dumps({"layers": [{key: getattr(info, key) for key in keys} for info in infos]}))
        return
    rows = [("layer", "kind", "shape", "units")]
    for info in infos:
        shape = " x ".join(str(side) for side in info.shape)
        rows.append((info.name or "(output)", info.kind, shape, "?" if info.n_units is None else str(info.n_units)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)))
    if any(info.n_units is None for info in infos) and not args.quiet:
        say("?: the channel axis is not known; in Python, FeatureLens(..., layout=) says which it is")


def atlas(args: argparse.Namespace) -> None:
    """Run ``vislens atlas``."""
    from concurrent.futures import ProcessPoolExecutor
    from contextlib import nullcontext
    from multiprocessing import get_context

    from vislens_interp.atlas import Atlas
    from vislens_interp.memory import keep_freed_memory
    from vislens_interp.validation import check_whole

    if missing := [f"--{name}" for name in ("model", "out") if getattr(args, name) is None]:
        raise ValueError(f"vislens atlas needs {' and '.join(missing)}; vislens atlas --help shows all.")
    if args.by is not None and args.top is None:
        raise ValueError(
            f"--by {args.by} is the order in which --top N takes units. Pass --top N too, or leave it out."
        )
    check_whole(0, workers=args.workers)
    by = args.by or "selectivity"
    device = _device(args.device)
    if device.type != "cpu":
        raise ValueError(f"--device {args.device}: an atlas is made on the CPU from the shell; pass --device cpu.")
    keep_freed_memory()
    made = Atlas(
        args.model,
        args.layer,
        args.images,
        backend=args.backend,
        weights=args.weights,
        sae=args.sae,
        seed=args.seed,
        pool=args.pool,
    )
    made.validate(args.out, pictures=args.inputs != 0, units=args.units, top=args.top, by=by, edit_size=args.edit_size)
    made.fit(args.out, inputs=args.inputs, draws=args.draws, progress=not args.quiet)
    pool = ProcessPoolExecutor(args.workers, get_context("spawn")) if args.workers > 0 else nullcontext()
    with pool as executor:
        store = made.save(
            args.out,
            units=args.units,
            top=args.top,
            by=by,
            edit_size=args.edit_size,
            executor=executor,
            progress=not args.quiet,
        )
    paths = {"site": str(store.folder / "index.html"), "table": str(store.path)}
    _report(args, f"{store.describe()}\nto look at it: vislens atlas serve {args.out}", paths, {"out": args.out})


def atlas_serve(args: argparse.Namespace) -> None:
    """Run ``vislens atlas serve``."""
    from vislens_interp.atlas.serve import site_server

    server, address = site_server(args.folder, args.port)
    with server:
        print(f"{address} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def atlas_compare(args: argparse.Namespace) -> None:
    """Run ``vislens atlas compare``."""
    from vislens_interp.atlas import open_atlas
    from vislens_interp.atlas.compare import write_comparisons
    from vislens_interp.validation import check_whole

    check_whole(1, limit=args.limit)
    one, other = (open_atlas(folder) for folder in (args.folder, args.other))
    pages, pairs = write_comparisons(one, other)
    if args.json:
        print(json.dumps({"pages": [str(page) for page in pages], "pairs": pairs}))
        return
    for row in pairs[: args.limit]:
        print(f"unit {row['unit']}\tunit {row['other']}\tr {row['correlation']:.2f}")
    if not args.quiet:
        print(f"pages: {pages[0]}, {pages[1]}\nto look at them: vislens atlas serve {args.folder}")


def atlas_query(args: argparse.Namespace) -> None:
    """Run ``vislens atlas query``."""
    from vislens_interp.atlas import open_atlas

    found = open_atlas(args.folder).query(args.text, args.limit)
    if args.json:
        print(json.dumps({"units": found}))
        return
    for row in found:
        evidence = "good" if row["passes"] else "weak" if row["state"] == "alive" else row["state"]
        r = "–" if row["correlation"] is None else f"{row['correlation']:.2f}"
        words = ", ".join(row["words"]) or ", ".join(Path(name).name for name in row["top_images"][:3])
        print(f"unit {row['name']}\t{evidence}\tr {r}\t{words}")
    if not found and not args.quiet:
        say(f"no unit holds {args.text!r} in its number, words or top images")


def doctor(args: argparse.Namespace) -> None:
    """Run ``vislens doctor``."""
    from vislens_interp.doctor import report

    print(report())


def download(args: argparse.Namespace) -> None:
    """Run ``vislens download``."""
    from vislens_interp.backends.weights import REPOSITORIES
    from vislens_interp.download import download, plan

    repositories = REPOSITORIES[args.backend](args.precision, args.speedup)
    print(plan(repositories))
    if args.yes:
        download(repositories)
    else:
        print(f"nothing was downloaded; if you agree with the licences: vislens download {args.backend} --yes")


def accept(args: argparse.Namespace) -> None:
    """Run ``vislens accept``."""
    from vislens_interp.backends.base import get_backend
    from vislens_interp.backends.diffusion.acceptance import Acceptance, write_report
    from vislens_interp.backends.weights import REPOSITORIES
    from vislens_interp.files import check_writable

    check_writable(Path(args.out) / "accept.md")
    device = _device(args.device)
    repositories = REPOSITORIES[args.backend](args.precision, args.speedup)
    backend: Any = get_backend(args.backend, device)
    fast: Any = None if args.speedup is None else get_backend(args.backend, device, speedup=args.speedup)
    findings = Acceptance(backend, repositories, fast=fast, anchor=args.anchor).run()
    path = write_report(findings, backend, args.out)
    if failed := [finding.name for finding in findings if finding.state == "failed"]:
        raise ValueError(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}. {path} says more.")
    print(f"all passed; {path}")


def _describe(result: "LensResult", args: argparse.Namespace, *, model: str, weights: str | None) -> None:
    """Put what the command was told into a result."""
    origin = weights or ("shipped" if model.startswith("zoo:") else "random")
    if origin == "random":
        result.model += " with random weights"  # the figure has to say it too
    result.settings["command_line"] = {
        "model": model,
        "weights": origin,
        **{key: value for key, value in vars(args).items() if key not in NOT_KEPT},
    }


def _tell(result: "LensResult", args: argparse.Namespace) -> None:
    paths = {name: str(Path(args.out) / file) for name, file in FILES.items()}
    _report(args, result.summary(), paths, {"statistics": result.statistics(), "names": result.names})


def _report(args: argparse.Namespace, summary: str, paths: dict[str, str], content: Mapping[str, object]) -> None:
    """The outcome on stdout: for people, as JSON, or nothing."""
    from vislens_interp.results.result import json_values

    if args.json:
        print(json.dumps(json_values({**content, "files": paths}, "outcome")))
    elif not args.quiet:
        print(summary)
        for name, path in paths.items():
            print(f"{name}: {path}")


def _device(name: str) -> "torch.device":
    from vislens_interp.models import check_device

    return check_device(name)


def _model(spec: str, weights: str | None = None, seed: int = 0) -> "nn.Module":
    from vislens_interp.models import load_model

    return load_model(spec, weights, seed)
