"""What an atlas costs against a loop over lenses, and how its fit grows with the number of units."""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import package as vl
from benchmarks.common.cells import publish
from benchmarks.common.command import parser
from benchmarks.common.provenance import provenance, provenance_line
from benchmarks.common.tables import fill, table_text

MODEL, LAYER = "zoo:efficientnet_lite2", "blocks.4"
SIZES = (1000, 3000, 10000)
REFERENCES, DIMENSIONS, DRAWS, NOISE_SD = 2400, 784, 1000, 1.0


def cpu_seconds(work: Callable[[], Any]) -> float:
    """The process's own seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def against_lenses(atlas_units: int, lens_units: int, inputs: int, seed: int) -> dict[str, Any]:
    """Seconds of the atlas and of a loop over lenses, on the same layer, reference images and inputs."""
    found: dict[str, Any] = {"atlas_units": atlas_units, "lens_units": lens_units, "inputs": inputs}
    reference = vl.ReferenceSet.of_backend(backend := vl.get_backend(vl.DEFAULT_BACKEND))
    assert reference is not None
    reference.embeddings(backend)  # which the package brings: for both
    with tempfile.TemporaryDirectory() as folder:
        atlas = vl.Atlas(MODEL, LAYER, seed=seed)
        found["atlas_fit"] = cpu_seconds(lambda: atlas.fit(inputs=inputs))
        found["atlas_pictures"] = cpu_seconds(lambda: atlas.save(folder, units=range(atlas_units)))
        kept = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        found["bytes_a_unit"] = kept / atlas_units
    fit = atlas.fit_
    assert fit is not None
    found["references"] = len(fit.responses)
    model = vl.load_model(MODEL)
    seconds, differences = [], []
    for unit in range(lens_units):
        lens = vl.FeatureLens(model, LAYER, unit, seed=seed)
        seconds.append(cpu_seconds(lambda lens=lens: lens.fit(reference)))
        evidence = lens.evidence_[str(unit)]
        differences.append(abs(evidence.correlation - fit.readouts.correlation[fit.column_of[unit]].item()))
        found.setdefault("lens_pictures", []).append(cpu_seconds(lambda lens=lens: lens.visualize(fit.inputs)))
    found["lens_fit"] = seconds
    found["largest_difference_of_r"] = max(differences)
    return found


def simulated(units: int, references: int, seed: int) -> dict[str, Any]:
    """Seconds of the fit of so many units, and which pass."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(references, DIMENSIONS, generator=generator)
    noise = torch.randn(references, units, generator=generator)
    real = torch.arange(units) % 2 == 0
    weights = torch.randn(DIMENSIONS, units, generator=generator) / DIMENSIONS**0.5
    responses = (embeddings @ weights) * real + NOISE_SD * noise
    rows = torch.arange(references)
    held = rows % 10 == 0
    found: dict[str, Any] = {"units": units}

    def fit() -> None:
        found["readouts"] = vl.fit_readouts(
            embeddings, responses, rows, rows[~held], rows[held], draws=DRAWS, seed=seed
        )

    found["fit"] = cpu_seconds(fit)
    found["population"] = cpu_seconds(lambda: vl.describe_population(responses))
    found["map"] = cpu_seconds(lambda: vl.layer_map(responses))
    passes = found.pop("readouts").q_value <= 0.05
    found["real_that_pass"] = passes[real].double().mean().item()
    found["false_among_passing"] = (passes & ~real).sum().item() / max(1, int(passes.sum()))
    found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def report(found: dict[str, Any]) -> str:
    """The page."""
    lenses, many = found["against_lenses"], found["simulated"]
    lens = [fit + pictures for fit, pictures in zip(lenses["lens_fit"], lenses["lens_pictures"], strict=True)]
    further = lens[1:] or lens
    atlas = lenses["atlas_pictures"] / lenses["atlas_units"]
    whole = lenses["atlas_fit"] + lenses["atlas_pictures"]
    rows = [
        ["what", "CPU seconds"],
        ["atlas: reading, fit and evidence of the whole layer", f"{lenses['atlas_fit']:.1f}"],
        ["atlas: pictures, measurements, table and site, a unit", f"{atlas:.2f}"],
        ["lens: first unit, fit and pictures", f"{lens[0]:.1f}"],
        ["lens: a further unit, fit", f"{sum(lenses['lens_fit'][1:] or lenses['lens_fit']) / len(further):.2f}"],
        ["lens: a further unit, fit and pictures", f"{sum(further) / len(further):.2f}"],
        ["kB on the disk, a unit", f"{lenses['bytes_a_unit'] / 1000:.0f}"],
        ["largest difference of held-out r", f"{lenses['largest_difference_of_r']:.3f}"],
    ]
    sizes = [
        ["units", "fit and evidence, s", "neighbours, s", "map, s", "peak GiB", "real that pass", "false among passing"]
    ]
    sizes += [
        [
            f"{one['units']:,}",
            *(f"{one[name]:.1f}" for name in ("fit", "population", "map", "peak_gib")),
            f"{one['real_that_pass']:.1%}",
            f"{one['false_among_passing']:.1%}",
        ]
        for one in many
    ]
    lens_whole = lens[0] + sum(further) / len(further) * (lenses["atlas_units"] - 1)
    return fill(
        __file__,
        "page",
        provenance=provenance_line(found["provenance"]),
        model=MODEL,
        layer=LAYER,
        **{name: lenses[name] for name in ("atlas_units", "lens_units", "inputs", "references")},
        against=table_text(rows),
        ratio=sum(further) / len(further) / atlas,
        whole=lens_whole / whole,
        references_simulated=f"{found['references']:,}",
        draws=f"{DRAWS:,}",
        simulated=table_text(sizes),
    )


def main(argv: list[str] | None = None) -> int:
    """Measure and write the page."""
    args = parser(__doc__, "--out", "--seed", "--threads", "--quick").parse_args(argv)
    torch.set_num_threads(args.threads)
    references = 600 if args.quick else REFERENCES
    sizes = (100, 300) if args.quick else SIZES
    found = {
        "provenance": provenance(seed=args.seed),
        "references": references,
        "simulated": [simulated(units, references, args.seed) for units in sizes],
        "against_lenses": against_lenses(*((2, 1, 1) if args.quick else (24, 3, 4)), args.seed),
    }
    publish(args.out / "atlas", report(found), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
