"""What `ann_units` found: tables over all cells, what fails first, and two figures."""

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.ann_units.methods import CONTESTANTS, MADE, NATURAL, OPTIMISED, OURS, OURS_AT_ANGLE, RANDOM, UNEDITED
from benchmarks.common import package as vl
from benchmarks.common.edit_methods import BRAINACTIV, LANDSCAPE, SIGN
from benchmarks.common.figures import save_small
from benchmarks.common.networks import NETWORKS
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import signed, table, verdict

WANTED_UNITS, WANTED_NETWORKS, WANTED_IMAGES = 4, 3, 12
COST_RATIO = 0.1
SCORES = ("response_change_from_input", "predictivity", "kernel_distance", "spectrum_distance", "similarity", "seconds")
PICTURES = "pictures-{network}-{layer}-{unit}-{seed}.safetensors"
DRAWS = 1000
KERNEL = "kernel_distance"
BOOTSTRAP = "95 % bootstrap interval over units first"
Values = NDArray[np.float64]


class Found:
    """All cells of one budget, as arrays over units, images and seeds.

    Args:
        cells: What `ann_units` wrote for each unit and seed.

    Raises:
        ValueError: There are none, or they are of different budgets.
    """

    def __init__(self, cells: list[dict[str, Any]]) -> None:
        budgets = sorted({(cell["passes"], len(cell["images"]), cell["angle"]) for cell in cells})
        if len(budgets) != 1:
            raise ValueError(
                f"cells are of {len(budgets)} budgets (passes, images, angle): {budgets}; expected those of one. Name "
                "another --out for another budget, or run something first."
            )
        self.passes, self.images, self.angle = budgets[0]
        self.cells = {(self.name(cell), cell["seed"]): cell for cell in cells}
        self.units = list(dict.fromkeys(self.name(cell) for cell in cells))
        seeds = [{seed for unit, seed in self.cells if unit == name} for name in self.units]
        self.seeds = sorted(set.intersection(*seeds))
        if not self.seeds:
            raise ValueError("cells share no seed; expected one that every unit has. Run the first seed of all units.")
        self.network_of = {self.name(cell): cell["network"] for cell in cells}
        self.networks = list(dict.fromkeys(self.network_of.values()))
        known: dict[Any, dict[Any, list[float]]] = {}
        for place, cell in self.cells.items():
            for one in cell["scores"]:
                known.setdefault((one["method"], one["direction"], one["measure"]), {})[place] = one["values"]
        whole = [(unit, seed) for unit in self.units for seed in self.seeds]
        self.scores: dict[tuple[str, str, str], Values] = {
            key: np.array([[values[unit, seed] for seed in self.seeds] for unit in self.units]).transpose(0, 2, 1)
            for key, values in known.items()
            if all(place in values for place in whole)
        }
        self.broken = sorted(
            {method for (method, _, _), values in self.scores.items() if not np.isfinite(values).all()}
        )
        self.scores = {key: values for key, values in self.scores.items() if key[0] not in self.broken}
        # Judges' features differ in scale by a hundred million to one: each unit's distances in its own α = 0's.
        zero = {
            way: np.abs(self.scores[UNEDITED, way, KERNEL]) for way in SIGN if (UNEDITED, way, KERNEL) in self.scores
        }
        for method, way, measure in self.scores:
            if measure == KERNEL and way in zero:
                self.scores[method, way, measure] = self.scores[method, way, measure] / zero[way]
        present = {method for method, _, measure in self.scores if measure == "response_change_from_input"}
        self.methods = [label for label in CONTESTANTS if label in present]
        self.made = [label for label in self.methods if CONTESTANTS[label].kind in MADE]
        self.baselines = [label for label in self.methods if CONTESTANTS[label].kind == "optimised"]

    @staticmethod
    def name(cell: dict[str, Any]) -> str:
        return f"{cell['network']} {cell['layer']} {cell['unit']}"

    def change(self, method: str, way: str) -> Values:
        """Signed Δr (units, images, seeds) against the α = 0 pictures of the same images and noise, one for all."""
        measure = "response_change_from_input"
        return self.scores[method, way, measure] - self.scores[UNEDITED, way, measure]

    def both(self, method: str, measure: str) -> Values:
        """The mean of the two directions of a measure; ``"change"`` is :meth:`change`."""
        if measure == "change":
            return np.mean([self.change(method, way) for way in SIGN], axis=0)
        return np.mean([self.scores[method, way, measure] for way in SIGN], axis=0)

    def has(self, method: str, measure: str, *ways: str) -> bool:
        return all((method, way, measure) in self.scores for way in (ways or tuple(SIGN)))

    def told(self, method: str) -> Values:
        """Predictivity, in percent, (units, 1, seeds), from preferred and suppressed pictures together."""
        return self.scores[method, "both", "predictivity"]

    def reached(self, label: str, unit: str, seed: int, way: str) -> float:
        """Mean response of a method's pictures in the wanted direction, in SDs."""
        place = (self.units.index(unit), slice(None), self.seeds.index(seed))
        start = SIGN[way] * self.cells[unit, seed]["start"]
        return float(self.scores[label, way, "response_change_from_input"][place].mean() + start)

    @cached_property
    def cases(self) -> list[tuple[str, int, str]]:
        """Unit, seed and direction where our edit's pictures answer more than the photographs do by themselves."""
        return [
            (unit, seed, way)
            for unit in self.units
            for seed in self.seeds
            for way, sign in SIGN.items()
            if self.reached(OURS, unit, seed, way) > sign * self.cells[unit, seed]["start"]
        ]

    def seconds(self, label: str) -> list[float]:
        """Seconds a picture in each of :attr:`cases`."""
        return [
            float(self.scores[label, way, "seconds"][self.units.index(unit), 0, self.seeds.index(seed)])
            for unit, seed, way in self.cases
        ]

    @cached_property
    def at_equal_response(self) -> dict[str, list[float | None]]:
        """Optimisation baseline to its seconds a picture until it answers as our edit does, for each of the cases.

        None where its finished pictures do not answer as much. Where what the target says on the way is not about
        whole pictures, all of its time counts.
        """
        found: dict[str, list[float | None]] = {}
        for label in self.baselines:
            found[label] = []
            for (unit, seed, way), total in zip(self.cases, self.seconds(label), strict=True):
                level = self.reached(OURS, unit, seed, way)
                trace = self.cells[unit, seed]["traces"].get(label, {}).get(way, [])
                first = next((seconds for seconds, value in trace if value >= level), total)
                found[label].append(first if self.reached(label, unit, seed, way) >= level else None)
        return found

    @cached_property
    def fastest(self) -> list[float | None]:
        """The fastest baseline's seconds at equal response in each case; None where none gets there."""
        rows = zip(*self.at_equal_response.values(), strict=True)
        best = [min((one for one in row if one is not None), default=None) for row in rows]
        return best or [None] * len(self.cases)


def break_even(fit: float, ours: float, theirs: float) -> float | None:
    """Images after which a fit has paid for itself; None where a picture of theirs costs less than one of ours."""
    return fit / (theirs - ours) if theirs > ours else None


def against(theirs: list[float | None], ours: list[float]) -> tuple[int, float | None, float | None]:
    """Cases with a time, their median, and the median of ours over theirs."""
    pairs = [(one, mine) for one, mine in zip(theirs, ours, strict=True) if one is not None]
    if not pairs:
        return 0, None, None
    return len(pairs), float(np.median([one for one, _ in pairs])), float(np.median([m / one for one, m in pairs]))


# ---------------------------------------------------------------------------------------------------------- checks


def told_apart(low: float, mean: float) -> bool | None:
    """Better for sure, open, or not better."""
    return True if low > 0 else (None if mean > 0 else False)


def checks(found: Found) -> dict[str, bool | None]:
    """What the issue asks, as sentences, and whether it is so; None where the interval leaves it open."""
    said: dict[str, bool | None] = {}
    per = {name: sum(found.network_of[unit] == name for unit in found.units) for name in found.networks}
    listed = ", ".join(f"{count} of {name}" for name, count in per.items())
    enough = sum(count >= WANTED_UNITS for count in per.values()) >= WANTED_NETWORKS and found.images >= WANTED_IMAGES
    said[
        f"Units: {listed}; {found.images} images, {len(found.seeds)} seed(s) (wanted on two cores: at least "
        f"{WANTED_UNITS} of {WANTED_NETWORKS} networks, {WANTED_IMAGES} images, 1 seed)."
    ] = enough
    said |= predictivity_check(found) | realism_check(found) | cost_check(found)
    return said


def predictivity_check(found: Found) -> dict[str, bool | None]:
    makers = [label for label in found.made if found.has(label, "predictivity", "both")]
    if OURS not in makers or len(makers) < 2:
        return {"Predictivity: not measured for our edit and a rival on every unit.": None}
    own = found.told(OURS).mean()
    best = max((label for label in makers if label != OURS), key=lambda label: found.told(label).mean())
    apart = vl.paired_difference(found.told(OURS), found.told(best), draws=DRAWS)
    text = f"Predictivity among methods that make images: {OURS} {own:.1f} %, the best other, {best}, "
    text += f"{found.told(best).mean():.1f} %, difference {apart} (wanted: above 0)."
    verdicts = {text: told_apart(apart.low, apart.mean)}
    if found.has(NATURAL, "predictivity", "both"):
        bar = vl.paired_difference(found.told(OURS), found.told(NATURAL), draws=DRAWS)
        text = f"Predictivity against the bar: {OURS} {own:.1f} %, {NATURAL} {found.told(NATURAL).mean():.1f} %, "
        verdicts[f"{text}difference {bar} (wanted: above 0, which nothing synthetic has passed)."] = told_apart(
            bar.low, bar.mean
        )
    return verdicts


def realism_check(found: Found) -> dict[str, bool | None]:
    measure = KERNEL
    makers = [label for label in found.made if found.has(label, measure, "increase")]
    reach = {label: float(found.change(label, "increase").mean()) for label in makers}
    strong = [label for label, value in reach.items() if value >= 1]
    far = {label: float(found.scores[label, "increase", measure].mean()) for label in strong}
    listed = ", ".join(f"{label} {far[label]:.2f}" for label in sorted(strong, key=lambda label: far[label]))
    if OURS not in strong:
        text = f"Realism among methods that reach +1 SD (kernel distance, increase): {OURS} reaches "
        text += f"{reach.get(OURS, float('nan')):+.2f} SD and is not among them"
        return {f"{text} ({listed or 'no method is'}; wanted: best of them).": False}
    if len(strong) == 1:
        return {f"Realism among methods that reach +1 SD: {OURS} is the only one (wanted: best of them).": True}
    best = min((label for label in strong if label != OURS), key=lambda label: far[label])
    rival, own = (found.scores[label, "increase", measure] for label in (best, OURS))
    apart = vl.paired_difference(rival, own, draws=DRAWS)
    text = f"Realism among methods that reach +1 SD (kernel distance, × α = 0's, increase, less is better): {listed}. "
    text += f"The best other minus ours {signed(apart)} (wanted: above 0)."
    return {text: told_apart(apart.low, apart.mean)}


def cost_check(found: Found) -> dict[str, bool | None]:
    ours, cases = found.seconds(OURS), len(found.cases)
    count, theirs, ratio = against(found.fastest, ours)
    every = found.both(OURS, "seconds").mean()
    text = f"Cost at equal response: a picture of {OURS} takes {every:.3f} s after the fit, "
    if not cases:
        return {f"{text}and answers no more than the photographs do, so that there is nothing to time.": False}
    if ratio is None or theirs is None:
        text += f"and no optimisation baseline answers as much within {found.passes} passes in any of {cases} cases"
        return {f"{text} (wanted: at most a tenth of the fastest baseline's time).": None}
    fit = float(found.both(OURS, "fit_seconds").mean())
    even = break_even(fit, float(np.median(ours)), theirs)
    text += (
        f"the fastest optimisation baseline {theirs:.3f} s in the {count} of {cases} cases in which one gets there; "
    )
    text += f"median ratio {ratio:.2f} (wanted: at most {COST_RATIO}); the fit's {fit:.1f} s are paid for "
    text += "never, on this machine." if even is None else f"after {even:,.0f} images."
    return {text: ratio <= COST_RATIO}


# ---------------------------------------------------------------------------------------------------------- tables


def ci(values: Values) -> str:
    return str(vl.interval(values, draws=DRAWS, same_images=True))


def mean_of(found: Found, label: str, measure: str, digits: int = 2, *ways: str) -> str:
    if not found.has(label, measure, *ways):
        return ""
    return f"{np.mean([found.scores[label, way, measure].mean() for way in (ways or tuple(SIGN))]):.{digits}f}"


def response_table(found: Found) -> list[list[str]]:
    ways = tuple(SIGN)
    head = ["method", *(f"{what} {way}" for way in ways for what in ("similarity", "Δr"))]
    rows = [[*head, "Δr from the photograph", "images right", "units right", "percentile", "angle"]]
    for label in found.methods:
        row = [label]
        for way in ways:
            row += [mean_of(found, label, "similarity", 3, way), ci(found.change(label, way))]
        right = [found.change(label, way) > 0 for way in ways]
        units = [found.change(label, way).mean((1, 2)) > 0 for way in ways]
        row.append(mean_of(found, label, "response_change_from_input"))
        row += [f"{np.mean(right):.0%}", f"{np.mean(units):.0%}", mean_of(found, label, "percentile", 0)]
        rows.append([*row, mean_of(found, label, "edit_angle", 0)])
    return rows


def picture_table(found: Found, distances: dict[str, float | None]) -> list[list[str]]:
    head = [
        "method",
        "predictivity, %",
        "extreme pairs, %",
        "kernel distance, × α = 0's, increase",
        "decrease",
        "Fréchet distance",
    ]
    rows = [[*head, "spectrum, dB", "diversity", "transfer, SD"]]
    for label in found.methods:
        told = vl.interval(found.told(label), draws=DRAWS) if found.has(label, "predictivity", "both") else None
        row = [label, "" if told is None else f"{told.mean:.1f} [{told.low:.1f}, {told.high:.1f}]"]
        row += [mean_of(found, label, "predictivity_easy", 1, "both")]
        row += [mean_of(found, label, KERNEL, 2, way) for way in SIGN]
        far = distances.get(label)
        row += ["too few" if far is None else f"{far:.2f}", mean_of(found, label, "spectrum_distance", 1)]
        rows.append([*row, mean_of(found, label, "diversity", 3), mean_of(found, label, "transfer_change")])
    return rows


def cost_table(found: Found) -> list[list[str]]:
    head = ["method", "passes forward", "back", "s a picture", "s a fit", "cases at our response", "s until then"]
    rows = [[*head, "ours / that", "break-even, images"]]
    ours, cases = found.seconds(OURS), len(found.cases)
    fit, own = float(found.both(OURS, "fit_seconds").mean()), float(np.median(ours or [math.nan]))
    theirs = {**found.at_equal_response, "the fastest of these": found.fastest}
    for label in [*found.methods, "the fastest of these"]:
        measured = [mean_of(found, label, name, d) for name, d in (("forward", 0), ("backward", 0), ("seconds", 3))]
        row = [label, *measured, mean_of(found, label, "fit_seconds", 2)]
        if label in theirs:
            count, seconds, ratio = against(theirs[label], ours)
            row.append(f"{count} of {cases}")
            if seconds is None or ratio is None:
                row += ["", "", ""]
            else:
                even = break_even(fit, own, seconds)
                row += [f"{seconds:.3f}", f"{ratio:.2f}", "never" if even is None else f"{even:,.0f}"]
        else:
            row += ["", "", "", ""]
        rows.append(row)
    return rows


def difference_table(found: Found, own: str, rivals: list[str]) -> list[list[str]]:
    rows = [[f"{own} minus", "Δr increase", "Δr decrease", "predictivity, %", "kernel distance, × α = 0's"]]
    for label in rivals:
        moved = [(found.change(own, way), found.change(label, way)) for way in SIGN]
        row = [label, *(str(vl.paired_difference(*pair, draws=DRAWS, same_images=True)) for pair in moved)]
        if all(found.has(one, "predictivity", "both") for one in (own, label)):
            row.append(str(vl.paired_difference(found.told(own), found.told(label), draws=DRAWS)))
        else:
            row.append("")
        measure = KERNEL
        if all(found.has(one, measure) for one in (own, label)):
            one = vl.paired_difference(found.both(own, measure), found.both(label, measure), draws=DRAWS)
            row.append(signed(one))
        else:
            row.append("")
        rows.append(row)
    return rows


def network_table(found: Found) -> list[list[str]]:
    rows = [["Δr against α = 0", *(f"{name} {way}" for name in found.networks for way in SIGN)]]
    of = {name: [found.network_of[unit] == name for unit in found.units] for name in found.networks}
    rows += [
        [label, *(f"{found.change(label, way)[of[name]].mean():+.2f}" for name in found.networks for way in SIGN)]
        for label in found.methods
    ]
    return rows


def set_distances(out: Path, found: Found) -> dict[str, float | None]:
    """Fréchet distance of all of a method's pictures, both directions, to the judging photographs; None: too few."""
    seen: dict[str, list[Tensor]] = {}
    natural: Tensor | None = None
    for cell in found.cells.values():
        stored = load_file(out / PICTURES.format_map(cell))
        natural = stored["natural|seen"]
        for label in found.methods:
            seen.setdefault(label, []).extend(stored[f"{label}|{way}|seen"] for way in SIGN)
    whole = {label: torch.cat(parts) for label, parts in seen.items()}
    return {
        label: None
        if natural is None or min(len(rows), len(natural)) <= rows.shape[1]
        else vl.frechet_distance(rows, natural)
        for label, rows in whole.items()
    }


# --------------------------------------------------------------------------------------------------------- report


def report(out: Path, networks: list[str], said: dict[str, Any]) -> str:
    """Everything in ``out``: ann_units.json, ann_units.md, and two figures where matplotlib is there.

    Args:
        out: Where the cells are.
        networks: Those that were wanted: what is absent is said.
        said: Where the tables come from.
    """
    files = sorted(out.glob("cell-*.json"))
    if not files:
        raise SystemExit(f"nothing to report in {out}: run something first.")
    stored = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    order = list(NETWORKS)
    cells = sorted((one["found"] for one in stored), key=lambda cell: (order.index(cell["network"]), cell["layer"]))
    found = Found(cells)
    verdicts = checks(found)
    distances = set_distances(out, found)
    absent = [name for name in networks if name not in found.networks]
    left_out = [f"- Left out, for a score of theirs is not finite: {', '.join(found.broken)}."] if found.broken else []
    left_out += [f"- Not measured, for no cell of it is there: {', '.join(absent)}."] if absent else []
    lines = ["# Every method on units of real networks", "", *verdict(verdicts, left_out), *about(found), ""]
    responses, costs = response_table(found), cost_table(found)
    lines += ["## Response: Table S2 in form", "", *table(responses)]
    lines += ["## Pictures", "", *table(picture_table(found, distances))]
    lines += ["## Cost", "", *cost_text(found), *table(costs)]
    rivals = [label for label in found.methods if label not in (OURS, OURS_AT_ANGLE)]
    edits = [label for label in rivals if CONTESTANTS[label].kind == "edit" or "shuffled" in label]
    lines += ["## Differences, paired", "", *table(difference_table(found, OURS, rivals))]
    lines += [f"At the matched {found.angle:g}°:", "", *table(difference_table(found, OURS_AT_ANGLE, edits))]
    lines += ["## By network", "", *table(network_table(found))]
    made = sorted(
        {(one["provenance"]["commit"] or "none")[:10] + ("+" if one["provenance"]["dirty"] else "") for one in stored}
    )
    devices = ", ".join(sorted({one["provenance"]["device"] for one in stored}))
    minutes = sum(cell["cpu_seconds"] for cell in cells) / 60
    lines += [f"Cells were run at {', '.join(made)} on {devices}, {minutes:.0f} minutes of a processor.", ""]
    lines += [provenance_line(said), ""]
    lines += ["![The first unit of each layer; first photographs, nothing picked](ann_units_figure4.webp)", ""]
    lines += ["![Scores](ann_units_scores.webp)"]
    text = "\n".join(lines) + "\n"
    numbers = {
        "checks": verdicts,
        "measures": measures(found),
        "absent": absent,
        "rows": {"response": responses, "cost": costs},
        "change_by_unit": {
            label: {
                way: dict(zip(found.units, found.change(label, way).mean((1, 2)).round(3).tolist(), strict=True))
                for way in SIGN
            }
            for label in found.methods
        },
        "frechet": distances,
        "provenance": said,
    }
    vl.write_text(out / "ann_units.json", json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    vl.write_text(out / "ann_units.md", text)
    figures(out, found)
    return text


def about(found: Found) -> list[str]:
    first = next(iter(found.cells.values()))
    judges = sorted({f"{cell['judge']} for {cell['network']}" for cell in found.cells.values()})
    seconds = sorted({f"{cell['second']} for {cell['network']}" for cell in found.cells.values()})
    told = [np.mean([c["correlation"] for c in found.cells.values() if c["network"] == n]) for n in found.networks]
    held = ", ".join(f"{name} {value:.2f}" for name, value in zip(found.networks, told, strict=True))
    pictures = len(found.cells) * 2 * found.images * len(found.methods)
    sample = (
        f"{len(found.units)} test units, {found.images} test images, {len(found.seeds)} seed(s), both directions: "
        f"{pictures:,} pictures of {len(found.methods)} methods. Δr is the response against that to the α = 0 picture "
        "of the same image and noise (what the generator does by itself), in SDs of the unit over the reference "
        "images, the wanted way positive; brackets: 95 % bootstrap interval, units drawn first. Percentile: among "
        "held-out photographs, the wanted way. What starts from the photograph itself is spared what the generator "
        "changes of it: Δr from the photograph, the mean of both directions, stands beside."
    )
    budget = (
        f"Budget: whatever asks the target gets {found.passes} forward passes a picture, as far as its rounds allow "
        "(the table of costs has what was used); published step counts are far larger (512, 256, 100, 50), and our "
        f"optimisation as shipped takes {first['shipped_optimise_steps']} steps. Edits ask nothing of the target after "
        "the fit: budgets are equal among optimisations, unequal to edits. Edits are matched at "
        f"{found.angle:g}°; '{OURS}' goes as far as it is shipped."
    )
    networks = (
        f"Similarity, kernel distance, diversity and predictivity: features of {', '.join(judges)}; kernel "
        "distances of a unit are in those of its own α = 0 pictures. Fréchet distance: "
        "pooled over units and directions, 64 features of the third-party CIFAR-10 ResNet-20, never a target here "
        f"('{RANDOM}' is its floor). Transfer: Δr as a ridge read-out of {', '.join(seconds)} predicts it. "
        "Predictivity: of two held-out photographs, which drives the unit more, told from preferred and suppressed "
        f"pictures; chance 50 %. Held-out correlation of the landscape's axis with its unit: {held}."
    )
    return [sample, "", budget, "", networks]


def cost_text(found: Found) -> list[str]:
    left_out = 2 * len(found.units) * len(found.seeds) - len(found.cases)
    text = (
        "Seconds of a core (on an accelerator, of the clock). Equal response: the first moment at which the target's "
        "mean answer to what an optimisation shows it, through its own random views, reaches that of our edit's "
        "finished pictures, if its own finished pictures keep it; where its views are parts of a picture, or pictures "
        f"come one after another, its whole time. A case is a unit and a direction; {left_out} are left out, in which "
        "our edit's pictures answer no more than the photographs do. The fit is without the two shuffled fits behind "
        "the evidence, with which it takes about three times as long, and the reference set is embedded before. "
        "Break-even: images after which the fit has paid for itself."
    )
    return [text, ""]


def measures(found: Found) -> list[dict[str, Any]]:
    """For the table at the head of all results."""
    sample = f"{len(found.units)} units of {len(found.networks)} networks"
    said = []
    for way in SIGN:
        one = vl.interval(found.change(OURS, way), draws=DRAWS, same_images=True)
        ends = {"low": one.low, "high": one.high, "spread": BOOTSTRAP}
        what = f"units of networks, {OURS}: Δr against α = 0"
        said.append({"what": what, "value": one.mean, "unit": "SD", "sample": sample, "direction": way, **ends})
    for label in (OURS, NATURAL):
        if found.has(label, "predictivity", "both"):
            one = vl.interval(found.told(label) / 100, draws=DRAWS)
            what = f"predictivity of {label} (chance 50 %)"
            said.append({"what": what, "value": one.mean, "unit": "share", "sample": sample})
    _, _, ratio = against(found.fastest, found.seconds(OURS))
    if ratio is not None:
        what = "a picture's seconds after the fit against the fastest optimisation baseline's at equal response"
        said.append({"what": what, "value": ratio, "unit": "ratio", "sample": sample})
    return said


# --------------------------------------------------------------------------------------------------------- figures


def figures(out: Path, found: Found) -> None:
    """`ann_units_figure4.webp` and `ann_units_scores.webp`."""
    firsts = [cell for (_, seed), cell in found.cells.items() if cell["first"] and seed == found.seeds[0]]
    if firsts:
        save_small(figure_4(out, firsts), out / "ann_units_figure4.webp")
    short = {LANDSCAPE: "the paper's landscape", BRAINACTIV: "BrainACTIV's ridge"}
    pooled = vl.Comparison(
        methods=[short.get(label, label) for label in found.methods],
        units=found.units,
        seeds=found.seeds,
        images=next(iter(found.cells.values()))["images"],
        scores={
            (short.get(label, label), way, measure): values
            for (label, way, measure), values in found.scores.items()
            if measure in SCORES
        },
        notes=[f"Budget of whatever asks the target: {found.passes} forward passes. Kernel distance: × α = 0's."],
    )
    save_small(pooled.figure([name for name in SCORES if name in pooled.measures]), out / "ann_units_scores.webp")


def figure_4(out: Path, cells: list[dict[str, Any]]) -> Any:
    """A row for each layer's first test unit, the first test images: nothing is picked. Pixels stay as they are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = {
        "photograph": "input",
        "α = 0": f"{UNEDITED}|increase",
        "preferred": f"{OURS}|increase",
        "suppressed": f"{OURS}|decrease",
        "preferred, optimised": f"{OPTIMISED}|increase",
        "top natural": f"{NATURAL}|increase",
    }
    rows = [(cell, load_file(out / PICTURES.format_map(cell))) for cell in cells]
    count, side = len(rows[0][1]["input"]), rows[0][1]["input"].shape[-1]
    left, top, step, gap, dpi = 150, 40, side + 16, 14, 100
    across = count * (side + 3) + gap
    width, height = left + across * len(blocks), top + step * len(rows)
    page = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(page)
    for index, label in enumerate(blocks):
        place = (left + across * index) / width
        page.text(place, 1 - 8 / height, label.replace(", ", ",\n"), fontsize=8, fontweight="bold", va="top")
    for line, (cell, pictures) in enumerate(rows):
        y = top + step * line
        text = f"{cell['network']}\n{cell['layer']}, unit {cell['unit']}"
        page.text(4 / width, 1 - (y + side / 2) / height, text, fontsize=8, va="center")
        changes = figure_changes(cell)
        for index, key in enumerate(blocks.values()):
            for column in range(count):
                x = left + across * index + column * (side + 3)
                box = (x / width, 1 - (y + side) / height, side / width, side / height)
                axes = page.add_axes(box)
                axes.imshow(pictures[key][column].permute(1, 2, 0).numpy(), interpolation="nearest")
                axes.set_axis_off()
                if key in changes:
                    page.text(
                        (x + side / 2) / width,
                        1 - (y + side + 1) / height,
                        f"{changes[key][column]:+.1f}",
                        fontsize=7,
                        ha="center",
                        va="top",
                    )
    return page


def figure_changes(cell: dict[str, Any]) -> dict[str, list[float]]:
    """Picture set to the change of each response against α = 0, in SDs, not turned to the wanted way."""
    known = {
        (one["method"], one["direction"]): np.array(one["values"])
        for one in cell["scores"]
        if one["measure"] == "response_change_from_input"
    }
    return {
        f"{label}|{way}": (SIGN[way] * (known[label, way] - known[UNEDITED, way])).tolist()
        for label in (OURS, OPTIMISED)
        for way in SIGN
        if (label, way) in known
    }
