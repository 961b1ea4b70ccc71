"""Other tools of feature visualisation and ours, on the same units, seeds, passes and scorer."""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.common import package as vl
from benchmarks.common.script import parser, provenance
from benchmarks.peers.environments import PEERS
from benchmarks.peers.paint import controls, jobs_of, run_landscape, run_ours, run_peer
from benchmarks.peers.plan import SUBJECTS, WAYS, Photographs


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    said = provenance(seed=list(range(args.seeds)))
    bench = Photographs(args.data, args.out if args.network == "squeezenet" else args.out / args.network, args.network)
    units = bench.units(args.units)
    if args.part == "report":
        from benchmarks.peers.report import write

        write(bench, args.passes, units, range(args.seeds), weights=args.weights, said=said)
        return
    vl.write_text(bench.out / f"said-{args.part}-{args.setting}.json", json.dumps(said))
    if args.part == "landscape":
        pairs = [(unit, seed) for unit in units for seed in range(args.seeds)]
        controls(bench, pairs)
        run_landscape(bench, pairs, args.backend, args.images, {})
        return
    for seed in range(args.seeds):
        for first in range(0, len(units), 3):  # a unit of each layer by all ways, then the next ones
            pairs = [(unit, seed) for unit in units[first : first + 3]]
            controls(bench, pairs)
            for place in ("ours", *PEERS):
                jobs = jobs_of(bench, place, args.setting, args.passes, pairs, args.only)
                if place == "ours":
                    run_ours(bench, jobs)
                else:
                    run_peer(bench, place, jobs, args.environments or args.out / "environments")


def parse(argv: list[str] | None) -> argparse.Namespace:
    command = parser(
        __doc__, "--data", "--out", "--weights", "--threads", parts=("paint", "landscape", "report"), needed="--data"
    )
    command.add_argument("--environments", type=Path, help="folder of the tools' environments; below --out by default")
    command.add_argument("--network", choices=tuple(SUBJECTS), default="squeezenet", help="what is painted for")
    command.add_argument("--units", type=int, default=21)
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--passes", type=int, default=96, help="images through the network for a picture, at equal")
    command.add_argument("--setting", choices=("equal", "default"), default="equal")
    command.add_argument("--only", nargs="+", choices=tuple(WAYS), default=list(WAYS), metavar="WAY")
    command.add_argument("--backend", default=vl.DEFAULT_BACKEND, help=f"default: {vl.DEFAULT_BACKEND}")
    command.add_argument("--images", type=int, help="reference images of the landscape; all by default")
    args = command.parse_args(argv)
    for name in ("units", "seeds"):
        if getattr(args, name) < 1:
            command.error(f"--{name} {getattr(args, name)}: expected at least 1.")
    if args.passes < 12:
        command.error(f"--passes {args.passes}: expected at least 12, one step of the method that looks most often.")
    return args


if __name__ == "__main__":
    main()
