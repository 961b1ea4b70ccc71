"""Table 1: every number of the paper beside ours, and what the paper does not give."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import SIGN
from benchmarks.common.script import provenance_line, read
from benchmarks.common.tables import fill, signed, table, table_text

TABLES: dict[str, dict[str, dict[str, Any]]] = read(Path(__file__).with_name("paper.toml"))
PUBLISHED = {
    kind: {name: row for one in tables.values() for name, row in one.items()} for kind, tables in TABLES.items()
}
LANDSCAPE, SHIPPED = "the paper's landscape", "the landscape with this backend's settings"
BRAINACTIV, PATTERN = "ridge direction (BrainACTIV)", "ridge pattern"
METHODS = (LANDSCAPE, SHIPPED, BRAINACTIV, PATTERN)
BESIDE = {LANDSCAPE: 0, BRAINACTIV: 1}  # which of the paper's two numbers stands beside a method's
COLUMNS = 8  # of a table in the paper's form, at most


def report(
    out: Path,
    targets: Sequence[str],
    encoder: vl.InSilicoEncoder,
    settings: dict[str, Any],
    units: str,
    parted: str,
    said: dict[str, Any],
) -> str:
    """The table: every number of the paper's beside ours, and what the paper does not give."""
    measured = {item.target: item for item in encoder.predictivity_}
    where = {"nsd": "NSD", "things_eeg": "THINGS-EEG2"}[settings["kind"]]
    if settings["simulated"]:
        where = f"SIMULATED data in the layout of {where} (says nothing of the paper's numbers)"
    changes = [column for way in SIGN for column in (f"Δr {way} / paper", "against α = 0", "right way")]
    rows = [["target", "judge's held-out R", "method", *changes, "FID@2k / paper"]]
    for target in targets:
        item, paper = measured[target], PUBLISHED[settings["kind"]].get(target)
        trust = f"{item.r:.2f}" + ("" if item.doubt is None else " (NOT ABOVE CHANCE)")
        for number, method in enumerate(METHODS):
            path = out / f"{target}-{number}.json"
            if path.is_file():
                place = BESIDE.get(method)
                beside = None if paper is None or place is None else [pair[place] for pair in paper]
                rows.append([target, trust, method, *cells(read(path), beside)])
    return fill(
        __file__,
        "page",
        **settings | {"where": where, "units": units, "parted": parted},
        rows=table_text(rows),
        forms=[line for name, paper in TABLES[settings["kind"]].items() for line in in_form(out, name, targets, paper)],
        source=provenance_line(said),
    )


def in_form(out: Path, name: str, targets: Sequence[str], paper: dict[str, Any]) -> list[str]:
    """One of the paper's tables in its form: regions or channels aside, and every row of the paper below ours."""
    shown = [target for target in targets if target in paper]
    kept = {
        (target, method): read(path)
        for target in shown
        for method in BESIDE
        if (path := out / f"{target}-{METHODS.index(method)}.json").is_file()
    }
    if not kept:
        return []
    lines = [f"## {name}, in the paper's form", ""]
    for start in range(0, len(shown), COLUMNS):
        part = shown[start : start + COLUMNS]
        rows = [["", *part]]
        for number, measure in enumerate((*(f"Δr {way}" for way in SIGN), "FID@2k")):
            for method, place in BESIDE.items():
                own = ["" if (one := kept.get((target, method))) is None else _plain(one, number) for target in part]
                rows.append([f"{measure}, {method}", *own])
                digits = 1 if number == len(SIGN) else 3
                rows.append(["in the paper", *(f"{paper[target][number][place]:.{digits}f}" for target in part)])
        lines += table(rows)
    return lines


def _plain(kept: dict[str, Any], number: int) -> str:
    """A number as the paper gives it: Δr of a direction, or the FID."""
    if number == len(SIGN):
        return "–" if kept["fid"] is None else f"{kept['fid']:.1f}"
    answers = kept["responses"]
    change = torch.tensor(answers[list(SIGN)[number]]) - torch.tensor(answers["input"])
    return f"{change.double().mean():.3f}"


def cells(kept: dict[str, Any], beside: list[float] | None) -> list[str]:
    """One method's cells, with the paper's numbers where it gives them."""
    answers = {name: torch.tensor(values) for name, values in kept["responses"].items()}
    paper = ["–"] * 3 if beside is None else [f"{beside[0]:+.3f}", f"{beside[1]:+.3f}", f"{beside[2]:.1f}"]
    found = []
    for place, (way, sign) in enumerate(SIGN.items()):
        change, honest = answers[way] - answers["input"], answers[way] - answers["control"]
        found += [f"{_interval(change)} / {paper[place]}", _interval(honest)]
        found.append(f"{(sign * honest > 0).double().mean():.0%}")
    fid = "not measured" if kept["fid"] is None else f"{kept['fid']:.1f}"
    return [*found, f"{fid} / {paper[2]}"]


def _interval(values: Tensor) -> str:
    return signed(vl.interval(values[None].double().numpy(), levels=("image",)), 3)
