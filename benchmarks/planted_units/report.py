"""Tables of the planted units, losses first."""

from typing import Any

from benchmarks.common import package as vl
from benchmarks.common.findings import BOOTSTRAP, Aim, Findings, Measure
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import table as markdown
from benchmarks.planted_units.methods import METHODS, SHIPPED, SINGLE
from benchmarks.planted_units.truth import load_plan

DIRECTIONS = ("increase", "decrease")


MEASURES = {
    "realism 0.9": "at equal realism (0.9 of natural)",
    "realism 1.0": "at equal realism (1.0 of natural)",
    "angle": "at the matched angle",
    "retrieval": "nearest natural image, at the matched angle",
}


def complete(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the units on which every method was run: what a table that compares them may average."""
    methods = {row["method"] for row in rows}
    run_on: dict[tuple[Any, ...], set[str]] = {}
    for row in rows:
        run_on.setdefault((row["family"], row["seed"], row["snr"], row["images"]), set()).add(row["method"])
    return [row for row in rows if run_on[row["family"], row["seed"], row["snr"], row["images"]] == methods]


def per_unit(rows: list[dict[str, Any]], method: str, measure: str, **where: Any) -> list[float]:
    """The measure of each unit (family x seed), averaged over the conditions and directions that remain."""
    units: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["method"] == method and all(row[key] in value for key, value in where.items()):
            units.setdefault((row["family"], row["seed"]), []).append(row[measure])
    return [sum(values) / len(values) for _, values in sorted(units.items())]


def verdicts(rows: list[dict[str, Any]]) -> list[tuple[bool, str]]:
    """Whether the shipped method beats each single direction on mixtures at equal realism: (it does, a sentence)."""
    found = []
    mixtures = [family for family in load_plan()["families"] if family.startswith("mixture")]
    measure = f"realism {load_plan()['realism']['levels'][0]}"
    present = {row["method"] for row in rows}
    for rival in SINGLE if SHIPPED in present else ():
        if rival not in present:
            continue
        ours, theirs = (
            per_unit(rows, method, measure, family=mixtures, direction=["increase"]) for method in (SHIPPED, rival)
        )
        difference = vl.paired_difference(ours, theirs, levels=("unit",))
        won = difference.low > 0
        says = "beats" if won else ("loses to" if difference.high < 0 else "is not told apart from")
        found.append((won, f"On mixtures, {MEASURES[measure]}, increase: {SHIPPED} {says} {rival}: {difference} SD."))
    return found


def table(rows: list[dict[str, Any]], measure: str, direction: str, **where: Any) -> list[str]:
    """A Markdown table: methods by families, mean and interval over units."""
    families = list(load_plan()["families"])
    lines = [["method", *families]]
    labels = [label for label in METHODS if any(row["method"] == label for row in rows)]
    cells = {
        (label, family): per_unit(rows, label, measure, family=[family], direction=[direction], **where)
        for label in labels
        for family in families
    }
    for label in labels:
        line = []
        for family in families:
            values = cells[label, family]
            if not values:
                line.append("")
                continue
            best = max(sum(cells[other, family]) for other in labels)
            text = str(vl.interval(values, levels=("unit",))) if len(values) > 1 else f"{values[0]:+.2f}"
            line.append(f"**{text}**" if sum(values) == best else text)
        lines.append([label, *line])
    return markdown(lines)[:-1]


def report(rows: list[dict[str, Any]], source: dict[str, Any]) -> str:
    """The page: losses first."""
    plan = load_plan()
    said = sorted(verdicts(rows), key=lambda item: item[0])
    lines = ["# Planted units", "", *[f"- {text}" for _, text in said], ""]
    decided = len({(row["family"], row["seed"]) for row in rows if row["method"] == SHIPPED})
    rows = complete(rows)
    units = len({(row["family"], row["seed"]) for row in rows})
    about = (
        f"Tables: the {units} units on which every method was run; the lines above: all {decided}, of which more are "
        "mixtures. True response change in SDs of the noiseless response, the wanted way positive, against the "
        "unedited embedding; mean over inputs and conditions, 95 % bootstrap interval over units (few, so too narrow). "
        f"Matched angle: {plan['matched_angle']:g}°. Realism: {plan['realism']['measure']}; {plan['realism']['read']}. "
        f"Level: {plan['realism']['level']}. Retrieval: {plan['retrieval']}."
    )
    lines += [about, ""]
    for direction in DIRECTIONS:
        for measure, title in MEASURES.items():
            lines += [f"## {direction}, {title}", "", *table(rows, measure, direction), ""]
    first = f"realism {plan['realism']['levels'][0]}"
    for condition in plan["conditions"]:
        chosen = {"snr": [condition["snr"]], "images": [condition["images"]]}
        if any(row["snr"] == condition["snr"] and row["images"] == condition["images"] for row in rows):
            title = f"increase, SNR {condition['snr']:g}, {condition['images']} images, {MEASURES[first]}"
            lines += [f"## {title}", "", *table(rows, first, "increase", **chosen), ""]
    seconds = {label: [row["seconds"] for row in rows if row["method"] == label] for label in METHODS}
    lines += [
        "## Seconds for a fit and its edits (both directions, all angles), mean",
        "",
        "| method | s |",
        "|---|---|",
    ]
    lines += [f"| {label} | {sum(spent) / len(spent):.2f} |" for label, spent in seconds.items() if spent]
    return "\n".join([*lines, "", provenance_line(source), ""])


def findings(numbers: dict[str, Any]) -> Findings:
    """Mixtures whose preferences are known: the shipped method against every single direction, at equal realism."""

    rows, plan = numbers["rows"], load_plan()
    mixtures = [family for family in plan["families"] if family.startswith("mixture")]
    measures = []
    for way in ("increase", "decrease"):
        measure = f"realism {plan['realism']['levels'][0]}"
        values = per_unit(rows, SHIPPED, measure, family=mixtures, direction=[way])
        if not values:
            continue
        found = vl.interval(values, levels=("unit",))
        what = f"planted mixtures, {SHIPPED}: true response at equal realism"
        ends = (found.low, found.high)
        measures.append(Measure(what, found.mean, "SD", f"{len(values)} planted units", *ends, BOOTSTRAP, way))
    return Findings(tuple(Aim(text, won) for won, text in verdicts(rows)), tuple(measures))
