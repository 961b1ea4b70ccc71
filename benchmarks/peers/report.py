"""Tables of the comparison with other tools: what was measured, what it took to run them, what fails first."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import package as vl
from benchmarks.common.figures import save_small, sheet
from benchmarks.common.findings import BOOTSTRAP, Measure, measure, stated_measures
from benchmarks.common.script import provenance_line, publish, read, read_all
from benchmarks.common.tables import bracketed, fill, not_below, table_text, three
from benchmarks.peers.environments import PEERS
from benchmarks.peers.plan import BEST, INPUT, LANDSCAPE, OWN, RIVALS, SIZE, SUBJECTS, WAYS, Photographs, Unit
from benchmarks.peers.scores import Pair, Row, Scorer, complete, difference, find_cells, grid, judge, versions

LABELS = {name: way.label for name, way in WAYS.items()} | OWN
REACHED = 1.0  # SDs above the mean photograph from which on it is asked whether a way's pictures look like photographs
CONFETTI = 2.0
"""Times photographs' contrast in the strongest of the decorrelated colours, above which a picture is saturated; of an
edited photograph, times its own, for photographs differ."""
REACHING = ("maximization", "maco")
"""Ours of which each picture has to reach half of the best tool's response; accentuation's responses lie around 0."""
TENTH = 0.1  # of the fastest ascent's time: what a picture of the landscape may cost
EACH = ("response", "percentile", "near", "transfer", "contrast")  # measures of single pictures
FIGURE_UNITS = 6  # as many of each layer, the first ones of the table
COST = ("forward", "cpu_seconds", "seconds")
HEAVY = ("features", "pixels", "picture", "settings", "versions")  # of a scored row, what the JSON leaves out


def write(
    bench: Photographs, passes: int, units: list[Unit], seeds: range, *, weights: Path | None, said: dict[str, Any]
) -> str:
    """Score everything that is there, write ``peers.md``, ``peers.json`` and ``peers.webp`` into ``out``.

    ``weights`` is the folder of a network that may judge, ``said`` the report's provenance.
    """
    name, features = judge(bench, weights)
    scorer = Scorer(bench, features)
    found = find_cells(bench, passes, units, seeds)
    if not found:
        raise ValueError(f"out={str(bench.out)!r} holds no picture; expected some. Run `paint` with this --out first.")
    rows, runs = scorer.score(found), [*read_all(bench.out, "said-*.json"), said]
    natural = float(scorer.near(features(bench.tuning)).mean())
    numbers: dict[str, Any] = {"judge": name, "passes": passes, "runs": runs, "natural_near": natural}
    numbers |= {"checks": {}, "measures": [], "versions": versions(found), "settings": {}}
    tables: list[str] = []
    for setting, title in (("equal", f"At {passes} passes a picture"), ("default", "As released")):
        held = [row for row in rows if row["setting"] in (setting, "own")]
        ways = [way for way in LABELS if any(row["way"] == way for row in held)]
        pairs = complete(held, ways)
        tables += [f"## {title}", ""]
        if not pairs or not set(ways) & set(WAYS):
            tables += ["Not run yet, or no unit has been painted for by all ways.", ""]
            continue
        kept = table(scorer, held, ways, pairs)
        numbers["settings"][setting] = kept
        tables += [sample(kept, held, ways), "", *shown(kept), ""]
        if setting == "equal":
            numbers["checks"], numbers["measures"] = checks(held, kept, pairs), measures(kept, passes)
            figure(bench, held, ways, pairs, passes)
    more, checked = of_classes(bench)
    tables += more
    numbers["checks"] |= checked
    numbers["cells"] = [{key: value for key, value in row.items() if key not in HEAVY} for row in rows]
    marks = {True: "holds", False: "**FAILS**", None: "open"}
    verdicts = sorted(numbers["checks"].items(), key=lambda item: (item[1] is not False, item[1] is not None))
    text = fill(
        __file__,
        "page",
        verdicts=[f"- {marks[met]}: {text}" for text, met in verdicts],
        tables=tables,
        photographs=len(bench.test),
        judge=name,
        natural=natural,
        tuning=len(bench.tuning),
        worth=np.mean([row["transfer_worth"] for row in rows]),
        landscape=about_landscape([row for row in rows if row["way"] == LANDSCAPE]),
        needed=needed(numbers["versions"]),
        sources="  \n".join(provenance_line(one) for one in runs),
    )
    publish(bench.out / "peers", text, numbers)
    return text


def of_classes(bench: Photographs) -> tuple[list[str], dict[str, bool | None]]:
    """The table of the other network's class scores and what it says, where its own report has been written."""
    file = bench.out / "lite2" / "peers.json"
    if bench.name != "squeezenet" or not file.is_file():
        return [], {}
    kept = read(file)
    held = kept["settings"]["equal"]
    label, count = SUBJECTS["lite2"].label, len(held["pairs"])
    classes = ", ".join(str(unit) for _, unit, _ in held["pairs"])
    tables = [f"## Class scores of {label}, {kept['passes']} passes", "", f"{count} pictures of classes {classes}.", ""]
    return [*tables, *shown(held), ""], {f"{label}: {text}": met for text, met in kept["checks"].items()}


def about_landscape(edits: list[Row]) -> str:
    """How our landscape's pictures were made."""
    if not edits:
        return ""
    told, painted = edits[0]["settings"], edits[0].get("painted_at", SIZE)
    fitted = "all" if told["images"] is None else f"{told['images']:,}"
    beside = ", ".join(f"{key}={value}" for key, value in told.items() if key not in ("backend", "images"))
    text = f" The landscape: backend `{told['backend']}`, {fitted} of its own reference images, defaults"
    text += f" but for {beside}" if beside else ""
    if painted != SIZE:
        text += f"; its pictures are of {painted} px and enlarged to {SIZE}, so that they lack high frequencies, which "
        text += "the spectrum's distance sees"
    return text + ". It edits the photograph that accentuation starts from."


def table(scorer: Scorer, rows: list[Row], ways: list[str], pairs: list[Pair]) -> dict[str, Any]:
    """Measures of every way over the units and seeds that all of them have."""
    found: dict[str, Any] = {"pairs": pairs, "ways": {}}
    for way in ways:
        own = [row for row in rows if row["way"] == way and (row["layer"], row["unit"], row["seed"]) in pairs]
        kept: dict[str, Any] = {name: list(three(vl.interval(grid(own, way, name, pairs)))) for name in EACH}
        kept |= scorer.of_set(own)
        for name in (*COST, "fit_cpu_seconds", "fit_forward"):
            if all(name in row for row in own):
                kept[name] = float(np.mean([row[name] for row in own]))
        kept["silent"] = sum(row["silent"] for row in own)
        if all("rank" in row for row in own):
            first, five = (sum(row["rank"] <= place for row in own) for place in (1, 5))
            kept["recognised"] = f"{first} first, {five} of {len(own)} in five"
        found["ways"][way] = kept
    return found


def shown(kept: dict[str, Any]) -> list[str]:
    names = ("response (SD)", "percentile", "like photographs", "transfer (SD)", "contrast")
    classes = ["recognised"] if any("recognised" in one for one in kept["ways"].values()) else []
    rows: list[list[Any]] = [
        ["way", *names, "spectrum (dB)", "kernel", "diversity", "passes", "CPU s", "silent", *classes]
    ]
    for way, one in kept["ways"].items():
        fit = f" (+ {one['fit_cpu_seconds']:.0f} fit)" if "fit_cpu_seconds" in one else ""
        more = f" (+ {one['fit_forward']:,.0f} fit)" if "fit_forward" in one else ""
        row = [LABELS[way], *(bracketed(one[name]) for name in EACH), f"{one['spectrum']:.1f}"]
        row += ["—" if one[key] is None else f"{one[key]:.2f}" for key in ("kernel", "diversity")]
        row += [f"{one['forward']:,.0f}{more}", f"{one['cpu_seconds']:.1f}{fit}" if "cpu_seconds" in one else "—"]
        rows.append([*row, one["silent"], *([one["recognised"]] if classes else [])])
    return table_text(rows).split("\n")


def sample(kept: dict[str, Any], rows: list[Row], ways: list[str]) -> str:
    """How much a table rests on, and what is left out of it."""
    units = {(layer, unit) for layer, unit, _ in kept["pairs"]}
    seeds = {seed for *_, seed in kept["pairs"]}
    left = [row for row in rows if (row["layer"], row["unit"], row["seed"]) not in kept["pairs"] and row["way"] in WAYS]
    names = ", ".join(f"`{layer}` {unit}" for layer, unit in dict.fromkeys(pair[:2] for pair in kept["pairs"]))
    absent = [LABELS[way] for way in LABELS if way not in ways]
    return (
        f"{len(units)} units ({names}), {len(seeds)} seed{'s' * (len(seeds) > 1)}: what all ways have."
        + (f" {len(left)} pictures of other seeds or units are left out." if left else "")
        + (f" Not run: {'; '.join(absent)}." if absent else "")
    )


def checks(rows: list[Row], kept: dict[str, Any], pairs: list[Pair]) -> dict[str, bool | None]:
    """What was wanted of ours beside the others, and whether it is so; None where noise leaves it open."""
    ways, found = kept["ways"], {}
    for ours, rivals in RIVALS.items():
        there = [way for way in rivals if way in ways]
        if ours not in ways or not there:
            continue
        best = max(there, key=lambda way: ways[way]["response"][0])
        gap = difference(rows, ours, best, "response", pairs)
        text = f"{LABELS[ours]}, minus {LABELS[best]}: response {gap} SD (wanted: not below)."
        found[text] = not_below(gap)
        own, theirs = ways[ours]["spectrum"], ways[best]["spectrum"]
        text = f"{LABELS[ours]}: {own:.1f} dB from photographs' spectrum, {LABELS[best]} {theirs:.1f}"
        found[f"{text} (wanted: not above)."] = own <= theirs
        if ours in REACHING:
            mine = grid(rows, ours, "response", pairs)
            most = np.max([grid(rows, way, "response", pairs) for way in there], axis=0)
            share = float((mine >= most / 2).mean())
            text = f"{LABELS[ours]}: {share:.0%} of pictures reach half of the best tool's response (wanted: 100 %)."
            found[text] = share == 1
        contrast, beside = grid(rows, ours, "contrast", pairs), "photographs' contrast"
        if WAYS[ours].kind == "from a photograph":
            contrast, beside = contrast / grid(rows, INPUT, "contrast", pairs), "the contrast of its photograph"
        text = f"{LABELS[ours]}: no picture is saturated confetti; the most contrasty has {contrast.max():.1f} times "
        found[f"{text}{beside} (wanted: at most {CONFETTI:.0f})."] = bool(contrast.max() <= CONFETTI)
    if LANDSCAPE not in ways:
        return found
    ours, ascents = ways[LANDSCAPE], [way for way in ways if way in WAYS]
    fastest = min(ascents, key=lambda way: ways[way]["cpu_seconds"])
    ratio = ours["cpu_seconds"] / ways[fastest]["cpu_seconds"]
    saved = ways[fastest]["cpu_seconds"] - ours["cpu_seconds"]
    after = f"pays from {math.ceil(ours['fit_cpu_seconds'] / saved):,} pictures on" if saved > 0 else "never pays"
    text = (
        f"A picture of the landscape costs {ratio:.3f} of the fastest ascent's time ({LABELS[fastest]}; wanted: "
        f"{TENTH}); its fit {after}. Their responses differ: {ours['response'][0]:+.2f} and "
        f"{ways[fastest]['response'][0]:+.2f} SD."
    )
    found[text] = ratio <= TENTH
    best = max(ascents, key=lambda way: ways[way]["response"][0])
    gap = difference(rows, LANDSCAPE, best, "response", pairs)
    text = f"{LABELS[LANDSCAPE]}, minus the strongest ascent ({LABELS[best]}): response {gap} SD (wanted: not below)."
    found[text] = not_below(gap)
    reach = [way for way in (*ascents, LANDSCAPE) if ways[way]["response"][0] >= REACHED]
    if reach:
        nearest = max(reach, key=lambda way: ways[way]["near"][0])
        text = (
            f"Of the ways whose mean response is {REACHED:+.0f} SD or more, {LABELS[nearest]} is the most like "
            f"photographs ({ways[nearest]['near'][0]:.2f}; wanted: {LABELS[LANDSCAPE]}, "
            f"{ways[LANDSCAPE]['near'][0]:.2f} at {ours['response'][0]:+.2f} SD)."
        )
        found[text] = nearest == LANDSCAPE
    return found


def measures(kept: dict[str, Any], passes: int) -> list[dict[str, Any]]:
    """Responses and times of every way for the page of all benchmarks."""
    found = []
    units = len({(layer, unit) for layer, unit, _ in kept["pairs"]})
    text = f"{units} SqueezeNet units"
    for way, one in kept["ways"].items():
        named = f"{LABELS[way]}, {passes} passes" if way in WAYS else LABELS[way]
        found.append(measure(f"{named}: response", one["response"], "SD", text, spread=BOOTSTRAP))
        if "cpu_seconds" in one:
            found.append(Measure(f"{named}: CPU seconds a picture", one["cpu_seconds"], "s", text))
    return stated_measures(found)


def needed(found: dict[str, dict[str, list[str]]]) -> list[str]:
    """What was installed, and what else it took."""
    lines = []
    for name, peer in PEERS.items():
        kept = ", ".join(f"{package} {'/'.join(seen)}" for package, seen in found.get(name, {}).items())
        ran = f"; ran with {kept}" if kept else ""
        lines += [f"**{name}**: `pip install {' '.join(peer['requirements'])}`{ran}.", ""]
        lines += [*(f"- {text}" for text in peer["needed"]), ""]
    return lines


def figure(bench: Photographs, rows: list[Row], ways: list[str], pairs: list[Pair], passes: int) -> None:
    """All ways on all units at the first seed, in the table's order, none chosen; below a picture its response."""
    first = pairs[0][2]
    units = [(layer, unit) for layer, unit, seed in pairs if seed == first]
    layers = [layer for layer, _ in units]
    in_layer = [layers[:place].count(layer) for place, layer in enumerate(layers)]
    chosen = [units[place] for place in sorted(np.argsort(in_layer, kind="stable")[:FIGURE_UNITS])]
    held = {(row["way"], row["layer"], row["unit"]): row for row in rows if row["seed"] == first}
    lines = []
    for way in [*(way for way in ways if way in WAYS), *(way for way in (LANDSCAPE, INPUT, BEST) if way in ways)]:
        found = [held[way, layer, unit] for layer, unit in chosen]
        notes = [f"{row['response']:+.1f} SD" for row in found]
        lines.append((LABELS[way].replace(": ", ":\n"), torch.stack([row["pixels"] for row in found]), notes))
    heads = [f"{layer.replace('features.', 'fire ')}: {unit}" for layer, unit in chosen]
    title = f"Units of {bench.subject.label}; ascents at {passes} passes a picture"
    save_small(sheet(lines, heads=heads, title=title), bench.out / "peers.webp")
