"""What each benchmark was meant to show and what it measured, read from the JSON that it wrote.

A benchmark whose JSON states its own ``checks`` (a sentence that holds the figures, and whether it is true) and
``measures`` (the fields of :class:`Measure`) needs no reader here: :func:`stated` is the default. The readers below
are for older files, and for aims that compare a figure with a limit. Aims are those of the benchmark's own first run;
what has not been measured is ``met=None``, never true.
"""

import math
import statistics
from dataclasses import dataclass
from typing import Any

BOOTSTRAP = "95 % bootstrap interval over units first"
QUARTILES = "quartiles over rounds"


@dataclass(frozen=True)
class Aim:
    """One thing that was wanted.

    Args:
        what: A sentence with the figure and what was wanted.
        met: Whether it was reached; None where noise or a missing measurement leaves it open.
    """

    what: str
    met: bool | None


@dataclass(frozen=True)
class Measure:
    """One figure with its spread, for the table at the head of the page and in the README.

    Args:
        what: What was measured; measures of one ``what`` share a row.
        value: The figure.
        unit: ``"SD"``, ``"share"`` (0 to 1), ``"ratio"``, ``"s"`` or ``""``.
        sample: How much it rests on, in words.
        low: Lower end of the spread; None where there is none.
        high: Upper end.
        spread: What the two ends are.
        direction: ``"increase"``, ``"decrease"`` or ``""``.
    """

    what: str
    value: float
    unit: str
    sample: str
    low: float | None = None
    high: float | None = None
    spread: str = ""
    direction: str = ""

    def __str__(self) -> str:
        if self.unit == "share":
            return f"{math.floor(1000 * self.value + 1e-9) / 10:.1f} %"  # down, so that 100 % means all
        sign, after = ("+", " SD") if self.unit == "SD" else ("", {"s": " s"}.get(self.unit, ""))
        shown = [f"{value:{sign}.2f}" for value in (self.value, self.low, self.high) if value is not None]
        return shown[0] + after + (f" [{shown[1]}, {shown[2]}]" if len(shown) == 3 else "")


@dataclass(frozen=True)
class Findings:
    """Everything that one benchmark's JSON says about its aims."""

    aims: tuple[Aim, ...] = ()
    measures: tuple[Measure, ...] = ()


def stated(numbers: dict[str, Any]) -> Findings:
    """A file that says itself what held (``checks``) and what the figures are (``measures``)."""
    aims = tuple(Aim(text, met) for text, met in numbers.get("checks", {}).items())
    return Findings(aims, tuple(Measure(**one) for one in numbers.get("measures", ())))


def table3(numbers: dict[str, Any]) -> Findings:
    """Edits and optimisations on CIFAR-10: the benchmark's own checks; the rows that a reader asks for first."""
    from table3_report import checks
    from table3_rows import ROWS

    shipped, published, shuffled = ROWS[1].label, ROWS[0].label, ROWS[2].label
    named = {
        shipped: "shipped edit, α = 1: Δr against α = 0",
        shuffled: "the same on shuffled responses",
        published: "the paper's losses and prior at the same budget",
    }
    rows = {(row["method"], row["direction"]): row for row in numbers["rows"]}
    ways = ("increase", "decrease")
    units = len(rows[shipped, ways[0]]["change_by_unit"])
    sample = f"{units} units of the CIFAR-10 ConvNet"
    measures = []
    for method, what in named.items():
        for way in ways:
            value, low, high = rows[method, way]["change"]
            measures.append(Measure(what, value, "SD", sample, low, high, BOOTSTRAP, way))
    what = "its similarity to the input in a third-party ResNet-20 (0 random pair, 1 reconstruction)"
    measures += [Measure(what, rows[shipped, way]["normalised_similarity"], "", sample, direction=way) for way in ways]
    aims = tuple(Aim(text, bool(met)) for text, met in checks(numbers).items())
    return Findings(aims, tuple(measures))


def speed(numbers: dict[str, Any]) -> Findings:
    """Ratios of times: what a hook and a unit cost, against their limits; editing against optimisation."""
    from speed import HOOK_LIMIT, LAYER_LIMIT

    wanted = {
        "hooks": {
            "full": ("a hook, whole pass", HOOK_LIMIT),
            "late": ("a hook, stopped at the last layer", HOOK_LIMIT),
            "target": ("LayerTarget against preprocessing + bare", HOOK_LIMIT),
        },
        "units": {
            "one": ("one unit against a bare pass to its layer", HOOK_LIMIT),
            "all": ("all units of a layer against one", LAYER_LIMIT),
        },
    }
    aims, measures = [], []
    for part, limits in wanted.items():
        for one in numbers.get(part, ()):
            noisy = abs(one["ratios"]["bare again"]["median"] - 1) > HOOK_LIMIT - 1
            for key, (what, limit) in limits.items():
                found = one["ratios"][key]
                text = f"{one['network']}: {what} costs {found['median']:.3f} (wanted: at most {limit})"
                if noisy:
                    text += "; too noisy to say, two bare passes differ by more than the limit"
                aims.append(Aim(f"{text}.", None if noisy else found["median"] <= limit))
        if part not in numbers:
            aims.append(Aim(f"Part {part!r} of the costs has not been measured.", None))
    sample = f"{numbers['size']['repeats']} rounds"
    if "end_to_end" in numbers:
        found = numbers["end_to_end"]["ratios"]["optimize, standard VAE"]
        what = "optimising a picture in a standard VAE against editing it, seconds"
        ends = (found["quartile_1"], found["quartile_3"])
        measures.append(Measure(what, found["median"], "ratio", sample, *ends, QUARTILES))
    for one in numbers.get("hooks", ()):
        found = one["ratios"]["full"]
        what = f"{one['network']}: a pass with a hook against a bare one, seconds"
        ends = (found["quartile_1"], found["quartile_3"])
        measures.append(Measure(what, found["median"], "ratio", f"{found['rounds']} rounds", *ends, QUARTILES))
    return Findings(tuple(aims), tuple(measures))


def unit_coverage(numbers: dict[str, Any]) -> Findings:
    """Units that are read right: at least 95 % of those that exist, and no wrong number anywhere."""
    aims, measures = [], []
    for reader, held in numbers.items():
        total = held["total"]
        cells = {word: total.get(f"unit {word}", 0) for word in ("right", "refused", "wrong")}
        count = sum(cells.values())
        share = cells["right"] / count
        sample = f"{count:,} units, {total['architectures']} architectures"
        measures.append(Measure(f"units that {reader} {held['version']} reads right", share, "share", sample))
        if reader == "vislens_interp":
            wrong = total.get("wrong", 0)
            aims.append(Aim(f"{measures[-1]} of {sample}, are read right (wanted: 95 %).", share >= 0.95))
            aims.append(Aim(f"{wrong} readings are wrong (wanted: none).", wrong == 0))
    return Findings(tuple(aims), tuple(measures))


def sd15_speed(numbers: dict[str, Any]) -> Findings:
    """A landscape of the paper's size: our fit reaches the paper's best validation loss within a minute."""
    aims, measures = [], []
    for name in ("fit, simulated", "fit, photographs"):
        if name not in numbers["parts"]:
            aims.append(Aim(f"Part {name!r} has not been measured.", None))
            continue
        found = numbers["parts"][name]["found"]
        seconds = found["alternating"]["seconds_to_goal"]
        sample = f"{found['name']}, {found['images']:,} × {found['dim']:,}"
        took = "never" if seconds is None else f"in {seconds:.1f} s"
        text = f"{sample}: exact rounds reach the published recipe's best validation loss {took} (wanted: 60 s)."
        aims.append(Aim(text, seconds is not None and seconds <= 60))
        if seconds is not None:
            measures.append(
                Measure("exact rounds, to the published recipe's best validation loss", seconds, "s", sample)
            )
    return Findings(tuple(aims), tuple(measures))


def planted_units(numbers: dict[str, Any]) -> Findings:
    """Mixtures whose preferences are known: the shipped method against every single direction, at equal realism."""
    from planted_methods import SHIPPED
    from planted_truth import load_plan
    from planted_units import per_unit, verdicts

    from vislens_interp.metrics import interval

    rows, plan = numbers["rows"], load_plan()
    mixtures = [family for family in plan["families"] if family.startswith("mixture")]
    measures = []
    for way in ("increase", "decrease"):
        measure = f"realism {plan['realism']['levels'][0]}"
        values = per_unit(rows, SHIPPED, measure, family=mixtures, direction=[way])
        if not values:
            continue
        found = interval(values, levels=("unit",))
        what = f"planted mixtures, {SHIPPED}: true response at equal realism"
        ends = (found.low, found.high)
        measures.append(Measure(what, found.mean, "SD", f"{len(values)} planted units", *ends, BOOTSTRAP, way))
    return Findings(tuple(Aim(text, won) for won, text in verdicts(rows)), tuple(measures))


def v4_encoder(numbers: dict[str, Any]) -> Findings:
    """Held-out pictures of single V4 neurons: the aim that the file carries, and both baselines beaten."""
    from v4_encoder import BASELINES, OURS, PAPER

    aim = numbers["aim"]
    held = numbers["sessions"].get(aim["session"], {})
    medians = {label: found["median_r"] for label, found in held.items()}
    ours = [label for label in (OURS, PAPER) if label in medians]
    if not ours:
        return Findings((Aim(f"No encoder of ours has been measured on {aim['session']}.", None),))
    best = max(ours, key=lambda label: medians[label][0])
    value, low, high = medians[best]
    neurons = f"{len(held[best]['r'])} neurons of {aim['session']}"
    aims = [Aim(f"{best}: median R {value:.3f} over {neurons} (wanted: {aim['median_r']}).", value >= aim["median_r"])]
    for label in BASELINES:
        other = medians.get(label)
        said = "not measured" if other is None else f"{other[0]:.3f}"
        aims.append(Aim(f"{best}: {value:.3f}, {label}: {said} (wanted: above).", other and value > other[0]))
    what = f"V4 neurons, {best}: median held-out R"
    return Findings(
        tuple(aims), (Measure(what, value, "", neurons, low, high, "95 % bootstrap over neurons, pictures"),)
    )


def v4_recorded(numbers: dict[str, Any]) -> Findings:
    """Edits judged by recordings: ahead of BrainACTIV's ridge in decrease, not behind in increase."""
    from v4_recorded import BRAINACTIV, OURS

    from vislens_interp.metrics import interval, paired_difference

    def by_neuron(label: str, way: str) -> list[float]:
        return [statistics.fmean(values) for values in zip(*numbers["changes"][label][way].values(), strict=True)]

    aims, measures = [], []
    for way in ("increase", "decrease"):
        ours, theirs = by_neuron(OURS, way), by_neuron(BRAINACTIV, way)
        found = paired_difference(ours, theirs, levels=("unit",))
        wanted = "above zero" if way == "decrease" else "not below zero"
        text = f"{way}, mean over edit angles, {OURS} minus {BRAINACTIV}: {found} SD (wanted: {wanted})."
        aims.append(Aim(text, bool(found.low > 0 if way == "decrease" else found.high >= 0)))
        mean = interval(ours, levels=("unit",))
        ends = (mean.low, mean.high)
        what = "V4 neurons, edits judged by recorded responses, mean over angles"
        measures.append(
            Measure(what, mean.mean, "SD", f"{len(ours)} neurons", *ends, "95 % bootstrap over neurons", way)
        )
    return Findings(tuple(aims), tuple(measures))


def v4_preferred_images(numbers: dict[str, Any]) -> Findings:
    """Pictures made for V4 neurons: the file's own checks; what the shipped edit changes, by judge and direction."""
    from embedded_methods import OURS

    from vislens_interp.metrics import interval

    measures = []
    for judge, changes in numbers["changes"].items():
        for way, values in changes[OURS].items():
            mean = interval(values, levels=("unit",))
            ends = (mean.low, mean.high)
            what = f"V4 neurons, pictures made from recordings, judged by {judge}: Δr against α = 0"
            measures.append(
                Measure(what, mean.mean, "SD", f"{len(values)} neurons", *ends, "95 % bootstrap over neurons", way)
            )
    return Findings(stated(numbers).aims, tuple(measures))


def cross_subject(numbers: dict[str, Any]) -> Findings:
    """A landscape moves the other animal too, like one of its own; what is not shared is not moved."""
    from cross_subject_judging import OTHER, SHARED, UNSHARED
    from v4_recorded import BRAINACTIV, OURS, SHUFFLED

    def said(ends: list[float]) -> str:
        return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*ends)

    aims, measures = [], []
    angle, ways = f"{numbers['table_angle']:.0f}", ("increase", "decrease")
    sample = f"2 animals, {len(numbers['sessions'])} sessions"
    for pair, held in numbers["changes"]["recorded"].items():
        if not pair.endswith(OTHER):
            continue
        for way in ways:
            ends, moved = held[OURS][way][angle], numbers["neurons"][pair][way]
            right = sum(value > 0 for value in moved)
            text = f"{pair}, {way} at {angle}°, {OURS}, recorded: {said(ends)} SD (wanted: above zero)"
            aims.append(Aim(f"{text}; {right} of {len(moved)} single neurons move the wanted way.", ends[1] > 0))
    for way in ways:
        for rival in (SHUFFLED, BRAINACTIV):
            theirs = numbers["minus ours"][OTHER][rival][way]
            ends = [-theirs[0], -theirs[2], -theirs[1]]
            ahead = rival == SHUFFLED or way == "decrease"
            wanted = "above zero" if ahead else "not below zero"
            text = (
                f"Other animal, {way}, mean over edit angles, {OURS} minus {rival}: {said(ends)} SD (wanted: {wanted})."
            )
            aims.append(Aim(text, ends[1] > 0 if ahead else ends[2] >= 0))
        for level, held in numbers["over animals"].items():
            value, low, high = held[way]
            what = f"V4 population, edits at {angle}° judged by recordings of: {level}"
            spread = "95 % bootstrap over the judge's neurons, pictures"
            measures.append(Measure(what, value, "SD", sample, low, high, spread, way))
    for pair in (SHARED, UNSHARED):
        for way in ways:
            if "simulated" not in numbers:
                aims.append(Aim(f"Simulated subjects have not been measured: {pair}, {way}.", None))
                continue
            ends = numbers["simulated"]["truth"][pair][OURS][way][angle]
            wanted = "above zero" if pair == SHARED else "zero within the interval: the control must fail"
            done, total = numbers["regions"]
            text = f"Simulated, {pair}, {way} at {angle}°, planted truth, {done} of {total} regions: {said(ends)} SD"
            met = ends[1] > 0 if pair == SHARED else ends[1] <= 0 <= ends[2]
            # Of few regions any interval holds zero.
            aims.append(Aim(f"{text} (wanted: {wanted}).", met if pair == SHARED or done == total else None))
    return Findings(tuple(aims), tuple(measures))
