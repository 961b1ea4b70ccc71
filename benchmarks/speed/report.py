"""Tables of the speed benchmark, a template each, and what its times say of the limits."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common.findings import QUARTILES, Aim, Findings, Measure, measure
from benchmarks.common.script import provenance_line
from benchmarks.common.tables import fill_lines, table_text

LAYER, UNIT = "conv3", 16
HOOK_LIMIT = 1.03
"""What a hook may cost: 3 % of a bare forward pass. And reading a unit: 3 % of a bare pass as far as its layer."""
LAYER_LIMIT = 1.2  # what all units of a layer may cost, in readings of one unit
LIMITS: dict[str, dict[str, tuple[str, float]]] = {
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


def end_to_end_lines(found: dict[str, Any]) -> list[str]:
    named = {
        "edit": "edit",
        "optimize": f"optimize, {found['steps']} steps, in the fitted landscape",
        "optimize, standard VAE": f"optimize, {found['steps']} steps, standard VAE without a fit",
        "refinement alone": "of which decoding and refinement",
    }
    rows = [["what", "s / image", "against editing (quartiles)"]]
    for name, words in named.items():
        against = "1" if name == "edit" else quartiles(found["ratios"][name])
        rows.append([words, f"{found['seconds_per_image'][name]:.4f}", against])
    paid = {"paid": found["images_until_paid"], "paid_with": found["images_until_paid_with_evidence"]}
    never = "no number of images (editing was not faster)"
    said = {key: never if count is None else f"{int(np.ceil(count))} images" for key, count in paid.items()}
    return fill_lines(__file__, "end_to_end", **found, **said, table=table_text(rows))


def quartiles(found: dict[str, float]) -> str:
    return f"{found['median']:.3f} ({found['quartile_1']:.3f} to {found['quartile_3']:.3f})"


def same_loss_lines(found: dict[str, Any]) -> list[str]:
    reached, at_our_time = found["plain_seconds"], found["plain_loss_at_our_time"]
    took = f"not reached in {found['plain_seconds_spent']:.0f} s" if reached is None else f"{reached:.1f} s"
    factor = f"more than {found['ratio_at_least']:.1f}" if found["ratio"] is None else f"{found['ratio']:.1f}"
    ours, loss = f"{found['ours_loss']:.2f}", f"{found['plain_loss']:.2f} (step {found['plain_steps']})"
    meanwhile = "—" if at_our_time is None else f"{at_our_time:.2f}"
    rows = [
        ["fit", "s until our loss", "loss then", "loss after our time"],
        ["ours: shared VAE, organised in closed form, then fitted", f"{found['ours_seconds']:.1f}", ours, ours],
        ["the paper's recipe from fresh weights (Adam 1e-4, StepLR 10/0.9, batch 128)", took, loss, meanwhile],
    ]
    stages = ("shipped_terms", "organised_terms", "ours_terms")
    terms = (f"{one} {' → '.join(f'{found[stage][one]:.2f}' for stage in stages)}" for one in found["ours_terms"])
    return fill_lines(
        __file__, "same_loss", **found, table=table_text(rows), factor=factor, layer=LAYER, terms=", ".join(terms)
    )


def noisy(one: dict[str, Any]) -> bool:
    return abs(one["ratios"]["bare again"]["median"] - 1) > HOOK_LIMIT - 1


def judged(part: str, one: dict[str, Any]) -> str:
    """Whether a network's ratios are within the limits of a part."""
    over = [name for name, (_, limit) in LIMITS[part].items() if one["ratios"][name]["median"] > limit]
    if noisy(one):
        return f"{one['network']}: TOO NOISY TO SAY: two bare passes differ by more than the limit"
    within = "within the limit" + "s" * (part == "units")
    return f"{one['network']}: " + (f"OVER THE LIMIT: {', '.join(over)}" if over else within)


def timed_row(one: dict[str, Any], name: str, main: str, *others: str) -> list[str]:
    ratios = one["ratios"]
    about = f"{name}, {one['batch']} × {one['side']} px, {ratios[main]['rounds']} rounds"
    return [about, f"{1000 * one['bare_seconds']:.2f}", *(quartiles(ratios[key]) for key in others)]


def hooks_lines(found: list[dict[str, Any]]) -> list[str]:
    head = ["network", "bare, ms", "bare again (the noise)", "hook, whole pass", "hook, stop at the last layer"]
    rows, verdicts = [[*head, "`LayerTarget` against preprocessing + bare", "stop at an early layer"]], []
    for one in found:
        *row, early = timed_row(one, one["network"], "full", "bare again", "full", "late", "target", "early")
        rows.append([*row, f"{early} (`{one['layers']['early']}`)"])
        verdicts.append(f"{judged('hooks', one)}; stopping early saves {1 - one['ratios']['early']['median']:.0%}.")
    few = min(one["batch"] for one in found)
    table, verdict = table_text(rows), " ".join(verdicts)
    return fill_lines(__file__, "hooks", limit=HOOK_LIMIT, table=table, verdicts=verdict, few=few)


def units_lines(found: list[dict[str, Any]]) -> list[str]:
    rows = [["network and layer", "bare pass to the layer, ms", "bare again (the noise)", "one unit / bare"]]
    rows[0].append("all units / one unit")
    for one in found:
        name = f"{one['network']} `{one['layer']}`, {one['units']} units"
        rows.append(timed_row(one, name, "one", "bare again", "one", "all"))
    verdicts = " ".join(f"{judged('units', one)}." for one in found)
    return fill_lines(
        __file__, "units", limit=HOOK_LIMIT, layer_limit=LAYER_LIMIT, table=table_text(rows), verdicts=verdicts
    )


def lens_lines(found: dict[str, Any]) -> list[str]:
    """Seconds and peak memory of a first and a further unit, before and now."""
    rows = [["unit", "version", "fit: s by the clock", "CPU s", "8 pictures both ways: s", "CPU s", "peak, MB"]]
    for at, unit in enumerate(("first", "second")):
        for name in ("before", "now"):
            seen = [one["units"][at] for one in found[name]]
            cells = [f"{np.median([one[what][key] for one in seen]):.1f}" for what, key in CLOCKS]
            rows.append([unit, name, *cells, f"{max(one['visualize']['peak'] for one in seen):.0f}"])
    fit = [np.median([one["units"][-1]["fit"]["cpu"] for one in found[name]]) for name in ("before", "now")]
    return fill_lines(
        __file__,
        "lens",
        **found | {"threads": found["now"][0]["threads"]},
        table=table_text(rows),
        ratio=f"{fit[1] / fit[0]:.2f}",
        aim_fit=FIT_LIMIT,
        aim_show=SHOW_LIMIT,
    )


CLOCKS = (("fit", "wall"), ("fit", "cpu"), ("visualize", "wall"), ("visualize", "cpu"))
FIT_LIMIT, SHOW_LIMIT = 3.0, 8.0  # seconds of a further unit: fit with evidence; eight pictures, both ways
PARTS: dict[str, Callable[[Any], list[str]]] = {
    "end_to_end": end_to_end_lines,
    "same_loss": same_loss_lines,
    "hooks": hooks_lines,
    "units": units_lines,
    "lens": lens_lines,
}


def report(found: dict[str, Any]) -> str:
    sections = ["# Speed" + (" (quick run: it works, and measures nothing)" if found["quick"] else "")]
    for part, lines in PARTS.items():
        if part in found:
            sections += ["\n".join(lines(found[part])), provenance_line(found["sources"][part])]
    return "\n\n".join(sections) + "\n"


def findings(numbers: dict[str, Any]) -> Findings:
    """Ratios of times: what a hook and a unit cost, against their limits; editing against optimisation."""
    aims: list[Aim] = []
    for part, limits in LIMITS.items():
        for one in numbers.get(part, ()):
            for key, (what, limit) in limits.items():
                cost = one["ratios"][key]["median"]
                text = f"{one['network']}: {what} costs {cost:.3f} (wanted: at most {limit})"
                text += "; too noisy to say, two bare passes differ by more than the limit" * noisy(one)
                aims.append(Aim(f"{text}.", None if noisy(one) else cost <= limit))
        if part not in numbers:
            aims.append(Aim(f"Part {part!r} of the costs has not been measured.", None))
    if "lens" in numbers:
        later = [one["units"][-1] for one in numbers["lens"]["now"]]
        for what, key, limit in (
            ("fit and evidence", "fit", FIT_LIMIT),
            ("8 pictures both ways", "visualize", SHOW_LIMIT),
        ):
            taken = float(np.median([one[key]["wall"] for one in later]))
            text = f"A further unit of a layer of EfficientNet-Lite2, {what}: {taken:.1f} s (wanted: at most {limit})."
            aims.append(Aim(text, taken <= limit))
    measures: list[Measure] = []

    def add(what: str, ratio: dict[str, float], sample: str) -> None:
        ends = [ratio[key] for key in ("median", "quartile_1", "quartile_3")]
        measures.append(measure(what, ends, "ratio", sample, spread=QUARTILES))

    if "end_to_end" in numbers:
        standard = numbers["end_to_end"]["ratios"]["optimize, standard VAE"]
        what = "optimising a picture in a standard VAE against editing it, seconds"
        add(what, standard, f"{numbers['size']['repeats']} rounds")
    if hooked := numbers.get("hooks"):
        most = max((one["ratios"]["full"] for one in hooked), key=lambda full: full["median"])
        what = f"a pass with a hook against a bare one, seconds, the most of {len(hooked)} networks"
        add(what, most, f"{most['rounds']} rounds")
    return Findings(tuple(aims), tuple(measures))
