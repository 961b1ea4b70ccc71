"""Table 3 as markdown, with its numbers beside it as JSON: what fails first."""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.findings import BOOTSTRAP, Aim, Findings, Measure
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import signed
from benchmarks.common.tables import table as markdown
from benchmarks.common.tables import verdict as verdict_lines
from benchmarks.table3.landscapes import Material
from benchmarks.table3.rows import (
    ALIKE,
    FIT_EPOCHS,
    GRID,
    HELD,
    JUDGED_IMAGES,
    NOISY,
    OURS,
    PAPER,
    REACH,
    REFERENCE_IMAGES,
    REFINED_IMAGES,
    RIVAL,
    ROWS,
    SIGN,
    SILENT,
    TEST_IMAGES,
    TRACE,
    UNSEEN,
    Row,
)
from benchmarks.table3.statistics import GIVEN_UP, MEANS, Table

COMPARISONS = {
    "structure and step": (ALIKE, HELD),
    "all, as tuned": (OURS, HELD),
    "structure and loss": (OURS, NOISY),
    "loss": (HELD, NOISY),
    "noise": (NOISY, RIVAL),
}
"""What differs between two optimisations beside the one that was asked for."""
EXTRAS = {
    "structure and step": "the loss is in both optimisations, equally heavy",
    "all, as tuned": "the loss is in both optimisations, each with its own weight",
    "structure and loss": "the rival has our noise",
}
"""Comparisons in which the rival's optimisation has more than was asked for."""
STRENGTH = vl.PixelBackend.defaults.edit.strength
STAGES = ("decoded", "refined")
ZERO_ROWS = (ROWS[0], ROWS[1], ROWS[2], ROWS[7], RIVAL)
PAIRS_TITLE = "## Two units in one latent"


def report(bench: Material, out: Path, provenance_: dict[str, Any], draws: int = 400) -> str:
    """The table as markdown, with its numbers beside it as JSON."""
    entries = read_cells(out)
    if not entries:
        raise FileNotFoundError(f"out={str(out)!r} holds no finished cell; run without --report first.")
    table = Table(entries, draws)
    unseen = Table([entry for entry in entries if entry["group"] >= UNSEEN], draws)
    seeds = sorted({entry["seed"] for entry in entries})
    # One number of pictures for every Fréchet distance: it is biased by how few there are.
    count = len(table.units) * JUDGED_IMAGES * len(seeds)
    real = bench.features(bench.real[: 2 * count])
    floor = vl.frechet_distance(real[:count], real[count : 2 * count])
    numbers: dict[str, Any] = {"random": table.random, "frechet_floor": floor}
    sd = {(entry["layer"], entry["unit"]): entry["sd"] for entry in entries}
    numbers["rows"] = [row_numbers(table, row, way, sd, real[:count]) for way in SIGN for row in ROWS]
    numbers["reconstruction"] = {row.label: zero_numbers(table, row) for row in ZERO_ROWS}
    numbers["editing"] = editing_numbers(table)
    numbers["compared"] = {"unseen units": compare(unseen), "all units": compare(table)}
    numbers["matched means"] = {f"{way}, {stage}": table.matched_means(way, stage) for way in SIGN for stage in STAGES}
    pair_entries = read_pairs(out)
    kept = pair_numbers(pair_entries) if pair_entries else earlier_pairs(out)
    numbers |= {} if kept is None else {"pairs": kept}
    numbers["provenance"] = provenance_
    tuned = json.loads((out / "tuned.json").read_text())
    lines = ["# Table 3: CIFAR-10, edits and optimisation in structured and standard landscapes", "", *verdict(numbers)]
    lines += [provenance_line(provenance_), about(table, unseen, seeds, tuned, floor), *row_lines(numbers["rows"])]
    lines += ["## The α = 0 control", "", *zero_lines(numbers["reconstruction"])]
    lines += ["## Editing against its controls", "", editing_line(numbers["editing"])]
    lines += [*optimisation_lines(numbers), *pairs_section(kept, PAIRS_TITLE, new=bool(pair_entries))]
    ran = sorted({ran_at(entry) for entry in [*entries, *pair_entries]})
    lines += ["", f"Cells were run at {'; '.join(ran)}. The report was made at the commit above."]
    if (out / "figure5.webp").exists():
        said = "the first test unit of each layer, the first test images; optimisations at 30 % of similarity given up"
        lines += ["", "![Figure 5](figure5.webp)", "", f"Figure 5: {said}, refined."]
    vl.write_text(out / "table3.json", json.dumps(numbers, indent=1))
    text = "\n".join(lines) + "\n"
    vl.write_text(out / "table3.md", text)
    return text


def about(table: Table, unseen: Table, seeds: list[int], tuned: dict[str, Any], floor: float) -> str:
    """What the table rests on, and what its columns are."""
    units = ", ".join(f"{layer} {unit}" + "*" * ((layer, unit) in unseen.units) for layer, unit in table.units)
    few = [f"{row.label} ({table.seeds(row.label)})" for row in ROWS if table.seeds(row.label) < len(seeds)]
    judged = JUDGED_IMAGES * len(seeds)
    return f"""
{len(table.units)} test units ({units}). Nothing had been optimised for the {len(unseen.units)} with a star when rows,
settings, measures and what is asked below were settled (pairs, below, had edited the first four of `conv3` among them);
the others and the images were in earlier tables.
{TEST_IMAGES} test images (odd positions of cifar10/test.zip), of which each seed has a third; seeds run: {seeds}.
{REFERENCE_IMAGES} reference images, {FIT_EPOCHS} epochs for every fit, {max(TRACE)} optimisation steps.
{f"Run for fewer seeds: {'; '.join(few)}." if few else ""}

Δr: signed so that positive is the wanted way, against α = 0 of the same landscape and seed, in SDs of the unit over the
reference images. Similarity: cosine to the input in the penultimate features of the third-party ResNet-20; normalised:
0 is a random pair ({table.random:.3f}), 1 the row's own reconstruction. Refined: after the DDPM at strength
{STRENGTH}, for the first {REFINED_IMAGES} pictures of each seed. Fréchet distance: same features,
{len(table.units) * judged} pictures, of the same {judged} photographs for each unit, to as many other test images. Two
sets of so many unlike test images are {floor:.2f} apart, which pictures of so few photographs cannot reach.
Intervals: 95 %, bootstrap over units first, then images. Edits are at α = 1.

Tuned on tuning units and images, by Δr where similarity is given up and by similarity at shares of the common Δr,
of decoded and of refined pictures, each in SDs over the settings, with the same grid for both priors ({GRID}):
structured {tuned["structured"]}; standard without noise and loss in the optimisation {tuned["standard"]}, with noise
{tuned["noisy"]}, with the loss {tuned["held"]}. Structured with the loss as heavy as that: {tuned["alike"]}.
Chosen on tuning units without a grid: the structured prior's mean for an optimisation ({REACH:g} prior
means) and the weight of a silent unit's prior ({SILENT}, both priors).
"""


def row_numbers(
    table: Table, row: Row, way: vl.Sense, sd: dict[tuple[str, int], float], real: Tensor
) -> dict[str, Any]:
    """One row of the table in one direction."""
    change, kept = (table.values(row.label, way, what) for what in ("change", "similarity"))
    delta, alike = vl.interval(change, same_images=True), vl.interval(kept, same_images=True)
    refined = vl.interval(table.values(row.label, way, "change", stage="refined"), same_images=True)
    start = zero_similarity(table, row)
    return {
        "direction": way,
        "method": row.label,
        "change": [delta.mean, delta.low, delta.high],
        "change_raw": float(np.mean([change[i].mean() * sd[unit] for i, unit in enumerate(table.units)])),
        "units_right": float((change.mean(1) > 0).mean()),
        "similarity": [alike.mean, alike.low, alike.high],
        "normalised_similarity": float((kept.mean() - table.random) / (start - table.random)),
        "frechet": table.frechet(row.label, way, "decoded", real),
        "frechet_refined": table.frechet(row.label, way, "refined", real),
        "refined_change": [refined.mean, refined.low, refined.high],
        "refined_similarity": float(table.values(row.label, way, "similarity", stage="refined").mean()),
        "change_by_unit": change.mean(1).tolist(),
    }


def zero_similarity(table: Table, row: Row, stage: str = "decoded") -> float:
    """Mean similarity of what is not edited."""
    return float(table.values(row.label, "increase", "similarity", stage=stage, dose=0.0).mean())


def row_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The main table."""
    columns = ["direction", "method", "Δr, SD", "Δr, raw", "units the right way", "similarity", "normalised", "Fréchet"]
    columns += ["refined: Δr", "refined: similarity", "refined: Fréchet", "paper: similarity, Δr"]
    papers = {row.label: row.paper for row in ROWS}
    lines: list[list[str]] = [columns]
    for one in rows:
        paper = PAPER.get((one["direction"], papers[one["method"]] or ""))
        lines.append(
            [
                one["direction"],
                one["method"],
                signed(one["change"]),
                f"{one['change_raw']:+.4f}",
                f"{one['units_right']:.0%}",
                f"{one['similarity'][0]:.3f}",
                f"{one['normalised_similarity']:.2f}",
                f"{one['frechet']:.2f}",
                signed(one["refined_change"]),
                f"{one['refined_similarity']:.3f}",
                f"{one['frechet_refined']:.2f}",
                f"{paper[0]:.3f}, {paper[1]:+.3f}" if paper else "",
            ]
        )
    return markdown(lines)


def zero_numbers(table: Table, row: Row) -> dict[str, Any]:
    """What a landscape changes by itself."""
    inputs = np.array(
        [
            np.concatenate([entry["input"] for _, entry in sorted(table.cells[row.label, "increase", unit].items())])
            for unit in table.units
        ]
    )
    bias = table.values(row.label, "increase", "response", dose=0.0) - inputs
    off = vl.interval(bias, same_images=True)
    return {
        "bias": [off.mean, off.low, off.high],
        "bias_by_unit": bias.mean(1).tolist(),
        "similarity": zero_similarity(table, row),
        "similarity_refined": zero_similarity(table, row, "refined"),
    }


def zero_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    rows = [["landscape", "response against the input, SD", "similarity", "refined"]]
    for row in ZERO_ROWS:
        one = found[row.label]
        cells = [f"{row.landscape}, {row.start} start", signed(one["bias"]), f"{one['similarity']:.3f}"]
        rows.append([*cells, f"{one['similarity_refined']:.3f}"])
    return markdown(rows)


def editing_numbers(table: Table) -> dict[str, Any]:
    """How often the shipped edit beats what it is controlled by."""
    shipped, shuffled = (
        np.array([table.values(row.label, way, "change").mean(1) for way in SIGN]) for row in (ROWS[1], ROWS[2])
    )
    wins = float(((shipped > 0) & (shipped > shuffled)).mean())
    return {"wins": wins, "mean_change": float(shipped.mean()), "pairs": int(shipped.size)}


def editing_line(found: dict[str, Any]) -> str:
    return (
        f"The shipped edit beats α = 0 and the shuffled landscape in {found['wins']:.0%} of {found['pairs']} unit × "
        f"direction pairs; mean signed Δr {found['mean_change']:+.2f} SD."
    )


def optimisation_lines(numbers: dict[str, Any]) -> list[str]:
    """Optimisations at matched dose, picture by picture and by means over pictures."""
    lines = []
    for named, found in numbers["compared"].items():
        lines += ["", f"## Optimisations at matched dose, picture by picture: {named} ({len(found['units'])})", ""]
        lines += compared_lines(found)
    asked = numbers["compared"]["all units"]["asked"]
    never = asked["increase, decoded"]["never gave up so much"]
    shares = "; ".join(f"{name}: {', '.join(f'{v:.0%}' for v in values)}" for name, values in never.items())
    moved = ", ".join(f"{way} {asked[f'{way}, decoded']['pictures with a common Δr']:.0%}" for way in SIGN)
    never_line = (
        f"Shares of all pictures that never gave up {', '.join(f'{share:.0%}' for share in GIVEN_UP)} (increase): "
    )
    never_line += (
        f"{shares}. They count with the most that they reached. Pictures with a common Δr above 0.05 SD: {moved}"
    )
    lines += [
        "",
        never_line,
        "",
        "## What was asked for by means over pictures at the same step, all units",
        "",
        "A picture at the floor loses similarity under N(0, 1) and gains no response. That counts against it here, and",
        "not above, where every picture is taken at the same cost.",
        "",
        "| direction | stage | measure | difference | 95 % |",
        "|---|---|---|---|---|",
    ]
    for where, one in numbers["matched means"].items():
        lines += matched_lines(*where.split(", "), one)
    return lines


def pairs_section(kept: dict[str, Any] | None, title: str, *, new: bool) -> list[str]:
    """Two units in one latent; pairs of an earlier table say so."""
    if kept is None:
        return []
    if new:
        return ["", title, "", *pair_lines(kept)]
    said = f"Run before the cells above, at {kept['provenance']['commit'][:10]}:"
    return ["", title, "", said, provenance_line(kept["provenance"]), "", *pair_lines(kept)]


def read_cells(out: Path) -> list[dict[str, Any]]:
    return [
        entry for path in sorted(out.glob("cell-*.json.xz")) for entry in json.loads(lzma.decompress(path.read_bytes()))
    ]


def ran_at(entry: dict[str, Any]) -> str:
    """Where a record was measured; ``cut_from`` is of one that had more images than the table has."""
    cut = f", of {entry['cut_from']} images and cut to the first {TEST_IMAGES}" if "cut_from" in entry else ""
    return f"{entry['commit']} on {entry['device']}{cut}"


def compare(table: Table) -> dict[str, Any]:
    """What was asked for, ours against the rival's, and what lies between other rows, in both stages and directions."""
    pairs = {"asked": (OURS, RIVAL), **COMPARISONS}
    return {"units": table.units} | {
        name: {f"{way}, {stage}": table.matched(way, stage, *rows) for way in SIGN for stage in STAGES}
        for name, rows in pairs.items()
    }


def compared_lines(found: dict[str, Any]) -> list[str]:
    lines = [
        "Asked for: ours against Algorithm 3 under N(0, 1) in the standard VAE, both with the consistency loss in the",
        "fit; differences are ours minus the rival's.",
        "",
        "| direction | stage | measure | difference | 95 % |",
        "|---|---|---|---|---|",
    ]
    for where, one in found["asked"].items():
        lines += matched_lines(*where.split(", "), one)
    lines += [
        "",
        "Structure and step: both with the loss in the optimisation, equally heavy; step and noise are each prior's",
        "own, as tuning chose them (above). All, as tuned: the same, each with its own weight of the loss. Structure",
        "and loss: ours against N(0, 1) with the noise alone. Loss and noise: what either adds to N(0, 1).",
        "",
        "| comparison | direction | stage | measure | difference | 95 % |",
        "|---|---|---|---|---|---|",
    ]
    for name in COMPARISONS:
        for where, one in found[name].items():
            lines += [f"| {name} {line}" for line in matched_lines(*where.split(", "), one) if "mean over" in line]
    return lines


def read_pairs(out: Path) -> list[dict[str, Any]]:
    return [entry for path in sorted(out.glob("pairs-*.json")) for entry in json.loads(path.read_text())]


def earlier_pairs(out: Path) -> dict[str, Any] | None:
    """The pairs of the table that is in ``out``, where its cells are no longer."""
    path = out / "table3.json"
    return json.loads(path.read_text()).get("pairs") if path.exists() else None


def report_pairs(out: Path, provenance_: dict[str, Any]) -> str:
    """Pairs that were run anew, in the table that is in ``out``: its other cells stay as they are, and say so."""
    entries = read_pairs(out)
    if not entries:
        raise FileNotFoundError(f"out={str(out)!r} holds no finished pairs; run --only pairs without --report first.")
    numbers = json.loads((out / "table3.json").read_text())
    lines = (out / "table3.md").read_text().split("\n")
    numbers["pairs"] = {**pair_numbers(entries), "provenance": provenance_}
    start = lines.index(PAIRS_TITLE)
    end = next(row for row in range(start, len(lines)) if lines[row].startswith("Cells were run"))
    said = f"Run anew after the cells above, at {', '.join(sorted({entry['commit'] for entry in entries}))}:"
    lines[start:end] = [PAIRS_TITLE, "", said, provenance_line(provenance_), "", *pair_lines(numbers["pairs"]), ""]
    head = next(row for row, line in enumerate(lines) if line.startswith("`python"))
    lines[2:head] = verdict(numbers)
    vl.write_text(out / "table3.json", json.dumps(numbers, indent=1))
    text = "\n".join(lines)
    vl.write_text(out / "table3.md", text)
    return text


def checks(numbers: dict[str, Any]) -> dict[str, bool]:
    """What was hoped for, each sentence with its figures, and whether it is seen."""
    shipped = [row for row in numbers["rows"] if row["method"] == ROWS[1].label]
    said: dict[str, bool] = {}
    bias = numbers["reconstruction"][ROWS[1].label]["bias"][0]
    said[f"Reconstructions answer {bias:+.2f} SD off (wanted: within 0.3)."] = abs(bias) <= 0.3
    wins, change, pairs_ = (numbers["editing"][name] for name in ("wins", "mean_change", "pairs"))
    text = f"The shipped edit beats α = 0 and the shuffled landscape in {wins:.0%} of {pairs_} unit × direction pairs "
    said[f"{text}(wanted: 90 %); mean Δr {change:+.2f} SD (wanted: 0.5)."] = wins >= 0.9 and change >= 0.5
    kept = {row["direction"]: row["normalised_similarity"] for row in shipped}
    text = " and ".join(f"{value:.2f} ({way})" for way, value in kept.items())
    text = f"Its similarity is {text} of the way from a random pair to the reconstruction (wanted: 0.5)."
    said[text] = min(kept.values()) >= 0.5
    # Of units that were in earlier tables nothing is claimed: their figures are below.
    found = numbers["compared"]["unseen units"]
    for where, one in found["asked"].items():
        text = f"Structured against standard-VAE optimisation, unseen units, {where}"
        said |= {f"{text}: {line} (wanted: above zero).": ok for line, ok in above_zero(one)}
    for name, extra in EXTRAS.items():
        for where, one in found[name].items():
            text = f"The same, unseen units, and {extra}, {where}"
            said |= {f"{text}: {line} (not asked for: above zero).": ok for line, ok in above_zero(one)}
    for name in ("of mean changes", "of single pictures") if "pairs" in numbers else ():
        one = numbers["pairs"][name]
        text = f"{one['both over single']:.2f} [{one['low']:.2f}, {one['high']:.2f}] of a single unit's (wanted: 0.50)."
        count = numbers["pairs"]["pairs"]
        said[f"Two units in one latent, {count} pairs: cross-talk {name} is {text}"] = one["both over single"] <= 0.5
    return said


def above_zero(found: dict[str, Any]) -> list[tuple[str, bool]]:
    """Both measures of one comparison in words, and whether the interval lies above zero."""
    return [
        (f"{name} {signed([found[name][key] for key in ('difference', 'low', 'high')], 3)}", ok)
        for name in MEANS
        for ok in [found[name]["low"] > 0]
    ]


def verdict(numbers: dict[str, Any]) -> list[str]:
    """What was hoped for and is not seen, first; then what is."""
    return verdict_lines(checks(numbers))


def matched_lines(way: str, stage: str, found: dict[str, Any]) -> list[str]:
    return [
        f"| {way} | {stage} | {name} | {one['difference']:+.3f} | {one['low']:+.3f} to {one['high']:+.3f} |"
        for name, one in found.items()
        if isinstance(one, dict) and "difference" in one
    ]


def pair_numbers(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Cross-talk |Δ other| / |Δ target| of each kind, of the mean changes and of the changes of single pictures."""
    found: dict[str, Any] = {
        "pairs": len(entries),
        "correlations": [round(entry["correlation"], 3) for entry in entries],
    }
    for name, size in (
        ("of mean changes", lambda v: abs(np.mean(v))),
        ("of single pictures", lambda v: np.mean(np.abs(v))),
    ):
        ratio = {
            kind: np.array(
                [
                    np.mean([size(e["other"]) for e in entry["edits"] if e["kind"] == kind])
                    / np.mean([size(e["target"]) for e in entry["edits"] if e["kind"] == kind])
                    for entry in entries
                ]
            )
            for kind in ("single", "both")
        }
        rng = np.random.default_rng(0)
        picks = [rng.integers(len(entries), size=len(entries)) for _ in range(2000)]
        relative = [ratio["both"][p].mean() / ratio["single"][p].mean() for p in picks]
        found[name] = {
            "single": float(ratio["single"].mean()),
            "both": float(ratio["both"].mean()),
            "both over single": float(ratio["both"].mean() / ratio["single"].mean()),
            "low": float(np.percentile(relative, 2.5)),
            "high": float(np.percentile(relative, 97.5)),
        }
    for kind in ("both", "single"):
        changes = [
            SIGN[e["direction"]] * np.mean(e["target"])
            for entry in entries
            for e in entry["edits"]
            if e["kind"] == kind
        ]
        found[f"change of the target, {kind}"] = float(np.mean(changes))
    return found


def pair_lines(found: dict[str, Any]) -> list[str]:
    about = f"""{found["pairs"]} pairs of conv3 units, natural correlations {min(found["correlations"])} to
{max(found["correlations"])}; 100 test images, α = 1, both directions. Signed Δr of the target:
{found["change of the target, both"]:+.2f} SD with two blocks, {found["change of the target, single"]:+.2f} SD alone."""
    head = [
        "Δ other / Δ target, sizes",
        "landscape of one unit",
        "two blocks",
        "two blocks / one unit",
        "95 % over pairs",
    ]
    rows = [head]
    for name in ("of mean changes", "of single pictures"):
        one = found[name]
        cells = [name, f"{one['single']:.3f}", f"{one['both']:.3f}", f"{one['both over single']:.2f}"]
        rows.append([*cells, f"{one['low']:.2f} to {one['high']:.2f}"])
    return [about, "", *markdown(rows)[:-1]]


def findings(numbers: dict[str, Any]) -> Findings:
    """Edits and optimisations on CIFAR-10: the benchmark's own checks; the rows that a reader asks for first."""

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
