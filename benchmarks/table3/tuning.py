"""How Table 3's optimisations are tuned: one grid for both priors, on tuning units and tuning images."""

import itertools
import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.script import read_all
from benchmarks.table3.landscapes import Material, complete, standard, trajectories
from benchmarks.table3.rows import FIT, GRID, REFINED_AT, SIGN, TUNED_ON, TUNED_REFINED
from benchmarks.table3.statistics import HARDLY, SHARES, change_where_given_up


def tune(bench: Material, steps: int, prior: Literal["structured", "standard"]) -> list[dict[str, Any]]:
    """One grid for each prior, on tuning units and tuning images: what every picture gained and kept at each step."""
    found: list[dict[str, Any]] = [
        {"prior": prior, "direction": way, **dict(zip(grid, values, strict=True)), "curves": []}
        for way, grid in GRID.items()
        for values in itertools.product(*grid.values())
    ]
    start = bench.features(bench.tuning)
    random = bench.similarity(start.roll(1, 0), start).mean().item()
    for layer, count in TUNED_ON.items():
        units = bench.units(layer)[0]
        target = bench.target(layer, units)
        responses = target.responses(bench.reference)
        scaler = vl.ResponseScaler.fit(responses, target.names)
        backend = bench.backend("consistent")
        method = vl.LandscapeEdit(shuffles=0, **FIT)
        if prior == "structured":
            method.fit(target, backend, bench.reference, responses)
        else:
            method.bind(target, backend)
            method.landscape_ = standard(bench, method, responses, "consistent", 0)
        zero = method.landscape_.decode(method.landscape_.encode(backend.encode(bench.tuning))[0])
        few = bench.tuning[:TUNED_REFINED]
        zeros = {"decoded": zero, "refined": bench.refine(zero[: len(few)], 0)}
        before = {stage: scaler.standardise(target.responses(x)) for stage, x in zeros.items()}
        for row in found:
            way = row["direction"]
            given = complete({name: row[name] for name in GRID[way]}, prior, steps)
            for unit in range(count):
                shown = trajectories(method, bench.tuning, unit, way, given)
                refined = [bench.refine(shown[step][: len(few)], 0) for step in REFINED_AT if step > 0]
                curves: dict[str, Any] = {"random": random}
                for stage, pictures in (("decoded", [*shown.values()]), ("refined", [zeros["refined"], *refined])):
                    after = [scaler.standardise(target.responses(x)) for x in pictures]
                    change = torch.stack([SIGN[way] * (x - before[stage])[:, unit] for x in after], 1)
                    kept = torch.stack([bench.similarity(bench.features(x), start[: len(x)]) for x in pictures], 1)
                    curves[stage] = {"change": change.tolist(), "similarity": kept.tolist()}
                row["curves"].append(curves)
            print(layer, {name: value for name, value in row.items() if name != "curves"}, flush=True)
    return found


def score(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every setting of one direction by the measures of the table, each in SDs over the settings, unit by unit.

    The measures are Δr and similarity, of decoded and of refined pictures. So a unit that goes far counts no more than
    one that does not, Δr no more than similarity, and what is shown in the end no less than what was optimised.
    Similarity is taken at shares of the Δr that all settings reach with a picture; pictures that some setting hardly
    moves have none.

    Returns the settings, each with ``change`` and ``similarity`` of each stage, (units,), and their ``score``.
    """
    measures: dict[str, list[Tensor]] = {}  # (settings,) of each unit
    for stage in ("decoded", "refined"):
        for unit in range(len(found[0]["curves"])):
            curves = [row["curves"][unit] for row in found]
            gained = [torch.tensor(curve[stage]["change"], dtype=torch.float64) for curve in curves]
            kept = [torch.tensor(curve[stage]["similarity"], dtype=torch.float64) for curve in curves]
            # As in the table: what lies between the mean α = 0, over both priors, and a random pair.
            span = torch.stack([one[:, 0].mean() for one in kept]).mean().item() - curves[0]["random"]
            at = [change_where_given_up(*one, span).mean() for one in zip(gained, kept, strict=True)]
            common = torch.stack([one.max(1).values for one in gained]).min(0).values
            moved = common > HARDLY
            shares = [one[moved] / common[moved, None] for one in gained]
            same = [
                vl.interpolate_at(a, b[moved], torch.tensor(SHARES)).mean() for a, b in zip(shares, kept, strict=True)
            ]
            measures.setdefault(f"change, {stage}", []).append(torch.stack(at))
            measures.setdefault(f"similarity, {stage}", []).append(torch.stack(same))
    tables = {name: torch.stack(values, 1) for name, values in measures.items()}  # (settings, units)
    # Each measure counts as much as another, over however many units it could be taken.
    in_sds = torch.stack([((one - one.mean(0)) / one.std(0)).nanmean(1) for one in tables.values()], 1)
    return [
        {name: value for name, value in row.items() if name != "curves"}
        | {name: one[index].tolist() for name, one in tables.items()}
        | {"score": in_sds[index].nanmean().item()}
        for index, row in enumerate(found)
    ]


def choose(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The best setting of each kind and direction, from what `score` says."""
    best: dict[str, Any] = {"grid": found}
    for name, prior, fits in (
        ("structured", "structured", lambda row: True),
        ("standard", "standard", lambda row: row["w_consistency"] == 0 and row["noise"] == 0),
        ("noisy", "standard", lambda row: row["w_consistency"] == 0 and row["noise"] > 0),
        ("held", "standard", lambda row: row["w_consistency"] > 0),
        # Last: the loss as heavy as the standard prior's with the loss. Step and noise are each prior's own.
        ("alike", "structured", lambda row: row["w_consistency"] == best["held"][row["direction"]]["w_consistency"]),
    ):
        best[name] = {}
        for way, grid in GRID.items():
            rows = [row for row in found if row["prior"] == prior and row["direction"] == way and fits(row)]
            top = max(rows, key=lambda row: row["score"])
            best[name][way] = {setting: top[setting] for setting in grid}
    return best


def merge_tuning(out: Path) -> None:
    """Choose from what the workers measured."""
    rows = [row for measured in read_all(out, "tuning-*.json") for row in measured]
    scored = [one for way in GRID for one in score([row for row in rows if row["direction"] == way])]
    vl.write_text(out / "tuned.json", json.dumps(choose(scored), indent=1))
