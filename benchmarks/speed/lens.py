"""Seconds and peak memory of a first and of a further unit of a layer, in a process of its own; prints JSON.

Only what every version of the package has is used, so that ``run --only e`` can measure an earlier one beside this one.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from vislens_interp import FeatureLens, zoo
from vislens_interp.backends.base import get_backend
from vislens_interp.reference import ReferenceSet

NETWORK, LAYER, UNITS, PICTURES = "efficientnet_lite2", "blocks.4", (3, 10), 8


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What it gives; seconds by the clock and of the CPUs, on which other processes count less, and MB at the peak."""
    wall, cpu = time.perf_counter(), time.process_time()
    given = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return given, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak}


def main(references: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    network, backend = zoo.load(NETWORK), get_backend("embedded")
    whole: Any = ReferenceSet.of_backend(backend)
    reference = whole.at(range(0, len(whole), max(1, len(whole) // references)))
    found: dict[str, Any] = {"references": len(reference), "threads": threads, "units": []}
    for unit in UNITS:
        lens = FeatureLens(network, LAYER, unit=unit)
        _, fit = timed(lambda lens=lens: lens.fit(reference))
        pictures, _ = lens.reference_set.held_out(PICTURES)
        shown, visualize = timed(lambda lens=lens, pictures=pictures: lens.visualize(pictures))
        evidence = lens.evidence_[str(unit)]
        said = {"correlation": evidence.correlation, "change": shown.response_change["increase"].mean().item()}
        found["units"].append({"unit": unit, "fit": fit, "visualize": visualize, **said})
    return found


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
