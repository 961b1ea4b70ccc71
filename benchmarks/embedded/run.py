"""The embedded backend: how good its parts are, whether the method does its job with them, and what that costs.

    P="python -m benchmarks.embedded.run --data $VISLENS_DATA --weights runs/weights64 --out runs/embedded"
    $P units                 # draw tuning and test units into common/network_units.json, before anything is fitted
    $P retrieval [--tune]    # edits judged by natural images: needs the embedder alone
    $P quality               # embedder and generator
    $P job --units 2 --images 24 --seeds 1     # edits judged by generated pictures; grows with larger numbers
    $P cost
    $P report                # the tables of all that has been run, what fails first
    $P figure                # figure 4

`--weights` holds what the recipes wrote: embedder64.safetensors, generator64/, and vit_tiny64.safetensors and
simclr_resnet50.safetensors where they have been trained; a network whose weights are not there is left out, and said.
Every cell is a file in `--out`, written when it is done and skipped when the command is run again.

What is fitted sees training images alone. Even-positioned files of val.zip and tuning units tune, odd-positioned ones
and test units test. Methods are compared at the same edit angle, the degrees between an image's embedding and what it
became, for α means something else to each of them.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.common.bench import Bench
from benchmarks.common.cells import redo, save_cell, to_redo
from benchmarks.common.edit_methods import JOB_ANGLE, JOB_METHODS, METHODS, VARIANT_METHODS
from benchmarks.common.networks import NETWORKS, UNITS, draw_units
from benchmarks.common.provenance import provenance
from benchmarks.embedded.edits import job_cell, retrieval_cell
from benchmarks.embedded.figure import figure
from benchmarks.embedded.quality import cost_stage, quality_embedder, quality_generator
from benchmarks.embedded.report import report, tuning_report
from vislens_interp.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("units", "quality", "retrieval", "job", "cost", "report", "figure"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tune", action="store_true", help="retrieval and its report: tuning units, images, variants")
    parser.add_argument("--units", type=int, default=8, help="units of each layer")
    parser.add_argument("--images", type=int, default=100, help="images of each unit; of quality: pictures to make")
    parser.add_argument("--seeds", type=int, default=1, help="job: noise seeds")
    parser.add_argument("--angle", type=float, default=JOB_ANGLE, help="job: edit angle in degrees")
    parser.add_argument("--bank", type=int, default=10_000, help="quality: training images that the probe sees")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), help="targets; all whose weights are there")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--redo", nargs="+", choices=list(METHODS), default=[], metavar="METHOD", help="run anew in finished cells"
    )
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    said = provenance(seed=list(range(args.seeds)), device=args.device)
    if args.part == "units":
        write_text(UNITS, json.dumps(draw_units()) + "\n")
        return
    if args.part == "report":
        print(tuning_report(args.out, said) if args.tune else report(args.out, said))
        return
    if args.part == "cost" and args.stage is None:
        drawn = (args.weights / "generator64").is_dir()
        for stage in ("embed", "read", "fit", *(["generate"] if drawn else [])):
            if not (args.out / f"cost-{stage}.json").exists():
                subprocess.run([sys.executable, *sys.argv, "--stage", stage], check=True)
        return
    bench = Bench(args.data, args.weights, args.out, args.device)
    names = args.networks or bench.present()
    print(f"networks: {', '.join(names)}; not there: {', '.join(set(NETWORKS) - set(bench.present())) or 'none'}")
    if args.part == "cost":
        save_cell(args.out / f"cost-{args.stage}.json", cost_stage(bench, args.stage) | {"threads": args.threads}, said)
    elif args.part == "figure":
        figure(bench, args.out / "figure4.webp")
    elif args.part == "quality":
        if not (path := args.out / "quality-embedder.json").exists():
            save_cell(path, quality_embedder(bench, args.bank), said)
        path = args.out / "quality-generator.json"
        if not path.exists() and (args.weights / "generator64").is_dir():
            save_cell(path, quality_generator(bench, bench.backend(), args.images), said)
    elif args.part == "retrieval":
        for name in names:
            for layer in NETWORKS[name].layers:
                path = args.out / f"{'tuning' if args.tune else 'retrieval'}-{name}-{layer}.json"
                if not path.exists():
                    methods = METHODS | (VARIANT_METHODS if args.tune else {})
                    cell = retrieval_cell(
                        bench, name, layer, tune=args.tune, units=args.units, images=args.images, methods=methods
                    )
                    save_cell(path, list(cell), said)
                elif not args.tune and (labels := to_redo(path, args.redo, said)):
                    methods = {label: METHODS[label] for label in labels}
                    cell = retrieval_cell(
                        bench, name, layer, tune=False, units=args.units, images=args.images, methods=methods
                    )
                    redo(path, list(cell), labels, said)
    else:
        backend = bench.backend()
        # Units outermost in the order of the file, so that whatever has been run holds all networks and layers.
        for seed in range(args.seeds):
            for place in range(args.units):
                for name in names:
                    for layer in NETWORKS[name].layers:
                        reference = bench.responses(name, layer, bench.reference)
                        columns = bench.units(name, layer, reference, tune=False, count=args.units)
                        if place >= len(columns):
                            continue
                        path = args.out / f"job-{name}-{layer}-{columns[place]}-{seed}.json"
                        cell = partial(
                            job_cell, bench, backend, name, layer, columns[place], seed, args.images, args.angle
                        )
                        if not path.exists():
                            save_cell(path, cell(), said)
                        elif labels := to_redo(path, [label for label in args.redo if label in JOB_METHODS], said):
                            redo(path, cell(labels), labels, said)


if __name__ == "__main__":
    main()
