"""What the pictures made for V4 neurons show: signs, sizes and looks, and what was asked of them, what fails first."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import BRAINACTIV, NATURAL, OURS, SHUFFLED, SIGN
from benchmarks.common.findings import Findings, measure, stated
from benchmarks.common.script import provenance_line, read_all, rounded
from benchmarks.common.tables import ends, fill, over_units, ran_at, signed, table, verdict

PUBLISHED, ENCODER = "published network", "our encoder"
RANDOM = "random images"
WANTED = 0.85  # share of the neurons with good evidence on whose sign both judges have to agree
DRAWS = 1000
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Judged:
    """All cells, one a neuron, as the judges see them; neurons that lack a method are left out."""

    def __init__(self, cells: list[dict[str, Any]]) -> None:
        first = cells[0]["halves"][0]
        self.judges, self.angle = list(first["zero"]), cells[0]["angle"]
        edits = [one for one in first["methods"] if "reached" in one]  # natural images are not edits
        self.methods = list(dict.fromkeys(one["method"] for one in edits))
        made = {(method, way) for cell in cells for method, way in edits_of(cell)}
        known = {(cell["session"], cell["neuron"]): cell for cell in cells if made <= set(edits_of(cell))}
        self.units = sorted(known, key=str)
        self.cells = [known[unit] for unit in self.units]
        self.edits = [edits_of(cell) for cell in self.cells]
        # Good evidence is the lens's own rule, on either half; no picture has a say in it.
        good = [all(not half["evidence"]["weak"] for half in cell["halves"]) for cell in self.cells]
        self.good: Bools = np.array(good)

    def values(self, key: str, method: str, way: str, judge: str | None = None) -> Floats:
        """(neurons, pictures), the pictures of both halves in a row."""
        lists = [[one[key] if judge is None else one[key][judge] for one in row[method, way]] for row in self.edits]
        return np.array([np.concatenate(parts) for parts in lists])

    def changes(self, judge: str, method: str, way: str) -> Floats:
        """(neurons, pictures), signed, in SDs."""
        return self.values("changes", method, way, judge)

    def means(self, judge: str, method: str, way: str) -> Floats:
        """(neurons,)."""
        return self.changes(judge, method, way).mean(1)

    def right(self, method: str, way: str, control: str | None = None) -> Bools:
        """(neurons,): every judge's mean is the wanted way, and above the control's."""
        seen = []
        for judge in self.judges:
            least = np.zeros(len(self.units)) if control is None else self.means(judge, control, way).clip(0)
            seen.append(self.means(judge, method, way) > least)
        return np.all(seen, axis=0)

    def right_both_ways(self, method: str, control: str | None = None) -> Bools:
        return np.all([self.right(method, way, control) for way in SIGN], axis=0)

    def agree(self, method: str) -> Floats:
        """(neurons,): in how much of the two directions all judges see the same sign, whatever it is."""
        signs = [[np.sign(self.means(judge, method, way)) for way in SIGN] for judge in self.judges]
        return (np.array(signs) == np.array(signs[0])).all(0).mean(0)

    def difference(self, judge: str, rival: str, way: str) -> vl.Interval:
        """Ours minus a rival, paired; neurons drawn first, then pictures, which the neurons of a session share."""
        ours, theirs = (self.changes(judge, method, way) for method in (OURS, rival))
        return vl.paired_difference(ours, theirs, draws=DRAWS, same_images=True)

    def halves(self) -> list[dict[str, Any]]:
        return [half for cell in self.cells for half in cell["halves"]]

    def mean_of(self, key: str, judge: str | None = None) -> float:
        """Over all halves, of a number or of a list of numbers."""
        return float(np.mean([np.mean(half[key] if judge is None else half[key][judge]) for half in self.halves()]))

    def rows(self, label: str) -> list[dict[str, Any]]:
        """What was measured of one method, by halves and directions."""
        return [one for half in self.halves() for one in half["methods"] if one["method"] == label]


def edits_of(cell: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Method and direction to what was measured on each half, of edits alone."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for half in cell["halves"]:
        for one in half["methods"]:
            if "reached" in one:
                found.setdefault((one["method"], one["direction"]), []).append(one)
    return found


def over_halves(cells: list[dict[str, Any]], label: str, way: str, judge: str) -> Floats:
    """(neurons,): mean change of both halves; natural images may be fewer in one, so that each half counts alike."""
    rows = ([one for half in cell["halves"] for one in half["methods"]] for cell in cells)
    own = ([one for one in row if (one["method"], one["direction"]) == (label, way)] for row in rows)
    return np.array([np.mean([np.mean(one["changes"][judge]) for one in row]) for row in own])


def checks_of(judged: Judged, listed: dict[str, list[int]]) -> dict[str, bool]:
    """What the issue asks, as sentences, and whether it is so."""
    wanted = {(name, neuron) for name, some in listed.items() for neuron in some}
    made = wanted & set(judged.units)
    checks = {f"{len(made)} of the {len(wanted)} neurons of the list were made (wanted: all).": made == wanted}
    good = judged.good
    about = f"Of {good.sum()} neurons with good evidence (of {len(good)}, {judged.angle:.0f}°)"
    if not good.any():
        checks[f"{about} no share can be told (wanted: {WANTED:.0%})."] = False
    else:
        share, shuffled = (judged.right_both_ways(method)[good].mean() for method in (OURS, SHUFFLED))
        about += ", both judges see the wanted sign in both directions"
        text = f"{about} for {share:.1%}, in the shuffled landscape for {shuffled:.1%}"
        checks[f"{text} (wanted: {WANTED:.0%}, and more than shuffled)."] = bool(share >= WANTED and share > shuffled)
        share = judged.right_both_ways(OURS, SHUFFLED)[good].mean()
        text = f"{about}, and each time a larger change than the shuffled landscape's, for {share:.1%}"
        checks[f"{text} (wanted: {WANTED:.0%})."] = bool(share >= WANTED)
    for way in SIGN:
        for judge in judged.judges:
            one = judged.difference(judge, BRAINACTIV, way)
            ok = one.low > 0 if way == "decrease" else one.high >= 0
            aim = "above 0" if way == "decrease" else "not below 0 by more than the interval"
            text = f"Δr {way}, {judge}: ours minus BrainACTIV's ridge {signed(one, 3)} SD over {len(good)} neurons"
            checks[f"{text} (wanted: {aim})."] = bool(ok)
    return checks


def rival_lines(judged: Judged) -> tuple[list[str], dict[str, Any]]:
    """Ours against everything else, losses first, in words and numbers."""
    order = ("ours loses", "neither way", "ours wins")
    rows, found = [], {}
    for rival in (method for method in judged.methods if method != OURS):
        for way in SIGN:
            for judge in judged.judges:
                one = judged.difference(judge, rival, way)
                word = order[1] if not one.excludes_zero else order[2] if one.mean > 0 else order[0]
                rows.append([word, rival, way, judge, signed(one, 3)])
                found.setdefault(rival, {}).setdefault(way, {})[judge] = ends(one)
    head = ["", "against", "direction", "judge", "Δr of ours minus its own, SD [95 %]"]
    return table([head, *sorted(rows, key=lambda row: order.index(row[0]))]), found


def judge_lines(judged: Judged, judge: str) -> list[str]:
    """The table of one judge, with the rows of pictures that nobody edited."""
    head = ["method", *(f"Δr {way}" for way in SIGN), "images right", "units right", "similarity", "realism"]
    rows = [[*head, "angle reached"]]
    for method in judged.methods:
        changes = [judged.changes(judge, method, way) for way in SIGN]
        row = [method, *(str(vl.interval(one[..., None], draws=DRAWS, same_images=True)) for one in changes)]
        row += [f"{np.mean([(one > 0).mean() for one in changes]):.0%}"]
        row += [f"{np.mean([one.mean(1) > 0 for one in changes]):.0%}"]
        row += [f"{both_ways(judged, method, key):.3f}" for key in ("similarity", "natural")]
        rows.append([*row, f"{both_ways(judged, method, 'reached'):.0f}°"])
    zero = f"{judged.mean_of('zero_natural'):.3f}"
    rows.append(["α = 0", "0 by definition", "0 by definition", "", "", "1 by definition", zero, "0°"])
    for label in (NATURAL, RANDOM):
        means = [over_halves(judged.cells, label, way, judge) for way in SIGN]
        changes = [str(vl.interval(one, levels=("unit",), draws=DRAWS)) for one in means]
        natural = np.mean([np.mean(one["natural"]) for one in judged.rows(label)])
        rows.append([label, *changes, "", "", "", f"{natural:.3f}", ""])
    return table(rows)


def both_ways(judged: Judged, method: str, key: str) -> float:
    return float(np.mean([judged.values(key, method, way) for way in SIGN]))


def sign_lines(judged: Judged) -> list[str]:
    """How often the judges agree, and how often they see what was wanted."""
    if not judged.good.any():
        return ["No neuron has good evidence.", ""]
    rows = [["method", "same sign by all judges", *(f"{way}: right by all" for way in SIGN), "both directions right"]]
    for method in judged.methods:
        shares = [judged.agree(method), *(judged.right(method, way) for way in SIGN), judged.right_both_ways(method)]
        rows.append([method, *(f"{share[judged.good].mean():.0%}" for share in shares)])
    return table(rows)


def look_lines(judged: Judged) -> list[str]:
    """Diversity, and distance to natural images."""
    head = ["pictures", "diversity", "kernel distance to natural images"]
    rows = [[*head, "stopped short of the angle, not in the distance"]]
    diversity = lambda label: f"{np.mean([one['diversity'] for one in judged.rows(label)]):.3f}"  # noqa: E731
    for method in judged.methods:
        found = judged.rows(method)
        kernel = [one["kernel"] for one in found if one["kernel"] is not None]
        shown = f"{np.mean(kernel):.4f} ± {np.std(kernel) / math.sqrt(len(kernel)):.4f}" if kernel else "none left"
        arrived = sum(one["arrived"] for one in found) / sum(len(one["reached"]) for one in found)
        rows.append([method, diversity(method), shown, f"{arrived:.0%}"])
    rows.append(["α = 0", f"{judged.mean_of('zero_diversity'):.3f}", f"{judged.mean_of('zero_kernel'):.4f}", ""])
    rows.append(["the photographs, at the backend's size", "", f"{judged.mean_of('input_kernel'):.4f}", ""])
    return table([*rows, *([label, diversity(label), "", ""] for label in (NATURAL, RANDOM))])


def neuron_lines(judged: Judged) -> list[str]:
    changes = [(judge, way) for way in SIGN for judge in judged.judges]
    head = ["neuron", "evidence", "its axis's held-out r", *(f"R of {judge}" for judge in judged.judges)]
    rows = [[*head, *(f"{way}, {judge}" for judge, way in changes), "both directions right"]]
    right = judged.right_both_ways(OURS)
    for row, cell in enumerate(judged.cells):
        halves = cell["halves"]
        r = [f"{np.mean([half['judge_r'][judge] for half in halves]):.2f}" for judge in judged.judges]
        axis = ", ".join(f"{half['evidence']['correlation']:.2f}" for half in halves)
        moved = [f"{judged.means(judge, OURS, way)[row]:+.2f}" for judge, way in changes]
        name = f"{cell['session']}, {cell['neuron']}"
        rows.append([name, "good" if judged.good[row] else "weak", axis, *r, *moved, "yes" if right[row] else "no"])
    return table(rows)[:-1]


def pipeline(judged: Judged) -> str:
    """What the pipeline does to a picture before anything is edited."""
    said = []
    for judge in judged.judges:
        shown, small, zero = (judged.mean_of(key, judge) for key in ("original", "input", "zero"))
        after = f"at the backend's size {small:+.2f}, drawn at α = 0 {zero:+.2f}"
        said.append(f"{judge}: photographs {shown:+.2f} SD, {after}")
    return "; ".join(said)


def report(
    out: Path, listed: dict[str, list[int]], said: dict[str, Any], *, tune: bool = False
) -> tuple[str, dict[str, Any]]:
    """The page and its numbers; of the tuning neurons without a verdict, for nothing is claimed on them."""
    cells = read_all(out, f"{'tuning-pictures' if tune else 'pictures'}-*.json")
    if not cells:
        raise FileNotFoundError(f"--out {out} holds no neuron yet; expected one at least. Run `pictures` first.")
    if len(settings := {json.dumps(cell["settings"], sort_keys=True) for cell in cells}) > 1:
        raise ValueError(
            f"--out {out} holds cells of {len(settings)} settings; expected one. Move those of other settings away."
        )
    judged = Judged(cells)
    rivals, differences = rival_lines(judged)
    sessions = sorted({name for name, _ in judged.units})
    checks = {} if tune else checks_of(judged, listed)
    by_judge = [
        "\n".join([f"## Judged by {'the ' * (judge == PUBLISHED)}{judge}", "", *judge_lines(judged, judge)])
        for judge in judged.judges
    ]
    text = fill(
        __file__,
        "page",
        kind=" (tuning neurons)" if tune else "",
        verdict="\n".join([*verdict(checks), ""]) if checks else "",
        count=len(judged.units),
        done=", ".join(f"{sum(unit[0] == name for unit in judged.units)} of session {name}" for name in sessions),
        images=2 * len(cells[0]["halves"][0]["rows"]),
        angle=judged.angle,
        pipeline=pipeline(judged),
        judges=by_judge,
        good=judged.good.sum(),
        weak_r=vl.WEAK_CORRELATION,
        weak_p=vl.WEAK_P,
        strong=vl.FEW_STRONG,
        signs=sign_lines(judged),
        rivals=rivals,
        looks=look_lines(judged),
        neurons=neuron_lines(judged),
        source=provenance_line(said),
        made=ran_at(cell["provenance"] for cell in cells),
    )
    changes = {
        judge: {method: {way: rounded(judged.means(judge, method, way)) for way in SIGN} for method in judged.methods}
        for judge in judged.judges
    }
    kept: dict[str, Any] = {"provenance": said, "settings": cells[0]["settings"], "checks": checks}
    kept |= {"neurons": [list(unit) for unit in judged.units], "evidence": judged.good.tolist()}
    return text, kept | {"changes": changes, "differences": differences}


def findings(numbers: dict[str, Any]) -> Findings:
    """Pictures made for V4 neurons: the file's own checks; what the shipped edit changes, by judge and direction."""
    what = "V4 neurons, pictures made from recordings, judged by {}: Δr against α = 0"
    measures = [
        measure(what.format(judge), over_units(values), "SD", f"{len(values)} neurons", way)
        for judge, changes in numbers["changes"].items()
        for way, values in changes[OURS].items()
    ]
    return Findings(stated(numbers).aims, tuple(measures))
