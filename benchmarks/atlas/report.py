"""The page of the atlas benchmark: tables of the parts that were run, a plot of growth, and the limits."""

import math
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common.figures import save_small
from benchmarks.common.findings import Measure, stated_measures
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import fill, table_text, verdict

UNITS, MINUTES, RATIO, MEMORY = 512, 12.0, 6.0, 4.0
MANY, MANY_MINUTES, SEARCH_MS, FIRST_MS, KILOBYTES = 10000, 15.0, 100.0, 1000.0, 60.0
PROCESSES, LINEAR = 1.7, 1.2
"""Exponent of growth up to which a cost counts as near linear."""


def lens_numbers(found: dict[str, Any]) -> dict[str, float]:
    """What the atlas and the loop cost for 512 units, from what was measured."""
    lens = [fit + pictures for fit, pictures in zip(found["lens_fit"], found["lens_pictures"], strict=True)]
    further = lens[1:] or lens
    a_unit = found["atlas_pictures"] / found["atlas_units"]
    atlas = found["atlas_fit"] + UNITS * a_unit
    loop = lens[0] + sum(further) / len(further) * (UNITS - 1)
    fits = found["lens_fit"][1:] or found["lens_fit"]
    return {
        "a_unit": a_unit,
        "lens_fit": sum(fits) / len(fits),
        "ratio_of_fits": (found["lens_fit"][0] + sum(fits) / len(fits) * (UNITS - 1)) / found["atlas_fit"],
        "lens_first": lens[0],
        "lens_further": sum(further) / len(further),
        "minutes": atlas / 2 / 60,
        "ratio": loop / atlas,
        "ratio_a_unit": sum(further) / len(further) / a_unit,
        "kilobytes": found["site_bytes"] / found["atlas_units"] / 1000,
    }


def exponent(rows: list[dict[str, Any]], name: str, part: str = "fit") -> float:
    """Steepest power between neighbouring sizes with which the CPU seconds of a part grow."""
    return max(math.log(b[part] / a[part]) / math.log(b[name] / a[name]) for a, b in pairwise(rows))


def checks_of(parts: dict[str, Any]) -> dict[str, bool | None]:
    """Every line that was asked for, and whether it holds; None where its part was not run."""
    checks: dict[str, bool | None] = {}
    if found := parts.get("lenses"):
        numbers = lens_numbers(found)
        whole = found["atlas_units"] >= UNITS
        seen = f", projected from {found['atlas_units']} of them and the fit of all {found['layer_units']}"
        how = "" if whole else seen
        line = f"{UNITS} units of Lite2, {found['references']:,} references, {found['inputs']} pictures each way:"
        if (timed := parts.get("whole", {"units": 0}))["units"] >= UNITS:
            minutes = timed["seconds"] / 60
            checks[f"{line} {minutes:.1f} minutes by the clock, two processes (at most {MINUTES:.0f})"] = (
                minutes <= MINUTES
            )
        else:
            checks[f"{line} {numbers['minutes']:.1f} minutes of two cores (at most {MINUTES:.0f}){how}"] = _seen(
                numbers["minutes"] <= MINUTES, whole
            )
        checks[f"{numbers['ratio']:.1f} times the speed of a loop over lenses (at least {RATIO:.0f}){how}"] = _seen(
            numbers["ratio"] >= RATIO, whole
        )
        checks[f"{numbers['kilobytes']:.0f} kB of site a unit of Lite2 (at most {KILOBYTES:.0f})"] = (
            numbers["kilobytes"] <= KILOBYTES
        )
        checks[f"peak memory of that atlas {found['peak_gib']:.1f} GiB (at most {MEMORY:.0f})"] = (
            found["peak_gib"] <= MEMORY
        )
    else:
        checks[f"{UNITS} units of Lite2 in {MINUTES:.0f} minutes, {RATIO:.0f} times a loop: not run"] = None
    if found := parts.get("growth"):
        for name in ("references", "dimensions", "units"):
            rows = found[name]
            power = exponent(rows, name)
            checks[f"fit and evidence grow with {name} to the power {power:.2f} at most (near linear: {LINEAR})"] = (
                power <= LINEAR
            )
        last = found["units"][-1]
        minutes = (last["fit"] + last["population"]) / 60
        line = f"{last['units']:,} simulated units: fit and evidence"
        checks[f"{line} {minutes:.1f} CPU minutes (at most {MANY_MINUTES:.0f})"] = (
            minutes <= MANY_MINUTES if last["units"] >= MANY else None
        )
        checks[f"peak memory of {last['units']:,} units {last['peak_gib']:.1f} GiB (at most {MEMORY:.0f})"] = (
            last["peak_gib"] <= MEMORY
        )
    else:
        checks["growth: not run"] = None
    if (found := parts.get("many")) and found["browser"]:
        search = max(own for own, _ in found["search_ms"].values())
        first, cards = median(found["first_page_ms"]), max(both for _, both in found["search_ms"].values())
        at = f"an index of {found['units']:,} units:"
        checks[f"{at} the slowest search {search:.0f} ms, {cards:.0f} with its cards (at most {SEARCH_MS:.0f})"] = (
            cards <= SEARCH_MS
        )
        checks[f"{at} first cards after {first:.0f} ms (at most {FIRST_MS:.0f})"] = first <= FIRST_MS
        size = found["site_bytes"] / found["units"] / 1000
        checks[f"{at} {size:.0f} kB of site a unit, without pictures (at most {KILOBYTES:.0f})"] = size <= KILOBYTES
    else:
        checks["an index of 10,000 units in a browser: not run"] = None
    if found := parts.get("workers"):
        one, two = (median(found["seconds"][name]) for name in "12")
        checks[f"two processes make {one / two:.2f} times the units of one (at least {PROCESSES})"] = (
            one / two >= PROCESSES
        )
    else:
        checks["two processes against one: not run"] = None
    for name, seen in parts.get("engines", {}).get("engines", {}).items():
        label = {"distributed": "Dask", "ray": "Ray"}.get(name, name)
        checks[f"{label} and a single process: {'not installed' if seen is None else 'the same bytes'}"] = (
            None if seen is None else seen["identical"]
        )
    if "engines" not in parts:
        checks["Ray, Dask and submitit against one process: not run"] = None
    if found := parts.get("kills"):
        checks[f"{found['kills']} kills, and the same bytes at the end"] = found["identical"]
    else:
        checks["ten kills: not run"] = None
    return checks


def _seen(met: bool, whole: bool) -> bool | None:
    """A line that a projection does not break is open, not held."""
    return met if whole or not met else None


def tables(parts: dict[str, Any]) -> list[str]:
    """The tables of the parts that were run."""
    lines: list[str] = []
    if found := parts.get("lenses"):
        numbers = lens_numbers(found)
        rows = [
            ["what", "CPU seconds"],
            [f"atlas: reading, fit and evidence of all {found['layer_units']} units", f"{found['atlas_fit']:.1f}"],
            ["atlas: pictures, measurements, table and site, a unit", f"{numbers['a_unit']:.2f}"],
            ["lens: first unit, fit and pictures", f"{numbers['lens_first']:.1f}"],
            ["lens: a further unit, fit", f"{numbers['lens_fit']:.2f}"],
            ["lens: a further unit, fit and pictures", f"{numbers['lens_further']:.2f}"],
        ]
        lines += fill(
            __file__,
            "lenses",
            **{name: found[name] for name in ("model", "layer", "atlas_units", "inputs", "references")},
            lens_units=len(found["lens_fit"]),
            table=table_text(rows),
            **{name: numbers[name] for name in ("ratio_a_unit", "ratio", "ratio_of_fits")},
            difference=max(found["differences_of_r"]),
            load=found["load"],
        ).split("\n")
    if found := parts.get("growth"):
        head = ["units", "references", "dimensions", "fit and evidence, s", "neighbours, s", "map, s", "peak GiB"]
        rows = [[*head, "real that pass", "false among passing"]]
        for one in [*found["references"], *found["dimensions"], *found["units"]]:
            sizes = [f"{one[name]:,}" for name in ("units", "references", "dimensions")]
            spent = [f"{one[name]:.1f}" for name in ("fit", "population", "map", "peak_gib")]
            rows.append([*sizes, *spent, f"{one['real_that_pass']:.1%}", f"{one['false_among_passing']:.1%}"])
        power = exponent(found["units"][-2:], "units", "population")
        lines += fill(__file__, "growth", table=table_text(rows), power=power).split("\n")
    return lines


def plot(growth: dict[str, Any], path: Path) -> None:
    """CPU seconds of the fit against each size, beside a straight line through the largest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(9, 2.8), dpi=110)
    FigureCanvasAgg(page)
    for axis, name in zip(page.subplots(1, 3), ("units", "references", "dimensions"), strict=True):
        rows = growth[name]
        sizes, spent = [row[name] for row in rows], [row["fit"] for row in rows]
        axis.plot(sizes, spent, "o-", label="measured")
        axis.plot([0, sizes[-1]], [0, spent[-1]], "--", color="grey", label="proportional")
        axis.set_xlabel(name)
        axis.set_ylim(bottom=0)
    page.axes[0].set_ylabel("fit and evidence, CPU s")
    page.axes[0].legend(frameon=False, fontsize=8)
    page.tight_layout()
    save_small(page, path, 60_000)


def report(parts: dict[str, Any], sources: dict[str, Any], out: Path) -> tuple[str, dict[str, Any]]:
    """The page and its JSON values.

    Args:
        parts: What each part found, of those that were run.
        sources: Provenance of each.
        out: Where the plot goes.
    """
    checks = checks_of(parts)
    if "growth" in parts:
        plot(parts["growth"], out / "atlas_growth.webp")
    measures = []
    if found := parts.get("lenses"):
        numbers = lens_numbers(found)
        sample = f"{found['atlas_units']} units of {found['layer']}, {len(found['lens_fit'])} lenses"
        measures = [Measure("atlas against a loop over lenses, 512 units", numbers["ratio"], "ratio", sample)]
    text = fill(
        __file__,
        "page",
        provenance="\n\n".join(f"{name}: {provenance_line(source)}" for name, source in sources.items()),
        verdict=verdict(checks),
        tables=tables(parts),
    )
    found = {"checks": checks, "measures": stated_measures(measures), "sources": sources, "parts": parts}
    return text, found
