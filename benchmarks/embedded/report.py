"""The embedded backend in tables, what fails first."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.edit_methods import BRAINACTIV, JOB_ANGLE, LANDSCAPE, NATURAL, OURS, RIVALS, SHUFFLED, SIGN, UNIT
from benchmarks.common.edit_tables import Edits, edit_lines, table
from benchmarks.common.provenance import provenance_line
from vislens_interp.files import write_text
from vislens_interp.landscape.evidence import WEAK_CORRELATION
from vislens_interp.metrics.bootstrap import Interval, interval, paired_difference


def difference_lines(edits: Edits, angle: float, what: dict[str, str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Ours minus every rival, paired, with intervals."""
    rows, found = [["ours as shipped minus", *what.values()]], {}
    for rival in (*RIVALS, LANDSCAPE, SHUFFLED):
        if rival not in edits.methods or OURS not in edits.methods:
            continue
        differences = {name: edits.against(OURS, rival, angle, name) for name in what}
        found[rival] = {name: {"mean": one.mean, "low": one.low, "high": one.high} for name, one in differences.items()}
        rows.append([rival, *(f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in differences.values())])
    return table(rows), found


def edit_checks(part: str, edits: Edits, angle: float, found: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """What the issue asks of edits, as sentences, and whether it is so."""
    checks: dict[str, bool] = {}
    about = f"{part}, {angle:.0f}°, {len(edits.units)} units"
    for rival, what in found.items():
        one = what["change"]
        said = f"{one['mean']:+.3f} SD [{one['low']:+.3f}, {one['high']:+.3f}]"
        if rival == BRAINACTIV:
            checks[f"{about}: Δr of ours minus BrainACTIV's ridge {said} (wanted: above 0)."] = one["low"] > 0
        elif rival in RIVALS:
            text = f"{about}: Δr of ours minus {rival} {said} (wanted: not below by more than the interval)."
            checks[text] = one["high"] >= 0
    evident = edits.evident(OURS, angle)
    share = edits.right(OURS, angle, SHUFFLED, evident)
    text = f"{about}: {share:.0%} of directions of the {evident.sum()} units with evidence (held-out correlation of at"
    text += f" least {WEAK_CORRELATION}) go the right way and above the shuffled control"
    checks[f"{text} (wanted: 95 %)."] = share >= 0.95
    return checks


def retrieval_report(records: list[dict[str, Any]]) -> tuple[list[str], dict[str, Any], dict[str, bool]]:
    records = [
        {**record, "unit": (record["network"], record["layer"], record["unit"]), "seed": 0} for record in records
    ]
    edits = Edits(records)
    networks = sorted({unit[0] for unit in edits.units})
    images = len(records[0]["change"])
    lines = [
        "## Edits judged by natural images",
        "",
        f"{len(edits.units)} units of {', '.join(networks)}, {images} held-out images each. An edited embedding has",
        "the mean response of its five nearest held-out images (the edited one never among them); Δr is against those",
        'of the untouched embedding, in SDs of the unit. "natural" is the mean cosine to those five.',
        "",
    ]
    numbers: dict[str, Any] = {"units": len(edits.units), "images": images, "angles": {}}
    checks: dict[str, bool] = {}
    for angle in edits.angles:
        what, found = difference_lines(edits, angle, {"change": "Δr", "natural": "natural"})
        lines += [f"### {angle:.0f}°", "", *edit_lines(edits, angle, {"natural": "natural"}), *what]
        numbers["angles"][f"{angle:.0f}"] = {
            "methods": {
                method: {
                    "change": {way: edits.values(method, way, angle).mean() for way in SIGN},
                    "natural": edits.both(method, angle, "natural").mean(),
                }
                for method in edits.methods
            },
            "differences": found,
        }
        if angle == JOB_ANGLE:
            checks = edit_checks("Retrieval", edits, angle, found)
    return lines, numbers, checks


def job_report(cells: list[dict[str, Any]]) -> tuple[list[str], dict[str, Any], dict[str, bool]]:
    records, natural = [], {}
    for cell in cells:
        unit = (cell["network"], cell["layer"], cell["unit"])
        for method in cell["methods"]:
            change = method["changes"][UNIT]
            record = {**method, "change": change, "unit": unit, "seed": cell["seed"], "angle": cell["angle"]}
            if record.get("kernel") is not None:  # shares, for networks differ in the scale of their features
                record["kernel"] /= abs(cell["zero_kernel"])
            if method["method"] == NATURAL:
                natural.setdefault(method["direction"], {})[unit] = np.mean(change)
            else:
                records.append(record)
    edits = Edits(records)
    angle = edits.angles[0]
    per_network = {name: len({u for u in edits.units if u[0] == name}) for name in {u[0] for u in edits.units}}
    pictures = len(edits.units) * len(edits.seeds) * cells[0]["images"] * 2 * len(edits.methods)
    lines = [
        "## The job: generated pictures",
        "",
        f"{', '.join(f'{count} units of {name}' for name, count in sorted(per_network.items()))}; {cells[0]['images']}",
        f"test images, {len(edits.seeds)} seed(s), turned by {angle:.0f}°: {pictures} pictures. Δr is against α = 0",
        "with the same noise, in SDs of the unit over the reference images. Similarity (to the α = 0 picture), realism",
        "(mean cosine to the five nearest natural images) and distances are in a network that is not the target; all",
        "cosines are around the mean of natural images.",
        "",
        *edit_lines(edits, angle, {"similarity": "similarity", "natural": "realism"}),
    ]
    sets = [["method", "kernel distance to natural images, α = 0 being 1", "diversity", "arrived at α = 1, not in it"]]
    for method in edits.methods:
        mine = [record for record in records if record["method"] == method]
        known = [record["kernel"] for record in mine if record["kernel"] is not None]
        arrived = sum(record["arrived"] for record in mine)
        diversity = np.mean([record["diversity"] for record in mine])
        kernel = f"{np.mean(known):.2f} ± {np.std(known) / math.sqrt(len(known)):.2f}" if known else "none left"
        sets.append([method, kernel, f"{diversity:.3f}", str(arrived)])
    for label, key in (("α = 0", "zero"), ("the photographs themselves", "input")):
        values = [cell[f"{key}_kernel"] / abs(cell["zero_kernel"]) for cell in cells]
        diversity = f"{np.mean([cell['zero_diversity'] for cell in cells]):.3f}" if key == "zero" else ""
        error = np.std(values) / math.sqrt(len(values))
        sets.append([label, f"{np.mean(values):.2f} ± {error:.2f}", diversity, ""])
    lines += table(sets)
    mean = {key: np.mean([np.mean(cell[key]) for cell in cells]) for key in cells[0] if key.endswith("_similarity")}
    realism = {key: np.mean([np.mean(cell[f"{key}_natural"]) for cell in cells]) for key in ("input", "zero")}
    best = ", ".join(f"{way} {np.mean(list(values.values())):+.2f} SD" for way, values in natural.items())
    lines += [
        f"Similarity of random pairs {mean['random_similarity']:.3f}, of α = 0 to the photograph",
        f"{mean['zero_similarity']:.3f}. Realism of photographs {realism['input']:.3f}, of α = 0",
        f"{realism['zero']:.3f}. Top-10 natural images against the mean of α = 0: {best}.",
        "",
    ]
    rivals, found = difference_lines(edits, angle, {"change": "Δr", "natural": "realism", "similarity": "similarity"})
    distances = [["ours as shipped minus", "kernel distance to natural images, α = 0 being 1"]]
    for rival in found:
        one = kernel_difference(records, rival)
        found[rival]["kernel"] = {"mean": one.mean, "low": one.low, "high": one.high}
        distances.append([rival, with_interval(found[rival]["kernel"])])
    checks = edit_checks("Generated", edits, angle, found)
    if BRAINACTIV in found:
        near, change = found[BRAINACTIV]["kernel"], found[BRAINACTIV]["change"]
        text = (
            f"Generated, {angle:.0f}°: kernel distance of ours minus BrainACTIV's ridge {with_interval(near)}, at a Δr"
        )
        text += f" of {with_interval(change)} SD more (wanted: nearer to natural images at no smaller Δr)."
        checks[text] = near["high"] < 0 and change["high"] >= 0
    numbers = {"units": per_network, "pictures": pictures, "angle": angle, "differences": found}
    numbers["methods"] = {
        method: {way: edits.values(method, way, angle).mean() for way in SIGN} for method in edits.methods
    }
    numbers["measures"] = [
        {
            "what": f"embedded backend, {what}: Δr against α = 0 at {angle:.0f}°",
            "value": found_.mean,
            "unit": "SD",
            "sample": f"{len(edits.units)} units of {len(per_network)} networks",
            "low": found_.low,
            "high": found_.high,
            "spread": "95 % bootstrap interval over units first",
            "direction": way,
        }
        for method, what in {OURS: "the shipped edit", BRAINACTIV: "BrainACTIV's ridge", SHUFFLED: "shuffled"}.items()
        if method in edits.methods
        for way in SIGN
        for found_ in [interval(edits.values(method, way, angle), draws=1000, same_images=True)]
    ]
    return [*lines, *rivals, *table(distances)], numbers, checks


def with_interval(one: dict[str, float]) -> str:
    """A mean and the ends of its interval, in words."""
    return f"{one['mean']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"


def kernel_difference(records: list[dict[str, Any]], rival: str) -> Interval:
    """Ours minus a rival's kernel distance, paired over units in which both have one."""
    means: dict[str, dict[Any, list[float]]] = {OURS: {}, rival: {}}
    for record in records:
        if record["method"] in means and record.get("kernel") is not None:
            means[record["method"]].setdefault(record["unit"], []).append(record["kernel"])
    both = sorted(set(means[OURS]) & set(means[rival]), key=str)
    ours, theirs = ([float(np.mean(means[method][unit])) for unit in both] for method in (OURS, rival))
    return paired_difference(ours, theirs, levels=("unit",))


def quality_report(parts: dict[str, Any]) -> tuple[list[str], dict[str, bool]]:
    lines, checks = ["## Quality", ""], {}
    if one := parts.get("embedder"):
        text = f"linear probe {one['linear_probe_top1']:.1%}"
        lines += [
            f"Embedder, {one['parameters'] / 1e6:.1f} M parameters: {text}, 20-NN {one['knn20_top1']:.1%} top-1 on",
            f"{one['test']} test images from {one['bank']:,} training images.",
            "",
        ]
        checks[f"Embedder: {text} (wanted: 45 %)."] = one["linear_probe_top1"] >= 0.45
    if one := parts.get("generator"):
        lines += [
            f"Generator, {one['images']} pictures of test embeddings ({one['sampling']['steps']} steps, guidance",
            f"{one['sampling']['guidance']}): centred cosine of obtained and wanted embedding",
            f"{np.mean(one['cosine']):.3f}, of a random row {np.mean(one['random']):.3f}; {one['retrieval']:.1%} find",
            f"their source among {one['images']}.",
            "",
        ]
        rows = [["set, against as many other test images", "images", "Fréchet", "kernel"]]
        for label, found in one["distances"].items():
            frechet = "too few" if found["frechet"] is None else f"{found['frechet']:.1f}"
            rows.append([label, str(found["images"]), frechet, f"{found['kernel']:.4f}"])
        lines += table(rows)
        near = {label: np.median(values) for label, values in one["nearest_training_image"].items()}
        lines += [
            "Features of the third-party SqueezeNet. Median distance to the nearest training image (RMS over 16 x 16",
            f"pixels): generated {near['generated']:.3f}, test images {near['test images']:.3f}.",
            "",
        ]
        checks[f"Generator: {one['retrieval']:.1%} find their source (wanted: 90 %)."] = one["retrieval"] >= 0.9
        made, yardstick = (one["distances"][label]["frechet"] for label in ("generated", "JPEG-20 copies"))
        if made is not None:
            text = f"Generator: Fréchet distance {made:.1f}, JPEG-20 copies {yardstick:.1f} (wanted: below)."
            checks[text] = made < yardstick
        text = f"Generator: nearest training image at {near['generated']:.3f}, of test images {near['test images']:.3f}"
        checks[f"{text} (wanted: no nearer than four fifths)."] = near["generated"] >= 0.8 * near["test images"]
    return lines, checks


def report(out: Path, said: dict[str, Any]) -> str:
    """Everything that is in ``out``, what fails first; written beside it."""
    lines: list[str] = []
    numbers: dict[str, Any] = {}
    checks: dict[str, bool] = {}
    sources: list[dict[str, Any]] = []
    redone: dict[str, dict[str, Any]] = {}

    def read(pattern: str) -> list[Any]:
        found = [json.loads(path.read_text()) for path in sorted(out.glob(pattern))]
        sources.extend(one["provenance"] for one in found)
        for one in found:
            redone.update(one.get("redone", {}))
        return [one["found"] for one in found]

    quality = {path.stem.partition("-")[2]: None for path in sorted(out.glob("quality-*.json"))}
    if quality:
        quality = dict(zip(quality, read("quality-*.json"), strict=True))
        text, more = quality_report(quality)
        lines, checks = lines + text, checks | more
        numbers["quality"] = {
            part: {name: value for name, value in found.items() if not isinstance(value, list)}
            for part, found in quality.items()
        }
    if records := [record for found in read("retrieval-*.json") for record in found]:
        text, numbers["retrieval"], more = retrieval_report(records)
        lines, checks = lines + text, checks | more
    if cells := read("job-*.json"):
        text, numbers["job"], more = job_report(cells)
        lines, checks = lines + text, checks | more
        numbers["measures"] = numbers["job"].pop("measures")
    if stages := read("cost-*.json"):
        rows = [["stage", "images", "seconds", "peak memory, MiB", "threads"]]
        for stage in stages:
            threads = str(stage["threads"])
            rows.append(
                [stage["stage"], str(stage["images"]), f"{stage['seconds']:.1f}", f"{stage['peak_mib']:.0f}", threads]
            )
        lines += ["## Cost", "", *table(rows)]
        numbers["cost"] = stages
    if not checks:
        raise SystemExit(f"nothing to report in {out}: run quality, retrieval, job or cost first.")
    failed, held = ([f"- {text}" for text, ok in checks.items() if bool(ok) is wanted] for wanted in (False, True))
    head = ["# The embedded backend", "", "**What fails, first.**", "", *(failed or ["- Nothing of what was asked."])]
    head += ["", "**What holds.**", "", *(held or ["- Nothing."]), ""]
    made = sorted({(one["commit"] or "none")[:10] + ("+" if one["dirty"] else "") for one in sources})
    lines += [
        provenance_line(said),
        "",
        f"Cells were run at {', '.join(made)} on {', '.join(sorted({one['device'] for one in sources}))}.",
    ]
    lines += [f"Run anew at {one['commit'][:10]}: {label}." for label, one in redone.items()]
    numbers |= {"checks": {text: bool(ok) for text, ok in checks.items()}, "provenance": said}
    write_text(out / "embedded.json", json.dumps(numbers, indent=1))
    text = "\n".join([*head, *lines]) + "\n"
    write_text(out / "embedded.md", text)
    return text


def tuning_report(out: Path, said: dict[str, Any]) -> str:
    """What `retrieval --tune` found; no verdict, for nothing is claimed on tuning units."""
    found = [json.loads(path.read_text())["found"] for path in sorted(out.glob("tuning-*.json"))]
    lines, numbers, _ = retrieval_report([record for cell in found for record in cell])
    text = "\n".join(["# Tuning units and images", "", *lines, provenance_line(said)]) + "\n"
    write_text(out / "tuning.md", text)
    write_text(out / "tuning.json", json.dumps({**numbers, "provenance": said}, indent=1))
    return text
