"""What the pictures made for V4 neurons show: signs, sizes and looks, and what was asked of them, what fails first."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import BRAINACTIV, NATURAL, OURS, SHUFFLED, SIGN
from benchmarks.common.edit_tables import Edits, edit_lines
from benchmarks.common.findings import Findings, Measure, stated
from benchmarks.common.package import FEW_STRONG, WEAK_CORRELATION, WEAK_P
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import ends, signed, table, verdict

PUBLISHED, ENCODER = "published network", "our encoder"
RANDOM = "random images"
WANTED = 0.85
"""Share of the neurons with good evidence on whose sign both judges have to agree."""
DRAWS = 1000
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def unit_of(cell: dict[str, Any]) -> tuple[str, int]:
    return cell["session"], cell["neuron"]


def records_of(cells: list[dict[str, Any]], judge: str) -> list[dict[str, Any]]:
    """What one judge says of the edits: for each neuron, method and direction, the pictures of both halves in a row."""
    records = []
    for cell in cells:
        for parts in zip(*(half["methods"] for half in cell["halves"]), strict=True):
            if "reached" not in parts[0]:
                continue  # natural images are not edits
            lists = {key: [part[key] for part in parts] for key in ("natural", "similarity", "reached")}
            lists["change"] = [part["changes"][judge] for part in parts]
            records.append(
                {
                    **{key: parts[0][key] for key in ("method", "direction")},
                    **{key: [value for one in values for value in one] for key, values in lists.items()},
                    "angle": cell["angle"],
                    "unit": unit_of(cell),
                    "seed": 0,
                }
            )
    return records


def over_halves(cells: list[dict[str, Any]], label: str, way: str, key: str, judge: str | None = None) -> Floats:
    """One number a neuron, the mean of both halves; NaN where no half has one."""
    values = []
    for cell in cells:
        found = [one for half in cell["halves"] for one in half["methods"]]
        found = [one for one in found if (one["method"], one["direction"]) == (label, way)]
        kept = [one[key] if judge is None else np.mean(one[key][judge]) for one in found]
        kept = [value for value in kept if value is not None]
        values.append(float(np.mean(kept)) if kept else math.nan)
    return np.array(values)


def good_evidence(cell: dict[str, Any]) -> bool:
    """A neuron whose landscape is not in doubt, by the lens's own rule, on either half; no picture has a say in it."""
    return all(not half["evidence"]["weak"] for half in cell["halves"])


class Judged:
    """All cells, as the judges see them.

    Args:
        cells: One a neuron.
    """

    def __init__(self, cells: list[dict[str, Any]]) -> None:
        self.judges = list(cells[0]["halves"][0]["zero"])
        self.edits = {judge: Edits(records_of(cells, judge)) for judge in self.judges}
        first = self.edits[self.judges[0]]
        self.units, self.methods, self.angle = first.units, first.methods, first.angles[0]
        found = {unit_of(cell): cell for cell in cells}
        self.cells = [found[unit] for unit in self.units]
        self.good: Bools = np.array([good_evidence(cell) for cell in self.cells])

    def changes(self, judge: str, method: str, way: str) -> Floats:
        """(neurons, pictures), signed, in SDs."""
        return self.edits[judge].values(method, way, self.angle)[..., 0]

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
        text = f"{about}, both judges see the wanted sign in both directions for {share:.1%}, in the shuffled landscape"
        checks[f"{text} for {shuffled:.1%} (wanted: {WANTED:.0%}, and more than shuffled)."] = bool(
            share >= WANTED and share > shuffled
        )
        share = judged.right_both_ways(OURS, SHUFFLED)[good].mean()
        text = f"{about}, both judges see the wanted sign in both directions, and each time a larger change than the"
        checks[f"{text} shuffled landscape's, for {share:.1%} (wanted: {WANTED:.0%})."] = bool(share >= WANTED)
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
    cells = judged.cells
    lines = edit_lines(judged.edits[judge], judged.angle, {"similarity": "similarity", "natural": "realism"})[:-1]
    zero = np.mean([np.mean(half["zero_natural"]) for cell in cells for half in cell["halves"]])
    lines.append(f"| α = 0 | 0 by definition | 0 by definition | | | 1 by definition | {zero:.3f} | 0° |")
    for label in (NATURAL, RANDOM):
        changes = [
            str(vl.interval(over_halves(cells, label, way, "changes", judge), levels=("unit",), draws=DRAWS))
            for way in SIGN
        ]
        natural = np.mean([np.mean(one["natural"]) for one in methods_in(cells, label)])
        lines.append(f"| {label} | {' | '.join(changes)} | | | | {natural:.3f} | |")
    return [*lines, ""]


def methods_in(cells: list[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    return [one for cell in cells for half in cell["halves"] for one in half["methods"] if one["method"] == label]


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
    halves = [half for cell in judged.cells for half in cell["halves"]]
    rows = [
        [
            "pictures",
            "diversity",
            "kernel distance to natural images",
            "stopped short of the angle, not in the distance",
        ]
    ]
    for method in judged.methods:
        found = methods_in(judged.cells, method)
        kernel = [one["kernel"] for one in found if one["kernel"] is not None]
        shown = f"{np.mean(kernel):.4f} ± {np.std(kernel) / math.sqrt(len(kernel)):.4f}" if kernel else "none left"
        arrived = sum(one["arrived"] for one in found) / sum(len(one["reached"]) for one in found)
        rows.append([method, f"{np.mean([one['diversity'] for one in found]):.3f}", shown, f"{arrived:.0%}"])
    rows.append(["α = 0", f"{np.mean([half['zero_diversity'] for half in halves]):.3f}", _mean(halves, "zero_kernel")])
    rows.append(["the photographs, at 64 px", "", _mean(halves, "input_kernel")])
    spread = {label: [one["diversity"] for one in methods_in(judged.cells, label)] for label in (NATURAL, RANDOM)}
    rows += [[label, f"{np.mean(values):.3f}", ""] for label, values in spread.items()]
    return table([[*row, *[""] * (4 - len(row))] for row in rows])


def _mean(halves: list[dict[str, Any]], key: str) -> str:
    return f"{np.mean([half[key] for half in halves]):.4f}"


def neuron_lines(judged: Judged) -> list[str]:
    """Every neuron by itself."""
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
    return table(rows)


def pipeline_line(judged: Judged) -> str:
    """What the pipeline does to a picture before anything is edited."""
    said = []
    for judge in judged.judges:
        means = {
            key: np.mean([np.mean(half[key][judge]) for cell in judged.cells for half in cell["halves"]])
            for key in ("original", "input", "zero")
        }
        said.append(
            f"{judge}: photographs {means['original']:+.2f} SD, through 64 px {means['input']:+.2f}, drawn at α = 0 "
            f"{means['zero']:+.2f}"
        )
    return f"What the pipeline changes by itself, mean answers ({'; '.join(said)}), is in no Δr."


def report(
    out: Path, listed: dict[str, list[int]], said: dict[str, Any], *, tune: bool = False
) -> tuple[str, dict[str, Any]]:
    """The page and its numbers.

    Args:
        out: Where the cells are.
        listed: The neurons that were to be made.
        said: Provenance of this report.
        tune: Of the tuning neurons: no verdict, for nothing is claimed on them.

    Raises:
        FileNotFoundError: There are no cells.
        ValueError: Cells were made with different settings.
    """
    paths = sorted(out.glob(f"{'tuning-pictures' if tune else 'pictures'}-*.json"))
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not cells:
        raise FileNotFoundError(f"--out {out} holds no neuron yet; expected one at least. Run `pictures` first.")
    if len(settings := {json.dumps(cell["settings"], sort_keys=True) for cell in cells}) > 1:
        raise ValueError(
            f"--out {out} holds cells of {len(settings)} settings; expected one. Move those of other settings away."
        )
    judged = Judged(cells)
    rivals, differences = rival_lines(judged)
    sessions = sorted({name for name, _ in judged.units})
    done = ", ".join(f"{sum(unit[0] == name for unit in judged.units)} of session {name}" for name in sessions)
    images = len(cells[0]["halves"][0]["rows"])
    lines = [f"# Preferred and suppressed pictures of V4 neurons{' (tuning neurons)' if tune else ''}", ""]
    checks = {} if tune else checks_of(judged, listed)
    lines += verdict(checks) if checks else []
    lines += [
        f"{len(judged.units)} neurons ({done}), {2 * images} photographs each, turned by {judged.angle:.0f}°. Methods",
        "learn from recordings of one half of the session, photographs of the other are edited, then the halves are",
        "swapped. Δr is signed, against α = 0 of the same pipeline with the same noise, in SDs of the judge's own",
        "answers to the photographs that were learnt from; brackets: 95 % bootstrap, neurons drawn first. Our encoder",
        "learnt from the half that the method did not. A published network may have learnt from half of the",
        "photographs; which half is not known, and it then shares the noise of some recordings with the methods.",
        "",
        "Similarity (to the α = 0 picture), realism (mean cosine to the five nearest natural photographs) and",
        "diversity (1 - mean cosine of pairs) are in a third-party ResNet-20 of CIFAR-10, which sees 32 px and is",
        "neither a judge nor the backbone of one: a coarse look. SqueezeNet, our encoder's backbone, is not asked.",
        "",
        pipeline_line(judged),
        "",
    ]
    for judge in judged.judges:
        lines += [f"## Judged by the {judge}" if judge == PUBLISHED else f"## Judged by {judge}", ""]
        lines += judge_lines(judged, judge)
    lines += ["## Do the judges agree", ""]
    lines += [
        f"Good evidence, {judged.good.sum()} of {len(judged.good)} neurons, which alone count here: on both halves,",
        "the landscape's axis correlates with the response on photographs that its fit did not see (at least",
        f"{WEAK_CORRELATION}, and p ≤ {WEAK_P} against fits on shuffled responses), and {FEW_STRONG} photographs or",
        "more drive the neuron strongly. A neuron's sign is that of its mean over the photographs.",
        "",
        *sign_lines(judged),
        "## Ours against the others",
        "",
        *rivals,
        "## Looks",
        "",
        *look_lines(judged),
        "## Every neuron, ours as shipped",
        "",
        "R: correlation with the recordings on the half that was learnt from, which our encoder has not seen.",
        "",
        *neuron_lines(judged),
        provenance_line(said),
        "",
        made_by(cells),
        "",
    ]
    kept: dict[str, Any] = {"provenance": said, "settings": cells[0]["settings"], "checks": checks}
    kept |= {"neurons": [list(unit) for unit in judged.units], "evidence": judged.good.tolist()}
    kept["changes"] = {
        judge: {
            method: {way: [round(value, 4) for value in judged.means(judge, method, way).tolist()] for way in SIGN}
            for method in judged.methods
        }
        for judge in judged.judges
    }
    return "\n".join(lines), kept | {"differences": differences}


def made_by(cells: list[dict[str, Any]]) -> str:
    """At which commits and where the pictures were made."""
    sources = [cell["provenance"] for cell in cells]
    commits = sorted({(one["commit"] or "none")[:10] + ("+" if one["dirty"] else "") for one in sources})
    return f"Pictures were made at {', '.join(commits)} on {', '.join(sorted({one['device'] for one in sources}))}."


def findings(numbers: dict[str, Any]) -> Findings:
    """Pictures made for V4 neurons: the file's own checks; what the shipped edit changes, by judge and direction."""

    measures = []
    for judge, changes in numbers["changes"].items():
        for way, values in changes[OURS].items():
            mean = vl.interval(values, levels=("unit",))
            ends = (mean.low, mean.high)
            what = f"V4 neurons, pictures made from recordings, judged by {judge}: Δr against α = 0"
            measures.append(
                Measure(what, mean.mean, "SD", f"{len(values)} neurons", *ends, "95 % bootstrap over neurons", way)
            )
    return Findings(stated(numbers).aims, tuple(measures))
