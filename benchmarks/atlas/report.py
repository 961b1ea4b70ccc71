"""The page of the atlas benchmark: tables of the parts that were run, a plot of growth, and the limits."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.common.figures import empty, save_small
from benchmarks.common.findings import Measure, stated_measures
from benchmarks.common.script import provenance_line
from benchmarks.common.tables import fill, table_text, verdict

UNITS, MINUTES, RATIO, MEMORY = 512, 12.0, 6.0, 4.0
MANY, MANY_MINUTES, SEARCH_MS, FIRST_MS, KILOBYTES = 10000, 15.0, 100.0, 1000.0, 60.0
PROCESSES, LINEAR = 1.7, 1.2  # exponent of growth up to which a cost counts as near linear
Checks = dict[str, bool | None]


def lens_numbers(found: dict[str, Any]) -> dict[str, float]:
    """What the atlas and the loop cost for 512 units, from what was measured."""
    lens = [fit + pictures for fit, pictures in zip(found["lens_fit"], found["lens_pictures"], strict=True)]
    further, fit = fmean(lens[1:] or lens), fmean(found["lens_fit"][1:] or found["lens_fit"])
    a_unit = found["atlas_pictures"] / found["atlas_units"]
    atlas = found["atlas_fit"] + UNITS * a_unit
    return {
        "a_unit": a_unit,
        "lens_fit": fit,
        "ratio_of_fits": (found["lens_fit"][0] + fit * (UNITS - 1)) / found["atlas_fit"],
        "lens_first": lens[0],
        "lens_further": further,
        "minutes": atlas / 2 / 60,
        "ratio": (lens[0] + further * (UNITS - 1)) / atlas,
        "ratio_a_unit": further / a_unit,
        "kilobytes": found["site_bytes"] / found["atlas_units"] / 1000,
    }


def exponent(rows: list[dict[str, Any]], name: str, part: str = "fit") -> float:
    """Steepest power between neighbouring sizes with which the CPU seconds of a part grow."""
    return max(math.log(b[part] / a[part]) / math.log(b[name] / a[name]) for a, b in pairwise(rows))


def checks_of(parts: dict[str, Any]) -> dict[str, bool | None]:
    """Every line that was asked for, and whether it holds; None where its part was not run."""
    asked: dict[str, tuple[Callable[[dict[str, Any]], Checks], str]] = {
        "lenses": (
            lambda found: lens_checks(found, parts.get("whole", {"units": 0})),
            f"{UNITS} units of Lite2 in {MINUTES:.0f} minutes, {RATIO:.0f} times a loop: not run",
        ),
        "growth": (growth_checks, "growth: not run"),
        "many": (many_checks, "an index of 10,000 units in a browser: not run"),
        "workers": (workers_checks, "two processes against one: not run"),
        "engines": (engine_checks, "Ray, Dask and submitit against one process: not run"),
        "kills": (
            lambda found: {f"{found['kills']} kills, and the same bytes at the end": found["identical"]},
            "ten kills: not run",
        ),
    }
    checks: Checks = {}
    for part, (check, absent) in asked.items():
        there = part in parts and (part != "many" or parts[part]["browser"])
        checks |= check(parts[part]) if there else {absent: None}
    return checks


def lens_checks(found: dict[str, Any], timed: dict[str, Any]) -> Checks:
    """Of an atlas against a loop; what a projection does not break is open, not held."""
    numbers, whole = lens_numbers(found), found["atlas_units"] >= UNITS
    how = "" if whole else f", projected from {found['atlas_units']}"
    line = f"{UNITS} units of Lite2, {found['references']:,} references, {found['inputs']} inputs:"
    fast, faster = numbers["minutes"] <= MINUTES, numbers["ratio"] >= RATIO
    if timed["units"] >= UNITS:
        minutes = timed["seconds"] / 60
        text = f"{line} {minutes:.1f} minutes by the clock, two processes (at most {MINUTES:.0f})"
        checks: Checks = {text: minutes <= MINUTES}
    else:
        text = f"{line} {numbers['minutes']:.1f} minutes of two cores (at most {MINUTES:.0f}){how}"
        checks = {text: fast if whole or not fast else None}
    text = f"{numbers['ratio']:.1f} times the speed of a loop over lenses (at least {RATIO:.0f}){how}"
    checks[text] = faster if whole or not faster else None
    size, peak = numbers["kilobytes"], found["peak_gib"]
    checks[f"{size:.0f} kB of site a unit of Lite2 (at most {KILOBYTES:.0f})"] = size <= KILOBYTES
    return checks | {f"peak memory of that atlas {peak:.1f} GiB (at most {MEMORY:.0f})": peak <= MEMORY}


def growth_checks(found: dict[str, Any]) -> Checks:
    checks: Checks = {}
    for name in ("references", "dimensions", "units"):
        power = exponent(found[name], name)
        text = f"fit and evidence grow with {name} to the power {power:.2f} at most (near linear: {LINEAR})"
        checks[text] = power <= LINEAR
    last = found["units"][-1]
    minutes, peak = (last["fit"] + last["population"]) / 60, last["peak_gib"]
    text = f"{last['units']:,} simulated units: fit and evidence {minutes:.1f} CPU minutes (at most {MANY_MINUTES:.0f})"
    checks[text] = minutes <= MANY_MINUTES if last["units"] >= MANY else None
    return checks | {f"peak memory of {last['units']:,} units {peak:.1f} GiB (at most {MEMORY:.0f})": peak <= MEMORY}


def many_checks(found: dict[str, Any]) -> Checks:
    search, cards = (max(spent) for spent in zip(*found["search_ms"].values(), strict=True))
    first, size = median(found["first_page_ms"]), found["site_bytes"] / found["units"] / 1000
    at = f"an index of {found['units']:,} units:"
    text = f"{at} the slowest search {search:.0f} ms, {cards:.0f} with its cards (at most {SEARCH_MS:.0f})"
    return {
        text: cards <= SEARCH_MS,
        f"{at} first cards after {first:.0f} ms (at most {FIRST_MS:.0f})": first <= FIRST_MS,
        f"{at} {size:.0f} kB of site a unit, without pictures (at most {KILOBYTES:.0f})": size <= KILOBYTES,
    }


def workers_checks(found: dict[str, Any]) -> Checks:
    ratio = median(found["seconds"]["1"]) / median(found["seconds"]["2"])
    return {f"two processes make {ratio:.2f} times the units of one (at least {PROCESSES})": ratio >= PROCESSES}


def engine_checks(found: dict[str, Any]) -> Checks:
    checks: Checks = {}
    for name, seen in found["engines"].items():
        label = {"distributed": "Dask", "ray": "Ray"}.get(name, name)
        how = "the same bytes" if seen else "not installed"
        checks[f"{label} and a single process: {how}"] = seen["identical"] if seen else None
    return checks


def tables(parts: dict[str, Any]) -> list[str]:
    """The tables of the parts that were run."""
    texts: list[str] = []
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
        shown = {"found": found, "numbers": numbers, "lens_units": len(found["lens_fit"]), "table": table_text(rows)}
        texts.append(fill(__file__, "lenses", **shown, difference=max(found["differences_of_r"])))
    if found := parts.get("growth"):
        head = ["units", "references", "dimensions", "fit and evidence, s", "neighbours, s", "map, s", "peak GiB"]
        rows = [[*head, "real that pass", "false among passing"]]
        for one in [*found["references"], *found["dimensions"], *found["units"]]:
            sizes = [f"{one[name]:,}" for name in ("units", "references", "dimensions")]
            spent = [f"{one[name]:.1f}" for name in ("fit", "population", "map", "peak_gib")]
            rows.append([*sizes, *spent, f"{one['real_that_pass']:.1%}", f"{one['false_among_passing']:.1%}"])
        power = exponent(found["units"][-2:], "units", "population")
        texts.append(fill(__file__, "growth", table=table_text(rows), power=power))
    return texts


def plot(growth: dict[str, Any], path: Path) -> None:
    """CPU seconds of the fit against each size, beside a straight line through the largest."""
    page = empty(9, 2.8)
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
    """The page and its JSON values, from what each part found and its provenance; the plot goes to ``out``."""
    checks = checks_of(parts)
    if "growth" in parts:
        plot(parts["growth"], out / "atlas_growth.webp")
    measures = []
    if found := parts.get("lenses"):
        what, ratio = "atlas against a loop over lenses, 512 units", lens_numbers(found)["ratio"]
        sample = f"{found['atlas_units']} units of {found['layer']}, {len(found['lens_fit'])} lenses"
        measures = [Measure(what, ratio, "ratio", sample)]
    text = fill(
        __file__,
        "page",
        provenance="\n\n".join(f"{name}: {provenance_line(source)}" for name, source in sources.items()),
        verdict=verdict(checks),
        tables=tables(parts),
    )
    found = {"checks": checks, "measures": stated_measures(measures), "sources": sources, "parts": parts}
    return text, found
