"""Tables of the planted units, losses first."""

from collections.abc import Sequence
from typing import Any

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import SIGN
from benchmarks.common.findings import BOOTSTRAP, Aim, Findings, measure
from benchmarks.common.script import provenance_line
from benchmarks.common.tables import fill, over_units, table_text
from benchmarks.planted_units.methods import METHODS, SHIPPED, SINGLE
from benchmarks.planted_units.truth import load_plan

MEASURES = {
    "realism 0.9": "at equal realism (0.9 of natural)",
    "realism 1.0": "at equal realism (1.0 of natural)",
    "angle": "at the matched angle",
    "retrieval": "nearest natural image, at the matched angle",
}
Rows = list[dict[str, Any]]


def complete(rows: Rows) -> Rows:
    """Rows of the units on which every method was run: what a table that compares them may average."""
    methods = {row["method"] for row in rows}
    unit = lambda row: tuple(row[key] for key in ("family", "seed", "snr", "images"))  # noqa: E731
    run_on: dict[tuple[Any, ...], set[str]] = {}
    for row in rows:
        run_on.setdefault(unit(row), set()).add(row["method"])
    return [row for row in rows if run_on[unit(row)] == methods]


def per_unit(rows: Rows, method: str, name: str, **where: Sequence[object]) -> list[float]:
    """The measure of each unit (family x seed), averaged over the conditions and directions that remain."""
    units: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["method"] == method and all(row[key] in value for key, value in where.items()):
            units.setdefault((row["family"], row["seed"]), []).append(row[name])
    return [sum(values) / len(values) for _, values in sorted(units.items())]


def on_mixtures(rows: Rows, method: str, way: str) -> list[float]:
    """At equal realism, of each mixture."""
    mixtures = [family for family in load_plan()["families"] if family.startswith("mixture")]
    return per_unit(rows, method, first_measure(), family=mixtures, direction=[way])


def first_measure() -> str:
    return f"realism {load_plan()['realism']['levels'][0]}"


def verdicts(rows: Rows) -> list[tuple[bool, str]]:
    """Whether the shipped method beats each single direction on mixtures at equal realism: (it does, a sentence)."""
    found = []
    present = {row["method"] for row in rows}
    for rival in SINGLE if SHIPPED in present else ():
        if rival in present:
            both = complete([row for row in rows if row["method"] in (SHIPPED, rival)])
            ours, theirs = (on_mixtures(both, method, "increase") for method in (SHIPPED, rival))
            one = vl.paired_difference(ours, theirs, levels=("unit",))
            says = "beats" if one.low > 0 else "loses to" if one.high < 0 else "is not told apart from"
            text = f"On mixtures, {MEASURES[first_measure()]}, increase: {SHIPPED} {says} {rival}: {one} SD."
            found.append((one.low > 0, text))
    return found


def table(rows: Rows, name: str, direction: str, **where: Sequence[object]) -> str:
    """A Markdown table: methods by families, mean and interval over units; the best of a family is bold."""
    families = list(load_plan()["families"])
    labels = [label for label in METHODS if any(row["method"] == label for row in rows)]

    def column(family: str) -> list[str]:
        units = [per_unit(rows, label, name, family=[family], direction=[direction], **where) for label in labels]
        best = max(map(sum, units))
        shown = [f"{one[0]:+.2f}" if len(one) == 1 else str(over_units(one)) if one else "" for one in units]
        return [f"**{text}**" if text and sum(one) == best else text for text, one in zip(shown, units, strict=True)]

    return table_text([["method", *families], *zip(labels, *map(column, families), strict=True)])


def report(rows: Rows, source: dict[str, Any]) -> str:
    """The page: losses first."""
    plan = load_plan()
    said = sorted(verdicts(rows), key=lambda item: item[0])
    decided = len({(row["family"], row["seed"]) for row in rows if row["method"] == SHIPPED})
    rows = complete(rows)
    tables = []
    for way in SIGN:
        for name, title in MEASURES.items():
            tables += [f"## {way}, {title}", "", table(rows, name, way), ""]
    first = first_measure()
    for condition in plan["conditions"]:
        chosen = {key: [condition[key]] for key in ("snr", "images")}
        if any(all(row[key] in values for key, values in chosen.items()) for row in rows):
            title = f"increase, SNR {condition['snr']:g}, {condition['images']} images, {MEASURES[first]}"
            tables += [f"## {title}", "", table(rows, first, "increase", **chosen), ""]
    spent = {label: [row["seconds"] for row in rows if row["method"] == label] for label in METHODS}
    seconds = [(label, f"{sum(values) / len(values):.2f}") for label, values in spent.items() if values]
    return fill(
        __file__,
        "page",
        verdicts=[f"- {text}" for _, text in said],
        units=len({(row["family"], row["seed"]) for row in rows}),
        decided=decided,
        plan=plan,
        tables=tables,
        seconds=table_text([("method", "s"), *seconds]),
        source=provenance_line(source),
    )


def findings(numbers: dict[str, Any]) -> Findings:
    """Mixtures whose preferences are known: the shipped method against every single direction, at equal realism."""
    rows = numbers["rows"]
    what = f"planted mixtures, {SHIPPED}: true response at equal realism"
    units = {way: on_mixtures(rows, SHIPPED, way) for way in SIGN}
    measures = [
        measure(what, over_units(values), "SD", f"{len(values)} planted units", way, BOOTSTRAP)
        for way, values in units.items()
        if values
    ]
    return Findings(tuple(Aim(text, won) for won, text in verdicts(rows)), tuple(measures))
