"""Fifty lenses in one process, 160,000 cached images, and pictures of several processes; prints JSON.

``python tests/faults/scale.py [memory] [cache] [figures]``.
"""

import argparse
import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lens_writers import sheet, table
from page_reader import make_result
from small_networks import QUICK, pictures, small_network

from vislens_interp import FeatureLens
from vislens_interp.backends.cache import RowCache

LENSES, EARLY = 50, 10
COUNTS = (20_000, 40_000, 80_000, 160_000)


def resident() -> float:
    """MiB of memory that this process holds."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(lenses: int = LENSES, early: int = EARLY) -> dict[str, Any]:
    """MiB after some lenses, each on a network of its own: fitted, asked for pictures, saved, its page made."""
    held = {}
    images, reference = pictures(3, seed=1), pictures(220)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, lenses + 1):
            lens = FeatureLens(small_network(number), "conv", 2, backend="cifar10").fit(reference, **QUICK)
            lens.visualize(images, strength=0).save(Path(folder) / "result")
            lens.save(Path(folder) / "lens")
            del lens
            if number in (early, lenses) or number % 10 == 0:
                held[number] = round(resident(), 1)
    return {"mib": held, "growth": round(held[lenses] - held[early], 1)}


def cache(counts: tuple[int, ...] = COUNTS) -> dict[str, Any]:
    """CPU seconds to fill a cache, and to find every row again in a process that never saw it."""
    seconds = {}
    for count in counts:
        images = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(count))
        with tempfile.TemporaryDirectory() as folder:
            both = []
            for _ in range(2):
                start = time.process_time()
                rows = RowCache(folder, "rows", "f").rows(images, lambda part: part.flatten(1), batch_size=64)
                assert len(rows) == count
                both.append(round(time.process_time() - start, 2))
            assert torch.equal(rows.tensor(), images.flatten(1))
            seconds[count] = both
    first, last = (sum(seconds[count]) / count for count in (counts[0], counts[-1]))
    return {"fill_and_find": seconds, "seconds_an_image_last_over_first": round(last / first, 2)}


FILES = ("figure.png", "report.html", "manifest.csv", "reference.csv", "result.json")


def written() -> dict[str, str]:
    """Hashes of what one process writes and draws."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = make_result(count=2, modes=2).save(folder / "result")
        found = {name: (made / name).read_bytes() for name in FILES}
        found["sheet.html"] = sheet(0).html().encode()
        for name, figure in {
            "sheet": sheet(0).figure(),
            "scores": table(0).figure(["response_change"]),
            "evidence": make_result(count=2).figure(),
        }.items():
            figure.savefig(folder / f"{name}.png")
            found[name] = (folder / f"{name}.png").read_bytes()
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in found.items()}


def figures(seeds: tuple[str, ...] = ("0", "1", "4242")) -> dict[str, Any]:
    """What processes with other orders of sets write alike, and what not."""
    runs = []
    for seed in seeds:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, __file__, "written"], capture_output=True, text=True, env=environment, check=True
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    differ = sorted(name for name in runs[0] if len({run[name] for run in runs}) > 1)
    return {"processes": len(seeds), "files": len(runs[0]), "differ": differ}


WORKS = {"memory": memory, "cache": cache, "figures": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", help=f"{', '.join(WORKS)} (all by default), or written")
    parser.add_argument("--record", type=Path, help="a file of what was found; a second run goes on with it")
    args = parser.parse_args()
    if unknown := set(args.works) - {*WORKS, "written"}:
        parser.error(f"{sorted(unknown)}: expected some of {[*WORKS, 'written']}.")
    torch.set_num_threads(1)
    if args.works == ["written"]:
        print(json.dumps(written()))
        return
    known = json.loads(args.record.read_text()) if args.record and args.record.exists() else {}
    for work in args.works or WORKS:
        if work not in known:
            known[work] = WORKS[work]()
            if args.record:
                args.record.write_text(json.dumps(known))
    print(json.dumps(known))


if __name__ == "__main__":
    main()
