"""The page of ``benchmarks.audit``, from the records that are there."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.findings import BOOTSTRAP, Measure, measure
from benchmarks.common.script import provenance_line, publish
from benchmarks.common.tables import bracketed, fill, not_below, over_units, signed, table_text, verdict

NAMES = {"squeezenet": "SqueezeNet", "lite2": "EfficientNet-Lite2", "convnet": "the CIFAR ConvNet"}
EXTREMES = "2AFC, extremes"
TESTS = (EXTREMES, "2AFC, random pairs", "Pearson", "AUPRC", "paths", "transfer", "identification", "uncalibrated MIS")
LANDSCAPES = {
    "unit": "audited units",
    "landscape": "further units",
    "random": "units of the same networks with their weights permuted",
    "shuffled": "audited units with their responses dealt out to the wrong photographs",
}
NETWORKS = ("squeezenet", "lite2")
WANTED_UNITS, WANTED_FOOLED, WANTED_REFUSED, WANTED_AUROC, WANTED_LANDSCAPES = 40, 0.95, 0.95, 0.9, 200
WANTED_SECONDS = 60
SHOWN = {"edit": "edits", "prototypes": "prototypes", "edited_prototypes": "edits of prototypes"}
"""What a page of results shows, which evidence is compared with."""
CHANCE = 0.05  # share of units for which a control may pass a test
AREAS = {
    "all": "all landscapes",
    "real units": "of real units alone",
    "chance alone": "all, where confirmed means only that the interval lies above chance",
}
BINS = (-1.0, 0.1, 0.3, 0.5, 0.7, 0.85, 1.0)
DRAWS = 2000


def kind(cells: dict[str, Any], *starts: str) -> dict[str, Any]:
    """What the records with these beginnings of their names found."""
    return {stem: cell["found"] for stem, cell in cells.items() if stem.startswith(starts)}


def row_of(rows: Iterable[dict[str, Any]], test: str, method: str | None = None) -> dict[str, Any]:
    return next(row for row in rows if row["test"] == test and method in (None, row["method"]))


def audited(cells: dict[str, Any]) -> dict[str, Any]:
    """Units with the rows of all methods and tests, from their cells of three kinds."""
    units = kind(cells, "unit-")
    for stem, cell in units.items():
        names = [stem.replace("unit-", f"{other}-", 1) for other in ("paths", "ascent")]
        others = [cells[name]["found"] for name in names if name in cells]
        units[stem] = cell | {
            "rows": [row for one in (cell, *others) for row in one["rows"]],
            "seconds": cell["seconds"] | {k: v for one in others for k, v in one.get("seconds", {}).items()},
        }
    return units


def tests_text(units: dict[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The table method by test over units, worst method first, and its means with intervals."""
    ran: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in (row for cell in units.values() for row in cell["rows"]):
        if row["value"] is not None:
            ran[row["method"]][row["test"]].append(row)
    found: dict[str, dict[str, Any]] = {
        method: {
            test: {
                "mean": over_units([row["value"] for row in rows]),
                "passed": sum(row["state"] == "passed" for row in rows),
                "units": len(rows),
            }
            for test, rows in tests.items()
        }
        for method, tests in ran.items()
    }
    lines = [["method", *TESTS]]
    for method in sorted(found, key=lambda method: found[method][EXTREMES]["mean"].mean):
        cells = (found[method].get(test) for test in TESTS)
        lines.append([method, *(cell_text(cell) if cell else "not run" for cell in cells)])
    return table_text(lines), found


def cell_text(cell: dict[str, Any]) -> str:
    return f"{bracketed(cell['mean'])}, {cell['passed']} of {cell['units']} passed"


def fooled_text(fooled: dict[str, Any]) -> str:
    """What fooling did to each method's pictures."""
    head = [
        "network",
        "construction",
        "pictures",
        "predict, honest unit",
        "predict, fooled unit",
        "likeness",
        "drive, SD",
    ]
    lines = [head]
    for (network, name), construction in itertools.product(NAMES.items(), ("switch", "silent")):
        start = f"{construction}-fooled-{network}-"
        cells = [cell["methods"] for stem, cell in fooled.items() if stem.startswith(start)]
        for method in cells[0] if cells else ():
            own = [cell[method] for cell in cells]
            likeness = [one["likeness"] for one in own]
            drive = [sum(one["honest unit, SD"][place] for one in own) / len(own) for place in (0, 1)]
            line = [name, construction, method, *(share_text(predicted(own, key)) for key in ("honest rows", "rows"))]
            line += [f"{min(likeness):.2f} to {max(likeness):.2f}", f"{drive[0]:+.1f}, fooled {drive[1]:+.1f}"]
            lines.append(line)
    levels = max(round(255 * cell["methods"]["edit"]["pixels"]) for cell in fooled.values())
    return f"{table_text(lines)}\n\nEdits of honest and fooled units differ by {levels} of 255 levels at most."


def predicted(cells: list[dict[str, Any]], key: str) -> list[bool]:
    """Whether each unit's pictures tell extreme pairs of photographs, before or after it was fooled."""
    return [row_of(cell[key], EXTREMES)["state"] == "passed" for cell in cells]


def share_text(passed: list[bool]) -> str:
    return f"{sum(passed)} of {len(passed)}"


def auroc(values: torch.Tensor, wanted: torch.Tensor) -> float:
    """Area under the receiver operating characteristic; NaN where one of the two kinds is missing."""
    apart = values[wanted][:, None] - values[~wanted][None]
    return ((apart > 0).double() + 0.5 * (apart == 0)).mean().item()


def calibration(cells: dict[str, Any]) -> dict[str, Any]:
    """Does evidence foretell which landscapes' pictures the judge confirms?"""
    found = [(name, cell) for name in LANDSCAPES for cell in kind(cells, f"{name}-").values()]
    r = torch.tensor([cell["evidence"]["correlation"] for _, cell in found], dtype=torch.float64)
    good = torch.tensor([not cell["evidence"]["weak"] for _, cell in found])
    real = torch.tensor([name in ("unit", "landscape") for name, _ in found])
    shuffled = torch.tensor([name == "shuffled" for name, _ in found])
    areas, confirmed = {}, {}
    for shown in SHOWN:
        rows = [row_of(cell["rows"], EXTREMES, shown) for _, cell in found]
        right = confirmed[shown] = torch.tensor([row["state"] == "passed" for row in rows])
        above = torch.tensor([row["low"] is not None and row["low"] > 0.5 for row in rows])
        areas[shown] = {"all": area(r, right), "real units": area(r[real], right[real]), "chance alone": area(r, above)}

    def counts(chosen: torch.Tensor) -> dict[str, int]:
        return {"landscapes": int(chosen.sum())} | {
            shown: int((right & chosen).sum()) for shown, right in confirmed.items()
        }

    bins = []
    for begin, end in itertools.pairwise(BINS):
        inside = (r >= begin) & ((r < end) | (end == BINS[-1]))
        bins.append({"from": begin, "to": end} | counts(inside))
    return {
        "landscapes": {name: sum(one == name for one, _ in found) for name in LANDSCAPES},
        "auroc": areas,
        "refused, shuffled": int((shuffled & ~good).sum()),
        "operating point": {
            "source": "benchmarks/results/audit.md",
            "networks": " and ".join(NAMES[name] for name in NETWORKS),
            "good": counts(good),
            "weak": counts(~good),
            "bins": bins,
        },
    }


def area(values: torch.Tensor, wanted: torch.Tensor) -> list[float]:
    """Area under the receiver operating characteristic with its 95 % bootstrap interval over landscapes."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(values), (DRAWS, len(values)), generator=generator)
    areas = torch.tensor([auroc(values[rows], wanted[rows]) for rows in drawn], dtype=torch.float64)
    areas = areas[areas.isfinite()]
    ends = areas.quantile(torch.tensor([0.025, 0.975]).double()).tolist() if len(areas) else [0.0, 1.0]
    return [auroc(values, wanted), *ends]


def checks(units: dict[str, Any], fooled: dict[str, Any], known: dict[str, Any]) -> dict[str, bool | None]:
    """What was wanted, in a sentence with the figure, and whether it was reached; None is open."""
    said: dict[str, bool | None] = {
        f"It rests on {len(units)} test units (wanted: {WANTED_UNITS}).": len(units) >= WANTED_UNITS
    }
    told = [{row["method"]: row["value"] for row in cell["rows"] if row["test"] == EXTREMES} for cell in units.values()]
    for method, what in SHOWN.items():
        pairs = [(found.get(method), found.get("natural_images")) for found in told]
        if gaps := [own - bar for own, bar in pairs if own is not None and bar is not None]:
            gap = over_units(gaps)
            text = f"Share of extreme pairs of photographs that {what} tell, less that of top photographs"
            said[f"{text}: {signed(gap, 3)} (wanted: not below 0)."] = not_below(gap)
    control = [row for cell in units.values() for row in cell["rows"] if row["method"] == "random_images"]
    fell_for = []
    for test in TESTS:
        ran = [row["state"] == "passed" for row in control if row["test"] == test and row["state"] != "not run"]
        if sum(ran) > CHANCE * len(ran):
            fell_for.append(f"{test} for {share_text(ran)}")
    if control:
        text = f"Random photographs, the control, pass no test for more than {CHANCE:.0%} of units"
        said[f"{text}." if not fell_for else f"{text}; they pass {'; '.join(fell_for)}."] = not fell_for
    if fooled:
        said |= fooled_checks(list(fooled.values()))
    count = sum(known["landscapes"].values())
    areas = {what: known["auroc"][shown]["all"] for shown, what in SHOWN.items()}
    text = ", of ".join(f"{what} {bracketed(area)}" for what, area in areas.items())
    text = f"Evidence foretells which pictures the judge confirms: AUROC of {text} over {count} landscapes (wanted: "
    met = [True if low >= WANTED_AUROC else False if high < WANTED_AUROC else None for _, low, high in areas.values()]
    said[f"{text}{WANTED_AUROC} over {WANTED_LANDSCAPES})."] = False if False in met else None if None in met else True
    refused, shuffled = known["refused, shuffled"], known["landscapes"]["shuffled"]
    text = f"Evidence refuses {refused} of {shuffled} landscapes of shuffled responses (wanted: {WANTED_REFUSED:.0%})."
    said[text] = refused >= WANTED_REFUSED * shuffled if shuffled else None
    return said


def fooled_checks(cells: list[dict[str, Any]]) -> dict[str, bool | None]:
    """Whether edits still predict a fooled unit, ascents no longer do, and nobody could notice the fooling."""
    said: dict[str, bool | None] = {}
    for method in dict.fromkeys(method for cell in cells for method in cell["methods"]):
        own = [cell["methods"][method] for cell in cells if method in cell["methods"]]
        before, after = predicted(own, "honest rows"), predicted(own, "rows")
        still = [now for then, now in zip(before, after, strict=True) if then]
        text = f"Pictures of {method} predict the natural behaviour of {share_text(after)} fooled units: of "
        text += f"{share_text(still)} where those of the honest unit do"
        if method == "edit":
            enough = sum(still) >= WANTED_FOOLED * len(still)
            said[f"{text} (wanted: {WANTED_FOOLED:.0%})."] = enough if still else None
        elif method != "natural_images":
            said[f"{text} (wanted: none)."] = not any(still) if still else None
    least = min(cell["agreement"] for cell in cells)
    said[f"Fooled units answer photographs as before: r = {least:.4f} at least (wanted: 0.999)."] = least >= 0.999
    change = max(abs(cell["accuracy"][0] - cell["accuracy"][1]) for cell in cells)
    text = f"Fooling changes the network's accuracy by {100 * change:.2f} points at most (wanted: 0.5)."
    return said | {text: change <= 0.005}


def time_checks(cells: dict[str, Any]) -> dict[str, bool | None]:
    """Does an audit end in time? Open where other work on the machine may be why it did not."""
    said: dict[str, bool | None] = {}
    for stem, cell in kind(cells, "whole-").items():
        network = NAMES[stem.split("-")[1]]
        text = (
            f"An audit of a fitted lens on {network} took {cell['seconds']:.0f} s on {cell['threads']} threads at a "
            f"load average of {cell['load']:.0f}, and {cell['cpu']:.0f} s of CPU time (wanted: {WANTED_SECONDS} s)."
        )
        in_time = cell["seconds"] <= WANTED_SECONDS
        said[text] = in_time or (None if cell["cpu"] <= WANTED_SECONDS else False)
    return said


def calibration_text(known: dict[str, Any]) -> str:
    point = known["operating point"]
    rows = [["evidence", "landscapes", *(f"{what} confirmed" for what in SHOWN.values())]]
    for name, one in [("good", point["good"]), ("weak", point["weak"])] + [
        (f"held-out correlation {one['from']:g} to {one['to']:g}", one) for one in point["bins"]
    ]:
        rows.append([name, *(str(one[key]) for key in ("landscapes", *SHOWN))])
    areas = [["AUROC of the correlation", *SHOWN.values()]]
    areas += [[what, *(bracketed(known["auroc"][shown][key]) for shown in SHOWN)] for key, what in AREAS.items()]
    return fill(
        __file__,
        "calibration",
        counts=", ".join(f"{known['landscapes'][name]} {said}" for name, said in LANDSCAPES.items()),
        table=table_text(rows),
        areas=table_text(areas),
    ).rstrip("\n")


def evidence_measures(known: dict[str, Any]) -> list[Measure]:
    """What evidence is worth, for pages that show it."""
    spread, count = "95 % bootstrap over landscapes", f"{sum(known['landscapes'].values())} landscapes"
    found = []
    shown_by_page = [(shown, what) for shown, what in SHOWN.items() if shown != "prototypes"]  # as edits of them
    for shown, what in shown_by_page:
        text = f"audit: AUROC of evidence for {what} that the judge confirms"
        found.append(measure(text, known["auroc"][shown]["all"], "", count, spread=spread))
    for name in ("good", "weak"):
        point = known["operating point"][name]
        if total := point["landscapes"]:
            for shown, what in shown_by_page:
                text = f"audit: {name} evidence, {what} confirmed by the judge"
                found.append(Measure(text, point[shown] / total, "share", f"{total} landscapes"))
    return found


def shortened(found: object) -> object:
    """A record without its sentences, which are made of its numbers, and with four digits."""
    if isinstance(found, dict):
        return {key: shortened(value) for key, value in found.items() if key not in ("meaning", "reasons")}
    if isinstance(found, list):
        return [shortened(one) for one in found]
    return float(f"{found:.4g}") if isinstance(found, float) else found


def write(cells: dict[str, Any], folder: Path) -> None:
    """``audit.json`` and ``audit.md``: what fails first."""
    units = audited(cells)
    fooled = {f"{way}-{stem}": one for stem, cell in kind(cells, "fooled-").items() for way, one in cell.items()}
    if not units:
        print(f"no unit has been audited yet in {folder}")
        return
    known = calibration(cells)
    tables, measures = [], list[Measure]()
    for network in NETWORKS:
        name = NAMES[network]
        if own := {stem: cell for stem, cell in units.items() if stem.startswith(f"unit-{network}-")}:
            text, found = tests_text(own)
            tables += [f"### {len(own)} units of {name}", "", text, ""]
            for method in (method for method in found if method != "random_images"):  # whose passes are an aim
                one = found[method][EXTREMES]
                what = f"audit, {network}: extreme pairs told by {method}"
                measures.append(measure(what, one["mean"], "share", f"{one['units']} test units", spread=BOOTSTRAP))
    measures += evidence_measures(known)
    said = checks(units, fooled, known) | time_checks(cells)
    seconds: dict[str, list[float]] = defaultdict(list)
    for method, value in (item for cell in units.values() for item in cell["seconds"].items()):
        seconds[method].append(value)
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
        "cells": {stem: shortened(cell["found"]) for stem, cell in cells.items()},
        "calibration": known,
        "checks": said,
        "measures": [asdict(one) for one in measures],
        "provenance": next(iter(cells.values()))["provenance"],
    }
    publish(folder / "audit", text, numbers)
    (folder / "calibration.json").write_text(json.dumps(known["operating point"], indent=1) + "\n")
