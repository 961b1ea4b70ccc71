"""Forty units, drawn and not chosen: what drives each, what an edit does, evidence and words; docs/gallery.md.

    python -m benchmarks.pictures.gallery --data "$VISLENS_DATA" [--only GROUP ...]

The code that a group and a unit show on the page is the code that is run here. Of each layer the first units of a
random permutation are taken; one that answers every photograph alike is passed over, and said. Units that are there
already stay; ``docs/gallery/units.json`` holds what is known of each.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import package as vl
from benchmarks.common.cells import read
from benchmarks.common.command import parser
from benchmarks.common.figures import save_small, sheet
from benchmarks.common.judges import data_folder
from benchmarks.common.provenance import ROOT, provenance, provenance_line
from benchmarks.common.tables import fill
from benchmarks.pictures.figure import best_crops, free_photographs, whole_photographs

FOLDER, PAGE = ROOT / "docs" / "gallery", ROOT / "docs" / "gallery.md"
SHOWN, SEED, BYTES = 2, 2026, 45_000
HEADS = ("drives it most", "suppressed", "photograph", "preferred")
LITE2, SQUEEZENET, VIT = (
    f'model = zoo.load("{name}")' for name in ("efficientnet_lite2", "squeezenet1_0", "vit_tiny64")
)
SPARSE = f"""{LITE2}
photographs = get_backend("embedded").reference_images()
features = train_sparse_features(model, "blocks.4", photographs, latents=1024, k=16, steps=1000)
latents = features.target(model, "blocks.4", pool="max")"""
V4 = """session = data / "macaque_v4" / "210225" / "compact_models.safetensors"
backend = get_backend("embedded", grid=3)  # a neuron looks at one place"""
REGIONS = """pictures = get_backend("embedded").reference_images()[::2]
truth = simulate_algonauts(folder, pictures, rois=["FFA-1", "PPA"], snr=1.0, repetitions=3)
recorded = load_algonauts(folder, subject=1, size=224)
encoder = InSilicoEncoder(Backbone(zoo.load("squeezenet1_0"), grid=4)).fit(recorded)"""


@dataclass(frozen=True)
class Group:
    """Units of one kind: a title, code that makes what they are read from, and code of a lens on one of them."""

    title: str
    setup: str
    code: str
    width: int
    count: int

    def units(self) -> list[int]:
        """All units in a fixed random order."""
        return torch.randperm(self.width, generator=torch.Generator().manual_seed(SEED)).tolist()


def layer(title: str, setup: str, name: str, width: int, count: int, reading: str = "") -> Group:
    return Group(title, setup, f'FeatureLens(model, "{name}", unit={{unit}}{reading})', width, count)


GROUPS = {
    "lite2-early": layer("EfficientNet-Lite2, early", LITE2, "blocks.1", 24, 4),
    "lite2-middle": layer("EfficientNet-Lite2, middle", LITE2, "blocks.3", 88, 4),
    "lite2-deep": layer("EfficientNet-Lite2, deep", LITE2, "blocks.5", 208, 4),
    "lite2-class": layer("EfficientNet-Lite2, class scores", LITE2, "classifier", 1000, 4),
    "squeezenet-early": layer("SqueezeNet, early", SQUEEZENET, "features.4", 128, 4),
    "squeezenet-middle": layer("SqueezeNet, middle", SQUEEZENET, "features.7", 256, 4),
    "squeezenet-deep": layer("SqueezeNet, deep", SQUEEZENET, "features.12", 512, 4),
    "vit-patches": layer("A small ViT, mean of the patches", VIT, "blocks.5", 192, 2, ', pool="patch_mean"'),
    "vit-class-token": layer("A small ViT, class token", VIT, "blocks.9", 192, 2, ', pool="cls"'),
    "sparse": Group(
        "Latents of a sparse autoencoder on EfficientNet-Lite2's blocks.4",
        SPARSE,
        "FeatureLens(latents, unit=latents.names[{unit}])",
        1024,
        4,
    ),
    "v4": Group(
        "Neurons of macaque V4, as their published networks predict them",
        V4,
        "FeatureLens(v4_encoder(session, [{unit}]), backend=backend)",
        55,
        3,
    ),
    "regions": Group("Simulated fMRI regions", REGIONS, "FeatureLens(encoder, unit=truth.targets[{unit}])", 2, 1),
}


def space(data: Path, folder: Path) -> dict[str, Any]:
    """What the code of the page may name."""
    from vislens_interp.brain import Backbone, InSilicoEncoder, load_algonauts, simulate_algonauts
    from vislens_interp.brain.v4 import v4_encoder

    known = {"FeatureLens": vl.FeatureLens, "zoo": vl.zoo, "get_backend": vl.get_backend, "data": data}
    known |= {
        "train_sparse_features": vl.train_sparse_features,
        "v4_encoder": v4_encoder,
        "simulate_algonauts": simulate_algonauts,
        "load_algonauts": load_algonauts,
    }
    return known | {"InSilicoEncoder": InSilicoEncoder, "Backbone": Backbone, "folder": folder}


def drawn(lens: Any, free: list[bool], path: Path) -> dict[str, Any]:
    """Write a fitted lens's picture; what is known of the unit, as JSON values."""
    reference = lens.reference_set
    column = reference.responses[:, 0]
    result = lens.visualize(reference.images[whole_photographs(reference.held_out_rows, reference, free, SHOWN)])
    top = best_crops(column, reference, free, SHOWN)
    best = reference.images[top]
    above = lens.landscape_.scaler.standardise(column[top][:, None])[:, 0].tolist()
    rows = []
    for place in range(SHOWN):
        shown = [result.images[key][place] for key in ("decrease", "inputs", "increase")]
        values = [result.standardised[key][place].item() for key in ("decrease", "inputs", "increase")]
        rows.append(("", torch.stack([best[place], *shown]), [f"{value:+.1f} SD" for value in (above[place], *values)]))
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


def draw(name: str, group: Group, data: Path, free: list[bool], source: dict[str, Any]) -> dict[str, Any]:
    """All units of a group that are not there yet."""
    file = FOLDER / f"{name}.json"
    found: dict[str, Any] = read(file) if file.is_file() else {"units": {}, "silent": [], "source": source}
    with tempfile.TemporaryDirectory() as folder:
        known = space(data, Path(folder))
        if len(found["units"]) < group.count:
            exec(group.setup, known)
        for unit in group.units():
            if len(found["units"]) >= group.count:
                break
            if str(unit) in found["units"] or unit in found["silent"]:
                continue
            lens = eval(group.code.format(unit=unit), known)
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
    return found


def unit_text(name: str, group: Group, unit: str, one: dict[str, Any]) -> list[str]:
    change = one["change"]
    said = f"{'**Weak evidence**' if one['weak'] else 'Good evidence'} (held-out r {one['correlation']:.2f}, p "
    said += f"{one['p']:.3f}); {change['increase']:+.1f} SD preferred, {change['decrease']:+.1f} SD suppressed. "
    words = one["words"].get("increase")
    said += f"Towards: {', '.join(words)}." if words else "No words."
    code = group.code.format(unit=unit)
    return [f"`{code}`", "", f"![Unit {unit}](gallery/{name}-{unit}.webp)", "", said, ""]


def page(found: dict[str, dict[str, Any]]) -> str:
    """``docs/gallery.md``."""
    lines, weak, total = [], 0, 0
    for name, one in found.items():
        group = GROUPS[name]
        lines += [f"## {group.title}", "", "```{code-block} python", group.setup, "```", ""]
        lines += [f"[Settings](gallery/{name}.json) of each lens and result.", ""]
        if one["silent"]:
            lines += [f"Passed over, for they answer every photograph alike: {', '.join(map(str, one['silent']))}.", ""]
        for unit, seen in one["units"].items():
            lines += unit_text(name, group, unit, seen)
            weak, total = weak + seen["weak"], total + 1
    sources = {provenance_line(one["source"]) for one in found.values()}
    counted = {"total": total, "weak": weak, "seed": SEED}
    return fill(__file__, "gallery", **counted, body="\n".join(lines), sources="\n\n".join(sorted(sources)))


def main() -> None:
    command = parser(__doc__, "--data")
    command.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    args = command.parse_args()
    source = provenance(seed=SEED)
    reference: Any = vl.ReferenceSet.of_backend(vl.get_backend("embedded"))
    free = free_photographs(reference)
    for name in args.only:
        draw(name, GROUPS[name], data_folder(args.data), free, source)
    there = {name: read(FOLDER / f"{name}.json") for name in GROUPS if (FOLDER / f"{name}.json").is_file()}
    vl.write_text(PAGE, page(there))


if __name__ == "__main__":
    main()
