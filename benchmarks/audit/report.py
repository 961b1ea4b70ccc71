"""The page of ``benchmarks.audit``, from the records that are there."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.cells import publish
from benchmarks.common.findings import BOOTSTRAP, Measure, measure
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import fill, over_units, table_text, verdict

NAMES = {"squeezenet": "SqueezeNet", "convnet": "the CIFAR ConvNet"}
EXTREMES, TESTS = (
    "2AFC, extremes",
    (
        "2AFC, extremes",
        "2AFC, random pairs",
        "Pearson",
        "AUPRC",
        "paths",
        "transfer",
        "identification",
        "uncalibrated MIS",
    ),
)
WANTED_UNITS, WANTED_FOOLED, WANTED_REFUSED, WANTED_AUROC = 40, 0.95, 0.95, 0.9
BINS = (-1.0, 0.1, 0.3, 0.5, 0.7, 1.0)
DRAWS = 2000


def kind(cells: dict[str, Any], *starts: str) -> dict[str, Any]:
    """What the records with these beginnings of their names found."""
    return {stem: cell["found"] for stem, cell in cells.items() if stem.startswith(starts)}


def row_of(rows: Iterable[dict[str, Any]], test: str, method: str | None = None) -> dict[str, Any]:
    return next(row for row in rows if row["test"] == test and method in (None, row["method"]))


def tests_text(units: dict[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The table method by test over units, worst method first, and its means with intervals."""
    methods = list(dict.fromkeys(row["method"] for cell in units.values() for row in cell["rows"]))
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        for test in TESTS:
            rows = [row for cell in units.values() for row in cell["rows"] if row["method"] == method]
            ran = [row for row in rows if row["test"] == test and row["value"] is not None]
            if ran:
                mean = over_units([row["value"] for row in ran])
                passed = sum(row["state"] == "passed" for row in ran)
                found.setdefault(method, {})[test] = {"mean": mean, "passed": passed, "units": len(ran)}
    order = sorted(found, key=lambda method: found[method][EXTREMES]["mean"].mean)
    lines = [["method", *TESTS]]
    for method in order:
        cells = [found[method].get(test) for test in TESTS]
        lines.append([method, *(cell_text(cell) if cell else "not run" for cell in cells)])
    return table_text(lines), found


def cell_text(cell: dict[str, Any]) -> str:
    mean = cell["mean"]
    return f"{mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}], {cell['passed']} of {cell['units']} passed"


def fooled_text(fooled: dict[str, Any]) -> str:
    """What fooling did to each method's pictures."""
    lines = [["construction", "pictures", "predict, honest unit", "predict, fooled unit", "likeness", "drive, SD"]]
    for construction in ("switch", "silent"):
        cells = [cell["methods"] for stem, cell in fooled.items() if stem.startswith(construction)]
        for method in cells[0] if cells else ():
            own = [cell[method] for cell in cells]
            before, after = ([row_of(one[key], EXTREMES) for one in own] for key in ("honest rows", "rows"))
            drive = [sum(one["honest unit, SD"][place] for one in own) / len(own) for place in (0, 1)]
            lines.append(
                [
                    construction,
                    method,
                    share_text([row["state"] == "passed" for row in before]),
                    share_text([row["state"] == "passed" for row in after]),
                    f"{min(one['likeness'] for one in own):.2f} to {max(one['likeness'] for one in own):.2f}",
                    f"{drive[0]:+.1f}, fooled {drive[1]:+.1f}",
                ]
            )
    return table_text(lines)


def share_text(passed: list[bool]) -> str:
    return f"{sum(passed)} of {len(passed)}"


def auroc(values: torch.Tensor, wanted: torch.Tensor) -> float:
    """Area under the receiver operating characteristic; NaN where one of the two kinds is missing."""
    apart = values[wanted][:, None] - values[~wanted][None]
    return ((apart > 0).double() + 0.5 * (apart == 0)).mean().item()


def calibration(units: dict[str, Any], shuffled: dict[str, Any]) -> dict[str, Any]:
    """Does evidence foretell which landscapes' pictures the judge confirms?"""
    cells = [(cell["evidence"], row_of(cell["rows"], EXTREMES, "edit")) for cell in units.values()]
    cells += [(cell["evidence"], row_of(cell["rows"], EXTREMES)) for cell in shuffled.values()]
    r = torch.tensor([evidence["correlation"] for evidence, _ in cells], dtype=torch.float64)
    good = torch.tensor([not evidence["weak"] for evidence, _ in cells])
    confirmed = torch.tensor([row["state"] == "passed" for _, row in cells])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(r), (DRAWS, len(r)), generator=generator)
    areas = torch.tensor([auroc(r[rows], confirmed[rows]) for rows in drawn], dtype=torch.float64)
    areas = areas[areas.isfinite()]
    low, high = areas.quantile(torch.tensor([0.025, 0.975]).double()).tolist() if len(areas) else (0.0, 1.0)
    bins = []
    for begin, end in pairwise(BINS):
        inside = (r >= begin) & ((r < end) | (end == BINS[-1]))
        bins.append([f"{begin:.1f} to {end:.1f}", int(inside.sum()), int((confirmed & inside).sum())])
    return {
        "landscapes": len(r),
        "auroc": [auroc(r, confirmed), low, high],
        "bins": bins,
        "confirmed": int(confirmed.sum()),
        "good": int(good.sum()),
        "good and confirmed": int((good & confirmed).sum()),
        "refused, shuffled": sum(cell["evidence"]["weak"] for cell in shuffled.values()),
        "shuffled": len(shuffled),
    }


def checks(units: dict[str, Any], fooled: dict[str, Any], known: dict[str, Any] | None) -> dict[str, bool | None]:
    """What was wanted, in a sentence with the figure, and whether it was reached; None is open."""
    said: dict[str, bool | None] = {
        f"It rests on {len(units)} test units (wanted: {WANTED_UNITS}).": len(units) >= WANTED_UNITS
    }
    control = [row for cell in units.values() for row in cell["rows"] if row["method"] == "random_images"]
    fell_for = []
    for test in TESTS:
        ran = [row["state"] == "passed" for row in control if row["test"] == test and row["state"] != "not run"]
        if any(ran):
            fell_for.append(f"{test} for {share_text(ran)}")
    if fell_for:
        said[f"Random photographs, the control, pass {'; '.join(fell_for)} units (wanted: none)."] = False
    if fooled:
        for method in next(iter(fooled.values()))["methods"]:
            passed = [
                row_of(cell["methods"][method]["rows"], EXTREMES)["state"] == "passed" for cell in fooled.values()
            ]
            text = f"Of fooled units, pictures of {method} still predict the natural behaviour of {share_text(passed)}"
            if method == "edit":
                said[f"{text} (wanted: {WANTED_FOOLED:.0%})."] = sum(passed) >= WANTED_FOOLED * len(passed)
            elif method != "natural_images":
                own = [row_of(cell["methods"][method]["honest rows"], EXTREMES) for cell in fooled.values()]
                before = [row["state"] == "passed" for row in own]
                text = f"{text}; pictures of the honest units that of {share_text(before)} (wanted: none when fooled)."
                said[text] = not any(passed) if any(before) else None
        least = min(cell["agreement"] for cell in fooled.values())
        said[f"Fooled units answer photographs as before: r = {least:.4f} at least (wanted: 0.999)."] = least >= 0.999
        change = max(abs(cell["accuracy"][0] - cell["accuracy"][1]) for cell in fooled.values())
        text = f"Fooling changes the network's accuracy by {100 * change:.2f} points at most (wanted: 0.5)."
        said[text] = change <= 0.005
    if known:
        mean, low, high = known["auroc"]
        wanted = f"(wanted: {WANTED_AUROC}; {known['landscapes']} landscapes, 200 were wanted)"
        text = (
            f"Evidence foretells which pictures the judge confirms with an AUROC of {mean:.2f} [{low:.2f}, {high:.2f}]"
        )
        said[f"{text} {wanted}."] = True if low >= WANTED_AUROC else False if high < WANTED_AUROC else None
        refused, count = known["refused, shuffled"], known["shuffled"]
        text = f"Evidence refuses {refused} of {count} landscapes of shuffled responses (wanted: {WANTED_REFUSED:.0%})."
        said[text] = refused >= WANTED_REFUSED * count if count else None
    return said


def calibration_text(known: dict[str, Any]) -> str:
    rows = [["held-out correlation", "landscapes", "confirmed by the judge"], *known["bins"]]
    missed = known["confirmed"] - known["good and confirmed"]
    wrong = known["good"] - known["good and confirmed"]
    point = (
        f"Operating point of WEAK EVIDENCE: of {known['confirmed']} confirmed landscapes, {missed} are called weak; of "
        f"{known['landscapes'] - known['confirmed']} that the judge does not confirm, {wrong} are called good."
    )
    return f"{table_text(rows)}\n\n{point}"


def write(cells: dict[str, Any], folder: Path) -> None:
    """``audit.json`` and ``audit.md``: what fails first."""
    units, shuffled, fooled = (kind(cells, f"{name}-") for name in ("unit", "shuffled", "fooled"))
    fooled = {f"{way}-{stem}": one for stem, cell in fooled.items() for way, one in cell.items()}
    if not units:
        print(f"no unit has been audited yet in {folder}")
        return
    known = calibration(units, shuffled)
    tables, measures = [], list[Measure]()
    for network, name in NAMES.items():
        if own := kind(cells, f"unit-{network}-"):
            text, found = tests_text(own)
            tables += [f"### {len(own)} units of {name}", "", text, ""]
            measures += [
                measure(
                    f"audit, {name}: extreme pairs of photographs told by pictures of {method}",
                    found[method][EXTREMES]["mean"],
                    "share",
                    f"{found[method][EXTREMES]['units']} test units",
                    spread=BOOTSTRAP,
                )
                for method in found
                if method != "random_images"  # the control, whose passes are an aim
            ]
    said = checks(units, fooled, known)
    seconds: dict[str, list[float]] = {}
    for cell in units.values():
        for method, value in cell["seconds"].items():
            seconds.setdefault(method, []).append(value)
    costs = [["pictures", "CPU seconds a unit"], *([one, f"{sum(x) / len(x):.1f}"] for one, x in seconds.items())]
    sources = list({provenance_line(cell["provenance"]): None for cell in cells.values()})
    text = fill(
        __file__,
        "page",
        verdict=verdict(said),
        tables=tables,
        fooled=fooled_text(fooled) if fooled else "No unit was fooled yet.",
        fooled_units=len(fooled),
        calibration=calibration_text(known),
        costs=table_text(costs),
        sources=[f"- {one}" for one in sources],
    )
    numbers = {
        "cells": {stem: cell["found"] for stem, cell in cells.items()},
        "calibration": known,
        "checks": said,
        "measures": [asdict(one) for one in measures],
        "provenance": next(iter(cells.values()))["provenance"],
    }
    publish(folder / "audit", text, numbers)
