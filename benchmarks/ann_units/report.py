"""What `ann_units` found: tables over all cells, what fails first, and two figures."""

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.ann_units.methods import (
    CONTESTANTS,
    EDITED,
    MADE,
    NATURAL,
    OPTIMISED,
    OURS,
    OURS_AT_ANGLE,
    RANDOM,
    UNEDITED,
)
from benchmarks.common import package as vl
from benchmarks.common.edit_methods import BRAINACTIV, LANDSCAPE, SIGN
from benchmarks.common.figures import save_small, sheet
from benchmarks.common.findings import BOOTSTRAP, Measure, measure, stated_measures
from benchmarks.common.networks import NETWORKS
from benchmarks.common.script import provenance_line, publish, read_all
from benchmarks.common.tables import bracketed, fill, ran_at, signed, table, verdict

WANTED_UNITS, WANTED_NETWORKS, WANTED_IMAGES = 24, 2, 12
COST_RATIO = 0.1
NEAREST = 5  # methods that a sentence on realism names
SCORES = ("response_change_from_input", "predictivity", "kernel_distance", "spectrum_distance", "similarity", "seconds")
PICTURES = "pictures-{network}-{layer}-{unit}-{seed}.safetensors"
DRAWS = 1000
KERNEL, CHANGE = "kernel_distance", "response_change_from_input"
Values = NDArray[np.float64]


class Found:
    """All cells of one budget, one for each unit and seed, as arrays over units, images and seeds."""

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
        self.scores, self.broken = self._arrays()
        present = {method for method, _, name in self.scores if name == CHANGE}
        self.methods = [label for label in CONTESTANTS if label in present]
        self.made = [label for label in self.methods if CONTESTANTS[label].kind in MADE]
        self.baselines = [label for label in self.methods if CONTESTANTS[label].kind == "optimised"]

    def _arrays(self) -> tuple[dict[tuple[str, str, str], Values], list[str]]:
        """Scores that every unit and seed has, (units, images, seeds), and the methods with one that is not finite."""
        known: dict[Any, dict[Any, list[float]]] = {}
        for place, cell in self.cells.items():
            for one in cell["scores"]:
                known.setdefault((one["method"], one["direction"], one["measure"]), {})[place] = one["values"]
        whole = [(unit, seed) for unit in self.units for seed in self.seeds]
        scores: dict[tuple[str, str, str], Values] = {
            key: np.array([[values[unit, seed] for seed in self.seeds] for unit in self.units]).transpose(0, 2, 1)
            for key, values in known.items()
            if all(place in values for place in whole)
        }
        broken = sorted({method for (method, _, _), values in scores.items() if not np.isfinite(values).all()})
        scores = {key: values for key, values in scores.items() if key[0] not in broken}
        # Judges' features differ in scale by a hundred million to one: each unit's distances in its own α = 0's.
        zero = {way: np.abs(scores[UNEDITED, way, KERNEL]) for way in SIGN if (UNEDITED, way, KERNEL) in scores}
        for method, way, name in scores:
            if name == KERNEL and way in zero:
                scores[method, way, name] = scores[method, way, name] / zero[way]
        return scores, broken

    @staticmethod
    def name(cell: dict[str, Any]) -> str:
        return f"{cell['network']} {cell['layer']} {cell['unit']}"

    def change(self, method: str, way: str) -> Values:
        """Signed Δr (units, images, seeds) against the α = 0 pictures of the same images and noise, one for all."""
        return self.scores[method, way, CHANGE] - self.scores[UNEDITED, way, CHANGE]

    def both(self, method: str, name: str) -> Values:
        """The mean of the two directions of a measure; ``"change"`` is :meth:`change`."""
        one = self.change if name == "change" else lambda method, way: self.scores[method, way, name]
        return np.mean([one(method, way) for way in SIGN], axis=0)

    def has(self, method: str, name: str, *ways: str) -> bool:
        return all((method, way, name) in self.scores for way in (ways or tuple(SIGN)))

    def tells(self, *methods: str) -> bool:
        """Whether these methods have a predictivity."""
        return all(self.has(method, "predictivity", "both") for method in methods)

    def told(self, method: str) -> Values:
        """Predictivity, in percent, (units, 1, seeds), from preferred and suppressed pictures together."""
        return self.scores[method, "both", "predictivity"]

    def reached(self, label: str, unit: str, seed: int, way: str) -> float:
        """Mean response of a method's pictures in the wanted direction, in SDs."""
        place = (self.units.index(unit), slice(None), self.seeds.index(seed))
        return float(self.scores[label, way, CHANGE][place].mean() + SIGN[way] * self.cells[unit, seed]["start"])

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
        found: dict[str, list[float | None]] = {label: [] for label in self.baselines}
        for label, times in found.items():
            for (unit, seed, way), total in zip(self.cases, self.seconds(label), strict=True):
                level = self.reached(OURS, unit, seed, way)
                trace = self.cells[unit, seed]["traces"].get(label, {}).get(way, [])
                first = next((seconds for seconds, value in trace if value >= level), total)
                times.append(first if self.reached(label, unit, seed, way) >= level else None)
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


def interval(values: Values, *, same_images: bool = False) -> vl.Interval:
    return vl.interval(values, draws=DRAWS, same_images=same_images)


def difference(ours: Values, theirs: Values, *, same_images: bool = False) -> vl.Interval:
    return vl.paired_difference(ours, theirs, draws=DRAWS, same_images=same_images)


def told_apart(low: float, mean: float) -> bool | None:
    """Better for sure, open, or not better."""
    return True if low > 0 else (None if mean > 0 else False)


def checks(found: Found) -> dict[str, bool | None]:
    """What the issue asks, as sentences, and whether it is so; None where the interval leaves it open."""
    per = {name: sum(found.network_of[unit] == name for unit in found.units) for name in found.networks}
    listed = ", ".join(f"{count} of {name}" for name, count in per.items())
    enough = sum(count >= WANTED_UNITS for count in per.values()) >= WANTED_NETWORKS and found.images >= WANTED_IMAGES
    text = (
        f"Units: {listed}; {found.images} images, {len(found.seeds)} seed(s) (wanted: at least "
        f"{WANTED_UNITS} of {WANTED_NETWORKS} networks, {WANTED_IMAGES} images, 1 seed)."
    )
    return {text: enough} | predictivity_check(found) | realism_check(found) | cost_check(found)


def predictivity_check(found: Found) -> dict[str, bool | None]:
    makers = [label for label in found.made if found.tells(label)]
    if OURS not in makers or len(makers) < 2:
        return {"Predictivity: not measured for our edit and a rival on every unit.": None}
    own = found.told(OURS).mean()
    best = max((label for label in makers if label != OURS), key=lambda label: found.told(label).mean())
    apart = difference(found.told(OURS), found.told(best))
    text = (
        f"Predictivity among methods that make images: {OURS} {own:.1f} %, the best other, {best}, "
        f"{found.told(best).mean():.1f} %, difference {apart} (wanted: above 0)."
    )
    verdicts = {text: told_apart(apart.low, apart.mean)}
    for label in (OURS, EDITED):
        if found.tells(NATURAL, label):
            bar = difference(found.told(label), found.told(NATURAL))
            text = (
                f"Predictivity against the bar: {label} {found.told(label).mean():.1f} %, {NATURAL} "
                f"{found.told(NATURAL).mean():.1f} %, difference {bar} (wanted: above 0)."
            )
            verdicts[text] = told_apart(bar.low, bar.mean)
    return verdicts


def realism_check(found: Found) -> dict[str, bool | None]:
    makers = [label for label in found.made if found.has(label, KERNEL, "increase")]
    reach = {label: float(found.change(label, "increase").mean()) for label in makers}
    strong = {label: found.scores[label, "increase", KERNEL] for label, value in reach.items() if value >= 1}
    far = {label: float(values.mean()) for label, values in strong.items()}
    nearest = sorted(far, key=lambda label: far[label])[:NEAREST]
    listed = ", ".join(f"{label} {far[label]:.2f}" for label in nearest)
    text = "Realism among methods that reach +1 SD"
    if OURS not in strong:
        own = f"{OURS} reaches {reach.get(OURS, math.nan):+.2f} SD and is not among them"
        return {f"{text} (kernel distance, increase): {own} ({listed or 'no method is'}; wanted: best of them).": False}
    if len(strong) == 1:
        return {f"{text}: {OURS} is the only one (wanted: best of them).": True}
    best = min((label for label in strong if label != OURS), key=lambda label: far[label])
    apart = difference(strong[best], strong[OURS])
    text += f" (kernel distance, × α = 0's, increase, less is better): {listed}, the others further. "
    return {f"{text}The best other minus ours {signed(apart)} (wanted: above 0).": told_apart(apart.low, apart.mean)}


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
        f"median ratio {ratio:.2f} (wanted: at most {COST_RATIO}); the fit's {fit:.1f} s are paid for "
        + ("never, on this machine." if even is None else f"after {even:,.0f} images.")
    )
    return {text: ratio <= COST_RATIO}


def mean_of(found: Found, label: str, name: str, digits: int = 2, *ways: str) -> str:
    if not found.has(label, name, *ways):
        return ""
    return f"{np.mean([found.scores[label, way, name].mean() for way in (ways or tuple(SIGN))]):.{digits}f}"


def response_table(found: Found) -> list[list[str]]:
    head = ["method", *(f"{what} {way}" for way in SIGN for what in ("similarity", "Δr"))]
    rows = [[*head, "Δr from the photograph", "images right", "units right", "percentile", "angle"]]
    for label in found.methods:
        row, moved = [label], {way: found.change(label, way) for way in SIGN}
        for way, change in moved.items():
            row += [mean_of(found, label, "similarity", 3, way), str(interval(change, same_images=True))]
        units = [change.mean((1, 2)) > 0 for change in moved.values()]
        row += [mean_of(found, label, CHANGE), f"{np.mean([change > 0 for change in moved.values()]):.0%}"]
        row += [f"{np.mean(units):.0%}", mean_of(found, label, "percentile", 0)]
        rows.append([*row, mean_of(found, label, "edit_angle", 0)])
    return rows


def picture_table(found: Found, distances: dict[str, float | None]) -> list[list[str]]:
    head = ["method", "predictivity, %", "extreme pairs, %", "kernel distance, × α = 0's, increase", "decrease"]
    rows = [[*head, "Fréchet distance", "spectrum, dB", "diversity", "transfer, SD"]]
    for label in found.methods:
        told = interval(found.told(label)) if found.tells(label) else None
        row = [label, "" if told is None else bracketed(told, ".1f")]
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
        columns = (("forward", 0), ("backward", 0), ("seconds", 3), ("fit_seconds", 2))
        row = [label, *(mean_of(found, label, name, digits) for name, digits in columns)]
        if label in theirs:
            count, seconds, ratio = against(theirs[label], ours)
            row.append(f"{count} of {cases}")
            if seconds is not None and ratio is not None:
                even = break_even(fit, own, seconds)
                row += [f"{seconds:.3f}", f"{ratio:.2f}", "never" if even is None else f"{even:,.0f}"]
        rows.append(row + [""] * (9 - len(row)))
    return rows


def difference_table(found: Found, own: str, rivals: list[str]) -> list[list[str]]:
    rows = [[f"{own} minus", "Δr increase", "Δr decrease", "predictivity, %", "kernel distance, × α = 0's"]]
    for label in rivals:
        moved = [difference(found.change(own, way), found.change(label, way), same_images=True) for way in SIGN]
        told = str(difference(found.told(own), found.told(label))) if found.tells(own, label) else ""
        both = all(found.has(one, KERNEL) for one in (own, label))
        far = signed(difference(*(found.both(one, KERNEL) for one in (own, label)))) if both else ""
        rows.append([label, *map(str, moved), told, far])
    return rows


def network_table(found: Found) -> list[list[str]]:
    columns = [(name, way) for name in found.networks for way in SIGN]
    of = {name: [found.network_of[unit] == name for unit in found.units] for name in found.networks}
    rows = [["Δr against α = 0", *(f"{name} {way}" for name, way in columns)]]
    cell = lambda label, name, way: f"{found.change(label, way)[of[name]].mean():+.2f}"  # noqa: E731
    return [*rows, *([label, *(cell(label, *one) for one in columns)] for label in found.methods)]


def set_distances(out: Path, found: Found) -> dict[str, float | None]:
    """Fréchet distance of all of a method's pictures, both directions, to the judging photographs; None: too few."""
    stored = [load_file(out / PICTURES.format_map(cell)) for cell in found.cells.values()]
    natural = stored[-1]["natural|seen"]

    def distance(label: str) -> float | None:
        rows = torch.cat([cell[f"{label}|{way}|seen"] for cell in stored for way in SIGN])
        few = min(len(rows), len(natural)) <= rows.shape[1]
        return None if few else vl.frechet_distance(rows, natural)

    return {label: distance(label) for label in found.methods}


def report(out: Path, networks: list[str], said: dict[str, Any]) -> str:
    """ann_units.json, ann_units.md and two figures of the cells in ``out``; absent ones of ``networks`` are named."""
    stored = read_all(out, "cell-*.json")
    if not stored:
        raise SystemExit(f"nothing to report in {out}: run something first.")
    order = list(NETWORKS)
    cells = sorted((one["found"] for one in stored), key=lambda cell: (order.index(cell["network"]), cell["layer"]))
    found = Found(cells)
    verdicts, distances = checks(found), set_distances(out, found)
    absent = [name for name in networks if name not in found.networks]
    reasons = {
        "Left out, for a score of theirs is not finite": found.broken,
        "Not measured, for no cell of it is there": absent,
        "Not run on every unit": [one for one in CONTESTANTS if one not in (*found.methods, *found.broken)],
    }
    left_out = [f"- {reason}: {', '.join(names)}." for reason, names in reasons.items() if names]
    responses, costs = response_table(found), cost_table(found)
    rivals = [label for label in found.methods if label not in (OURS, OURS_AT_ANGLE)]
    edits = [label for label in rivals if CONTESTANTS[label].kind == "edit" or "shuffled" in label]
    text = fill(
        __file__,
        "page",
        verdict=verdict(verdicts, left_out),
        found=found,
        **about(found),
        responses=table(responses),
        pictures_table=table(picture_table(found, distances)),
        costs=table(costs),
        differences=table(difference_table(found, OURS, rivals)),
        matched=table(difference_table(found, OURS_AT_ANGLE, edits)),
        networks=table(network_table(found)),
        ran_at=ran_at(one["provenance"] for one in stored),
        minutes=sum(cell["cpu_seconds"] for cell in cells) / 60,
        source=provenance_line(said),
    )
    by_unit = lambda label, way: found.change(label, way).mean((1, 2)).round(3).tolist()  # noqa: E731
    numbers = {
        "checks": verdicts,
        "measures": measures(found),
        "absent": absent,
        "rows": {"response": responses, "cost": costs},
        "change_by_unit": {
            label: {way: dict(zip(found.units, by_unit(label, way), strict=True)) for way in SIGN}
            for label in found.methods
        },
        "frechet": distances,
        "provenance": said,
    }
    publish(out / "ann_units", text, numbers)
    figures(out, found)
    return text


def about(found: Found) -> dict[str, Any]:
    """What the page says of the sample."""
    cells = list(found.cells.values())
    held = {name: np.mean([c["correlation"] for c in cells if c["network"] == name]) for name in found.networks}
    return {
        "units": len(found.units),
        "seeds": len(found.seeds),
        "pictures": len(cells) * 2 * found.images * len(found.methods),
        "methods": len(found.methods),
        "shipped_steps": cells[0]["shipped_optimise_steps"],
        "ours": OURS,
        "random": RANDOM,
        "judges": ", ".join(sorted({f"{cell['judge']} for {cell['network']}" for cell in cells})),
        "correlations": ", ".join(f"{name} {value:.2f}" for name, value in held.items()),
        "no_cases": 2 * len(found.units) * len(found.seeds) - len(found.cases),
    }


def measures(found: Found) -> list[dict[str, Any]]:
    """For the table at the head of all results."""
    sample = f"{len(found.units)} units of {len(found.networks)} networks"
    what = f"units of networks, {OURS}: Δr against α = 0"
    changes = {way: interval(found.change(OURS, way), same_images=True) for way in SIGN}
    said = [measure(what, change, "SD", sample, way, BOOTSTRAP) for way, change in changes.items()]
    for label in (OURS, EDITED, NATURAL):
        if found.tells(label):
            value = interval(found.told(label) / 100).mean
            said.append(Measure(f"predictivity of {label} (chance 50 %)", value, "share", sample))
    _, _, ratio = against(found.fastest, found.seconds(OURS))
    if ratio is not None:
        what = "a picture's seconds after the fit against the fastest optimisation baseline's at equal response"
        said.append(Measure(what, ratio, "ratio", sample))
    return stated_measures(said)


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
            (short.get(label, label), way, name): values
            for (label, way, name), values in found.scores.items()
            if name in SCORES
        },
        notes=[f"Budget of whatever asks the target: {found.passes} forward passes. Kernel distance: × α = 0's."],
    )
    save_small(pooled.figure([name for name in SCORES if name in pooled.measures]), out / "ann_units_scores.webp")


def figure_4(out: Path, cells: list[dict[str, Any]]) -> Figure:
    """A row for each layer's first test unit, the first test images, nothing picked; below a picture its Δr in SDs."""
    blocks = {
        "photograph": "input",
        "α = 0": f"{UNEDITED}|increase",
        "preferred": f"{OURS}|increase",
        "suppressed": f"{OURS}|decrease",
        "preferred, optimised": f"{OPTIMISED}|increase",
        "top natural": f"{NATURAL}|increase",
    }
    rows: list[tuple[str, Tensor, list[str]]] = []
    for cell in cells:
        pictures, changes = load_file(out / PICTURES.format_map(cell)), figure_changes(cell)
        shown = torch.cat([pictures[key] for key in blocks.values()]).float() / 255
        notes = [
            f"{changes[key][column]:+.1f}" if key in changes else ""
            for key in blocks.values()
            for column in range(len(pictures[key]))
        ]
        rows.append((f"{cell['network']}\n{cell['layer']}, unit {cell['unit']}", shown, notes))
    count = len(rows[0][1]) // len(blocks)
    return sheet(rows, heads=[text for label in blocks for text in [label, *[""] * (count - 1)]])


def figure_changes(cell: dict[str, Any]) -> dict[str, list[float]]:
    """Picture set to the change of each response against α = 0, in SDs, not turned to the wanted way."""
    known = {
        (one["method"], one["direction"]): np.array(one["values"]) for one in cell["scores"] if one["measure"] == CHANGE
    }
    return {
        f"{label}|{way}": (SIGN[way] * (known[label, way] - known[UNEDITED, way])).tolist()
        for label in (OURS, OPTIMISED)
        for way in SIGN
        if (label, way) in known
    }
