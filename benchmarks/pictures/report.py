"""The page and the aims of ``benchmarks.pictures``, from the figures of its parts."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common.edit_methods import SIGN
from benchmarks.common.findings import BOOTSTRAP, Measure, measure
from benchmarks.common.script import provenance_line, publish
from benchmarks.common.tables import above, fill, not_below, signed, table_text, verdict
from benchmarks.common.tables import percent as common_percent
from vislens_interp.backends.closed_loop import CHANGE, CONTRAST_SHARE

NETWORKS = {"lite2": "EfficientNet-Lite2", "squeezenet": "SqueezeNet"}
SHOWN = ("edit", "edit, alpha 0.3", "ridge_direction", "shuffled")
PROTOTYPES = ("prototypes, edited", "other prototypes, edited", "default", "default, shuffled")
ROOM, PROTOTYPES_ROOM = "room to fall, SD", "prototypes' room to fall, SD"
CONTROL = {"edit": "shuffled", "default": "default, shuffled"}
READERS = {
    "edit": "edits",
    "natural": "top natural images",
    "prototypes": "prototypes",
    "prototypes, edited": "edits of prototypes",
}
WANTED_V4 = 0.64
WANTED_R = {"early": 0.95, "middle": 0.90, "deep": 0.68}


percent = partial(common_percent, digits=1)


def groups(edits: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Network and depth, with their figures."""
    return ((key, value) for key, value in edits.items() if isinstance(value, dict) and "units" in value)


def checks(parts: dict[str, Any]) -> dict[str, bool | None]:
    """What was wanted, in a sentence with the figure, and whether it was reached."""
    found: dict[str, bool | None] = {}

    def named(text: str, share: list[float], wanted: float) -> None:
        found[f"{text} names {percent(share)} (wanted: {100 * wanted:.0f} %)."] = share[0] >= wanted

    if "named" in parts:
        kept = parts["named"]["all maps"]
        named("Decoded from all maps, 224 px: Lite2", kept["lite2"], 0.7)
        named("Decoded from all maps, 224 px: SqueezeNet", kept["squeezenet"], 0.4)
        named("Decoded from all maps, 64 px: Lite2", parts["named"]["64 px"]["all maps"], 0.45)
    if "alone" in parts:
        named("From the embedding alone, 64 px: Lite2", parts["alone"]["named"], 0.08)
    if "edits" in parts:
        found |= _edit_checks(parts["edits"])
    if "embedding" in parts:
        seen = {depth: parts["embedding"][depth][3] for depth in WANTED_R}
        said, wanted = (" / ".join(f"{value:.2f}" for value in one.values()) for one in (seen, WANTED_R))
        text = f"Read-outs of SqueezeNet's units at 128 px: median R {said} (wanted: {wanted})."
        found[text] = all(seen[depth] >= least for depth, least in WANTED_R.items())
    if "v4" in parts:
        mean, low, high, median = parts["v4"]["with a grid"]
        text = f"Read-outs of {parts['v4']['neurons']} V4 neurons (201025) with grid=3: median R {median:.3f}, mean "
        text += f"{mean:.3f} [{low:.3f}, {high:.3f}] (wanted: {WANTED_V4})."
        found[text] = median >= WANTED_V4
    for kind, one in parts.get("reader", {}).items():
        text = f"A reader of {READERS[kind]} tells {percent(one['right'])} of pairs ({one['units']} units"
        if gap := one.get("minus natural"):
            text += f"; minus top natural images {percent(gap)}, wanted: not below 0"
        found[f"{text})."] = not_below(gap) if gap and one["right"][1] > 0.5 else one["right"][1] > 0.5
    return found


def _told_checks(told: dict[str, Any]) -> dict[str, bool | None]:
    """Whether pictures tell which photographs drive a unit, as well as photographs do."""
    found: dict[str, bool | None] = {}
    shown = {**READERS, "natural, edited": "edits of the top natural images themselves"}
    for label, what in ((label, what) for label, what in shown.items() if label != "natural"):
        gap = told[f"{label} minus natural"]
        text = f"Pairs of photographs told by {what} {percent(told[label])}, by top natural images "
        found[f"{text}{100 * told['natural'][0]:.1f} %, difference {percent(gap)} (wanted: above 0)."] = above(gap)
    return found


def _small(edits: dict[str, Any], label: str, room: str) -> list[str]:
    """Groups and directions in which a method moves units by less than 1 SD, or no further than its control."""
    low = []
    for group, row in groups(edits):
        for sense in SIGN:
            own = row[f"{label} {sense}"][0]
            if own < 1.0 or own <= row[f"{CONTROL[label]} {sense}"][0]:
                left = f" of {row[room]:.1f} possible" if sense == "decrease" else ""
                low.append(f"{group}, {sense} {own:+.2f}{left}")
    return low


def _below(low: list[str]) -> str:
    return f"below: {'; '.join(low)}" if low else "none is below"


def _edit_checks(edits: dict[str, Any]) -> dict[str, bool | None]:
    low, shown = _small(edits, "edit", ROOM), _small(edits, "default", PROTOTYPES_ROOM)
    good, gap, kept = (edits[key] for key in ("evidence good", "edit minus ridge_direction, SD", "alpha 0, SD"))
    ridge = f"Edits minus BrainACTIV's ridge in the same loop and limit: {signed(gap)} SD (wanted: above 0)."
    found = {} if "predictivity" not in edits else _told_checks(edits["predictivity"])
    found |= {
        f"Edits of any photographs move all groups 1.0 SD both ways, above shuffled ({_below(low)}).": not low,
        f"Edits of prototypes, which visualize() shows, do so ({_below(shown)}).": not shown,
        f"Evidence is good for {percent(good)} of units (wanted: 95 %).": good[0] >= 0.95,
        ridge: above(gap),
        f"α = 0 moves a unit by {kept[0]:.3f} SD (wanted: at most 0.2).": kept[0] <= 0.2,
    }
    for network, name in NETWORKS.items():
        if distance := edits.get(f"{network}: kernel distance"):
            unedited = distance["unedited"]
            worst, theirs = (max(distance[f"{one} {sense}"] for sense in SIGN) for one in ("edit", "ridge_direction"))
            natural = max(distance[f"natural {sense}"] for sense in SIGN)
            text = (
                f"Realism of {name}'s edits: kernel distance {worst:.2f}, ridge {theirs:.2f}, unedited {unedited:.2f}"
            )
            text += f", photographs answered alike {natural:.2f} (wanted: 1.3 × unedited)."
            found[text] = worst <= 1.3 * max(unedited, 0.0)
    return found


def measures(parts: dict[str, Any]) -> list[Measure]:
    """Figures for the table of all results."""
    found = []
    for group, row in groups(parts.get("edits", {})):
        what, sample = f"embedded, {group}: Δr against α = 0", f"{row['units']} units"
        found += [measure(what, row[f"edit {sense}"], "SD", sample, sense, BOOTSTRAP) for sense in SIGN]
    if "alone" in parts:
        what = "embedded, from the embedding alone, 64 px: named by Lite2"
        sample = f"{parts['alone']['images']} test images, 200 classes"
        spread = "95 % bootstrap interval over images"
        found.append(measure(what, parts["alone"]["named"], "share", sample, spread=spread))
    for kind, one in parts.get("reader", {}).items():
        what = f"pairs told by a reader of {READERS[kind]} (chance 50 %)"
        found.append(measure(what, one["right"], "share", f"{one['units']} units, one reader", spread=BOOTSTRAP))
    return found


def edits_text(edits: dict[str, Any]) -> str:
    titles = ("edit", "edit, α = 0.3", "BrainACTIV's ridge", "shuffled")
    rows = [["group", "direction", *titles, "room to fall"]]
    preferred = [["group", "direction", "of the own side", "of the other side", "of both", "shuffled", "room to fall"]]
    for group, row in groups(edits):
        for sense in SIGN:
            first = [f"{group} ({row['units']})", sense]
            for listed, methods, room in ((rows, SHOWN, ROOM), (preferred, PROTOTYPES, PROTOTYPES_ROOM)):
                left = f"{row[room]:.1f}" if sense == "decrease" else ""
                listed.append([*first, *(signed(row[f"{method} {sense}"]) for method in methods), left])
    columns = [f"{method} {sense}" for method in ("natural", *SHOWN[:3]) for sense in SIGN]
    far = [["target", "unedited", *(name.replace("_direction", "") for name in columns)]]
    for network, name in NETWORKS.items():
        if distance := edits.get(f"{network}: kernel distance"):
            far.append([name, *(f"{distance[key]:.3f}" for key in ("unedited", *columns))])
    changed = ([row[f"{method} {s}, rms"] for _, row in groups(edits) for s in SIGN] for method in SHOWN[:3])
    told = [["pictures", "pairs told", "edit minus these"]]
    for label, value in edits["predictivity"].items():
        if " minus " not in label:
            gap = edits["predictivity"].get(f"edit minus {label}")
            told.append([label.replace("_direction", ""), percent(value), percent(gap) if gap else ""])
    rms, little, ridge = (f"{sum(values) / len(values):.3f}" for values in changed)
    return fill(
        __file__,
        "edits",
        units=edits["units"],
        photographs=edits["photographs a unit"],
        limit=CHANGE,
        contrast=CONTRAST_SHARE,
        rms=rms,
        little=little,
        ridge=ridge,
        changes=table_text(rows),
        prototypes=table_text(preferred),
        distances=table_text(far),
        told=table_text(told),
    )


def _listed(value: dict[str, Any], before: str = "") -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _listed(item, f"{before}{key}, ")
        else:
            said = ", ".join(f"{number:.3f}" for number in item) if isinstance(item, list) else item
            if key != "right, by unit":
                yield f"- {before}{key}: {said}"


def write(done: dict[str, Any], folder: Path) -> None:
    """``pictures.json`` and ``pictures.md`` of all parts that have been run: what fails first, then every figure."""
    parts = {name: part["measures"] for name, part in done.items()}
    said = checks(parts)
    listed: list[str] = []
    for name in ("named", "alone", "embedding", "v4", "reader"):
        if name in parts:
            listed += [f"## {name.capitalize()}", "", *_listed(parts[name]), ""]
    text = fill(
        __file__,
        "page",
        verdict=verdict(said),
        edits=edits_text(parts["edits"]) if "edits" in parts else "",
        parts="\n".join([*listed, ""]),
        sources=[f"- {provenance_line(part['provenance'])}" for part in done.values()],
    )
    numbers = {"parts": done, "checks": said, "measures": [asdict(one) for one in measures(parts)]}
    publish(folder / "pictures", text, numbers)
