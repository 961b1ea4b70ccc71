"""What an atlas costs against a loop over lenses, how its fit grows, and whether workers and kills change its bytes."""

import os
import sys
from pathlib import Path

from benchmarks.atlas.parts import PARTS, QUICK, Effort
from benchmarks.atlas.report import report
from benchmarks.atlas.two_choices import make, score
from benchmarks.common import package as vl
from benchmarks.common.script import parse, parser, provenance, publish, read, save_cell


def main(argv: list[str] | None = None) -> int:
    """Measure the parts that are asked for, and write the page of all that were measured into ``--out``."""
    command = parser(__doc__, "--out", "--seed", "--threads", "--quick")
    command.add_argument("--only", nargs="*", choices=list(PARTS), help="these parts; none: the page alone")
    command.add_argument("--units", type=int, help="units with pictures in `lenses` (512); 512 are projected from them")
    pair = ("ATLAS", "IMAGES")
    command.add_argument("--choices", nargs=2, type=Path, metavar=pair, help="write pairs of photographs to judge")
    command.add_argument("--score", action="store_true", help="count what was judged in --out")
    args = parse(command, argv)
    if args.choices or args.score:
        score(args.out) if args.score else make(*args.choices, args.out, args.seed)
        return 0
    vl.keep_freed_memory()  # as the command does
    effort = QUICK if args.quick else Effort() if args.units is None else Effort(atlas_units=args.units)
    for name in PARTS if args.only is None else args.only:
        load = " ".join(f"{one:.1f}" for one in os.getloadavg())
        found = PARTS[name](effort, args.seed)
        save_cell(args.out / "cells" / f"{name}.json", {"load": load, **found}, provenance(seed=args.seed))
    cells = {name: args.out / "cells" / f"{name}.json" for name in PARTS}
    done = {name: read(path) for name, path in cells.items() if path.is_file()}
    parts = {name: cell["found"] for name, cell in done.items()}
    publish(args.out / "atlas", *report(parts, {name: cell["provenance"] for name, cell in done.items()}, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
