"""Forty units, drawn and not chosen: prototypes of each, what an edit does, evidence and words; docs/gallery.md.

    python -m benchmarks.pictures.gallery --data "$VISLENS_DATA" [--only GROUP ...]

The code that a group and a unit show on the page is the code that is run here. Of each layer the first units of a
random permutation are taken; one that answers every photograph alike is passed over, and said. Units that are there
already stay; ``docs/gallery/units.json`` holds what is known of each.
"""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import package as vl
from benchmarks.common.figures import save_small, sheet
from benchmarks.common.judges import data_folder
from benchmarks.common.script import ROOT, parser, provenance, provenance_line, read, shuffled
from benchmarks.common.tables import fill
from benchmarks.pictures.figure import free_photographs, prototypes
from benchmarks.pictures.run import embedded_reference

FOLDER, PAGE = ROOT / "docs" / "gallery", ROOT / "docs" / "gallery.md"
SHOWN, SEED, BYTES = 2, 2026, 45_000
HEADS = ("suppressed", "drives it", "preferred", "suppressed", "does not", "preferred")


GROUPS: dict[str, dict[str, Any]] = read(Path(__file__).with_suffix(".toml"))


def space(data: Path, folder: Path) -> dict[str, Any]:
    """What the code of the page may name."""
    names = "FeatureLens zoo get_backend train_sparse_features v4_encoder simulate_algonauts load_algonauts"
    known = {name: getattr(vl, name) for name in [*names.split(), "InSilicoEncoder", "Backbone"]}
    return known | {"data": data, "folder": folder}


def drawn(lens: vl.FeatureLens, free: list[bool], path: Path) -> dict[str, Any]:
    """Write a fitted lens's picture; what is known of the unit, as JSON values."""
    reference = lens.reference_set
    assert reference.responses is not None
    preferred, suppressed = prototypes(reference.responses[:, 0], reference, free, SHOWN)
    with warnings.catch_warnings(action="ignore"):  # the fit learned from some: so it does of what visualize() takes
        result = lens.visualize(reference.images[torch.cat([preferred, suppressed]).tolist()])
    rows = []
    for place in range(SHOWN):
        shown = [(key, row) for row in (place, SHOWN + place) for key in ("decrease", "inputs", "increase")]
        notes = [f"{result.standardised[key][row]:+.1f} SD" for key, row in shown]
        rows.append(("", torch.stack([result.images[key][row] for key, row in shown]), notes))
    save_small(sheet(rows, heads=HEADS), path, BYTES)
    (evidence,) = lens.evidence_.values()
    words = {way: [one.word for one in said.rising[:4]] for way, said in result.words.items()}
    change = {way: round(result.response_change[way].mean().item(), 2) for way in ("increase", "decrease")}
    return {
        "weak": evidence.weak,
        "correlation": round(evidence.correlation, 2),
        "p": round(evidence.p_value, 3),
        "change": change,
        "words": words,
        "settings": result.settings,
    }


def draw(name: str, data: Path, free: list[bool], source: dict[str, Any]) -> None:
    """All units of a group that are not there yet."""
    group, file = GROUPS[name], FOLDER / f"{name}.json"
    found: dict[str, Any] = read(file) if file.is_file() else {"units": {}, "silent": [], "source": source}
    with tempfile.TemporaryDirectory() as folder:
        known = space(data, Path(folder))
        if len(found["units"]) < group["count"]:
            exec(group["setup"], known)
        for unit in shuffled(group["width"], SEED).tolist():
            if len(found["units"]) >= group["count"]:
                break
            if str(unit) in found["units"] or unit in found["silent"]:
                continue
            lens = eval(group["code"].format(unit=unit), known)
            try:
                lens.fit()
            except ValueError as error:  # it answers every photograph alike
                if "never varies" not in str(error):
                    raise
                found["silent"].append(unit)
                continue
            found["units"][str(unit)] = drawn(lens, free, FOLDER / f"{name}-{unit}.webp")
            vl.write_text(file, json.dumps(found, indent=1))
            print(name, unit, {key: value for key, value in found["units"][str(unit)].items() if key != "settings"})


def unit_text(name: str, unit: str, one: dict[str, Any]) -> list[str]:
    change = one["change"]
    said = f"{'**Weak evidence**' if one['weak'] else 'Good evidence'} (held-out r {one['correlation']:.2f}, p "
    said += f"{one['p']:.3f}); {change['increase']:+.1f} SD preferred, {change['decrease']:+.1f} SD suppressed. "
    words = one["words"].get("increase")
    said += f"Towards: {', '.join(words)}." if words else "No words."
    code = GROUPS[name]["code"].format(unit=unit)
    return [f"`{code}`", "", f"![Unit {unit}](gallery/{name}-{unit}.webp)", "", said, ""]


def page(found: dict[str, dict[str, Any]]) -> str:
    """``docs/gallery.md``."""
    lines, weak, total = [], 0, 0
    for name, one in found.items():
        group = GROUPS[name]
        lines += [f"## {group['title']}", "", "```{code-block} python", group["setup"], "```", ""]
        lines += [f"[Settings](gallery/{name}.json) of each lens and result.", ""]
        if one["silent"]:
            lines += [f"Passed over, for they answer every photograph alike: {', '.join(map(str, one['silent']))}.", ""]
        for unit, seen in one["units"].items():
            lines += unit_text(name, unit, seen)
            weak, total = weak + seen["weak"], total + 1
    sources = {provenance_line(one["source"]) for one in found.values()}
    counted = {"total": total, "weak": weak, "seed": SEED}
    return fill(__file__, "gallery", **counted, body="\n".join(lines), sources="\n\n".join(sorted(sources)))


def main() -> None:
    command = parser(__doc__, "--data")
    command.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    args = command.parse_args()
    source = provenance(seed=SEED)
    free = free_photographs(embedded_reference())
    for name in args.only:
        draw(name, data_folder(args.data), free, source)
    there = {name: read(FOLDER / f"{name}.json") for name in GROUPS if (FOLDER / f"{name}.json").is_file()}
    vl.write_text(PAGE, page(there))


if __name__ == "__main__":
    main()
