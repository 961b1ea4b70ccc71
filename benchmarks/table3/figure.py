"""Figure 5: inputs, edits and optimisations beside each other, nothing picked."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.figures import save_small, sheet
from benchmarks.table3.landscapes import Cell, Material, fit, optimize_settings, trajectories
from benchmarks.table3.rows import OURS, RIVAL, ROWS, SIGN, TEST_UNITS, TRACE

PICTURES = 6  # test images that are shown


def figure(bench: Material, tuned: dict[str, Any], path: Path) -> None:
    """Figure 5: the first test unit of each layer and the first test images, nothing picked.

    Optimisations are shown, picture by picture, at the last scored step before it gives up 30 % of its similarity, so
    that both priors are seen at the same cost. Everything is refined; below each picture stands its Δr.
    """
    images = bench.test[0::3][:PICTURES]
    start = bench.features(images)
    rows: list[tuple[str, Tensor, list[str]]] = []
    shown_rows = (ROWS[1], OURS, RIVAL)
    for layer in TEST_UNITS:
        made = {
            kind: fit(bench, Cell(layer, 0, 0, *kind)) for kind in {(row.start, row.landscape) for row in shown_rows}
        }
        units = Cell(layer, 0, 0, "consistent", "shipped").units(bench)
        target = bench.target(layer, units)
        scaler = vl.ResponseScaler.fit(target.responses(bench.reference), target.names)
        random = bench.similarity(bench.features(bench.test).roll(1, 0), bench.features(bench.test)).mean().item()
        zero_kept = start
        for row in (None, *shown_rows):
            method = made[row.start, row.landscape] if row else made["consistent", "shipped"]
            landscape = method.landscape_
            z, _ = landscape.encode(method.backend.encode(images))
            unedited = landscape.decode(z)
            base = scaler.standardise(target.responses(bench.refine(unedited, 0)))[:, 0]
            if row is None:
                name = f"{layer}, unit {units[0]}"
                rows.append((f"{name}\ninput", images, [""] * PICTURES))
                rows.append((f"{name}\nα = 0", bench.refine(unedited, 0).cpu(), ["0.0"] * PICTURES))
                zero_kept = bench.similarity(bench.features(unedited), start)
                continue
            for way in SIGN:
                if row.technique == "edit":
                    shown = landscape.decode(method.latents(images, {0: way}, alpha=1.0)[1])
                else:
                    settings = optimize_settings(row, way, tuned, max(TRACE))
                    doses = torch.stack(list(trajectories(method, images, 0, way, settings).values()))
                    kept = torch.stack([bench.similarity(bench.features(dose), start) for dose in doses])
                    lost = (kept[:1] - kept) / (zero_kept.mean() - random)
                    spent = (lost >= 0.3).int()
                    last = torch.where(spent.any(0), spent.argmax(0) - 1, len(doses) - 1).clamp_min(0)
                    shown = doses[last.to(doses.device), torch.arange(PICTURES)]
                refined = bench.refine(shown, 0).cpu()
                change = scaler.standardise(target.responses(refined))[:, 0] - base
                label = {ROWS[1].label: "edit", OURS.label: "our optim.", RIVAL.label: "standard optim."}[row.label]
                rows.append((f"{label}\n{way}", refined, [f"{value:+.1f}" for value in change.tolist()]))
    save_small(sheet(rows, bold=range(0, len(rows), len(rows) // len(TEST_UNITS))), path)
