"""The page and the aims of ``benchmarks.pictures``, from the figures of its parts."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common.findings import BOOTSTRAP, Measure
from benchmarks.common.provenance import provenance_line
from vislens_interp.files import write_text

SENSES = ("increase", "decrease")
SIGNED = (
    "Signed changes of the response against the unedited picture, in SDs over the reference photographs; means over "
    "units with 95 % bootstrap intervals. Lenses are fitted on the photographs that ship. Every method changes "
    "pixels by at most 0.1 (root mean square), at α = 0.3 by 0.03."
)
DISTANCE = (
    "Kernel distance (cubic kernel, standardised features) to photographs that nobody edited, seen by the network "
    "that is not the target. Unedited pictures are photographs themselves, so that their distance is noise about 0, "
    "and a ratio to it says little."
)
NETWORKS = {"lite2": "EfficientNet-Lite2", "squeezenet": "SqueezeNet"}


def shown(interval: list[float], *, share: bool = False) -> str:
    """A mean with its interval."""
    if share:
        return f"{100 * interval[0]:.1f} % [{100 * interval[1]:.1f}, {100 * interval[2]:.1f}]"
    return f"{interval[0]:+.2f} [{interval[1]:+.2f}, {interval[2]:+.2f}]"


def groups(edits: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Network and depth, with their figures."""
    for key, value in edits.items():
        if isinstance(value, dict) and "units" in value:
            yield key, value


def checks(parts: dict[str, Any]) -> dict[str, bool | None]:
    """What was wanted, in a sentence with the figure, and whether it was reached."""
    found: dict[str, bool | None] = {}
    if "named" in parts:
        named = parts["named"]
        kept, small = named["all maps"], named["64 px"]["all maps"]
        text = f"Decoded from all maps, 224 px: Lite2 names {shown(kept['lite2'], share=True)} (wanted: 70 %)."
        found[text] = kept["lite2"][0] >= 0.7
        text = (
            f"Decoded from all maps, 224 px: SqueezeNet names {shown(kept['squeezenet'], share=True)} (wanted: 40 %)."
        )
        found[text] = kept["squeezenet"][0] >= 0.4
        found[f"Decoded from all maps, 64 px: Lite2 names {shown(small, share=True)} (wanted: 45 %)."] = (
            small[0] >= 0.45
        )
    if "alone" in parts:
        named = parts["alone"]["named"]
        text = f"From the embedding alone, 64 px: Lite2 names {shown(named, share=True)} (wanted: 8 %)."
        found[text] = named[0] >= 0.08
    if "edits" in parts:
        found |= _edit_checks(parts["edits"])
    if "embedding" in parts:
        wanted = {"early": 0.95, "middle": 0.90, "deep": 0.68}
        seen = {depth: parts["embedding"][depth][3] for depth in wanted}
        text = f"Read-outs of SqueezeNet's units at 128 px: median R {_slashed(seen)} (wanted: {_slashed(wanted)})."
        found[text] = all(seen[depth] >= least for depth, least in wanted.items())
    return found


def _slashed(values: dict[str, float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values.values())


def _edit_checks(edits: dict[str, Any]) -> dict[str, bool | None]:
    found: dict[str, bool | None] = {}
    low = []
    for group, row in groups(edits):
        for sense in SENSES:
            own = row[f"edit {sense}"][0]
            if own < 1.0 or own <= row[f"shuffled {sense}"][0]:
                room = f" of {row['room to fall, SD']:.1f} possible" if sense == "decrease" else ""
                low.append(f"{group}, {sense} {own:+.2f}{room}")
    said = f"below: {'; '.join(low)}" if low else "none is below"
    found[f"Edits move units by +1.0 SD in every group and direction, above shuffled ({said})."] = not low
    good = edits["evidence good"]
    found[f"Evidence is good for {shown(good, share=True)} of units (wanted: 95 %)."] = good[0] >= 0.95
    gap = edits["edit minus ridge_direction, SD"]
    text = f"Edits minus BrainACTIV's ridge in the same loop and limit: {shown(gap)} SD (wanted: above 0)."
    found[text] = gap[1] > 0
    kept = edits["alpha 0, SD"]
    found[f"α = 0 moves a unit by {kept[0]:.3f} SD (wanted: at most 0.2)."] = kept[0] <= 0.2
    for network, name in NETWORKS.items():
        if f"{network}: kernel distance" not in edits:
            continue
        distance = edits[f"{network}: kernel distance"]
        worst, ridge = (max(distance[f"{label} {sense}"] for sense in SENSES) for label in ("edit", "ridge_direction"))
        text = (
            f"Realism of {name}'s edits: kernel distance {worst:.2f}, ridge {ridge:.2f}, unedited "
            f"{distance['unedited']:.2f} (wanted: 1.3 times unedited)."
        )
        found[text] = worst <= 1.3 * max(distance["unedited"], 0.0)
    return found


def measures(parts: dict[str, Any]) -> list[Measure]:
    """Figures for the table of all results."""
    found = []
    if "edits" in parts:
        for group, row in groups(parts["edits"]):
            for sense in SENSES:
                value, low, high = row[f"edit {sense}"]
                what = f"embedded backend, {group}: Δr against α = 0"
                found.append(Measure(what, value, "SD", f"{row['units']} units", low, high, BOOTSTRAP, sense))
    if "alone" in parts:
        value, low, high = parts["alone"]["named"]
        what = "embedded backend, pictures from the embedding alone at 64 px, named by EfficientNet-Lite2"
        sample = f"{parts['alone']['images']} test images, 200 classes"
        found.append(Measure(what, value, "share", sample, low, high, "95 % bootstrap interval over images"))
    return found


def page(parts: dict[str, Any], sources: list[dict[str, Any]]) -> str:
    """The page: what fails first, then every figure."""
    said = checks(parts)
    lines = ["# Pictures of the embedded backend", ""]
    for title, met in (("What fails its aim", False), ("What holds", True)):
        lines += [f"**{title}.**", "", *[f"- {text}" for text, value in said.items() if value is met], ""]
    if "edits" in parts:
        edits = parts["edits"]
        lines += [
            f"## Edits: {edits['units']} test units, {edits['photographs a unit']} photographs each",
            "",
            SIGNED,
            "",
            "| group | direction | edit | edit, α = 0.3 | BrainACTIV's ridge | shuffled | room to fall |",
            "|---|---|---|---|---|---|---|",
        ]
        for group, row in groups(edits):
            for sense in SENSES:
                cells = [shown(row[f"{m} {sense}"]) for m in ("edit", "edit, alpha 0.3", "ridge_direction", "shuffled")]
                room = f"{row['room to fall, SD']:.1f}" if sense == "decrease" else ""
                lines.append(f"| {group} ({row['units']}) | {sense} | {' | '.join(cells)} | {room} |")
        lines += [
            "",
            DISTANCE,
            "",
            "| target | unedited | "
            + " | ".join(f"{m} {s}" for m in ("edit", "edit, alpha 0.3", "ridge") for s in SENSES)
            + " |",
            "|---" * 8 + "|",
        ]
        for network, name in NETWORKS.items():
            distance = edits.get(f"{network}: kernel distance")
            if distance is not None:
                keys = [
                    "unedited",
                    *(f"{m} {s}" for m in ("edit", "edit, alpha 0.3", "ridge_direction") for s in SENSES),
                ]
                lines.append(f"| {name} | " + " | ".join(f"{distance[key]:.3f}" for key in keys) + " |")
        lines.append("")
    for name in ("named", "alone", "embedding"):
        if name in parts:
            lines += [f"## {name.capitalize()}", "", *_listed(parts[name]), ""]
    lines += [f"- {provenance_line(source)}" for source in sources]
    return "\n".join(lines) + "\n"


def _listed(value: dict[str, Any], before: str = "") -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _listed(item, f"{before}{key}, ")
        elif isinstance(item, list):
            yield f"- {before}{key}: {', '.join(f'{number:.3f}' for number in item)}"
        else:
            yield f"- {before}{key}: {item}"


def write(done: dict[str, Any], folder: Path) -> None:
    """``pictures.json`` and ``pictures.md`` of all parts that have been run."""
    parts = {name: part["measures"] for name, part in done.items()}
    sources = [part["provenance"] for part in done.values()]
    numbers = {
        "parts": done,
        "checks": checks(parts),
        "measures": [asdict(one) for one in measures(parts)],
    }
    write_text(folder / "pictures.json", json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "pictures.md", page(parts, sources))
