"""Table 3 of the paper: do structured landscapes edit and optimise better than a standard VAE's latent?

    python benchmarks/cifar10_landscape.py --data ../shared/data --out runs/table3 --tune     # tuning units and images
    python benchmarks/cifar10_landscape.py --data ../shared/data --out runs/table3            # the table
    python benchmarks/cifar10_landscape.py --data ../shared/data --out runs/table3 --report   # from what has been run
    python benchmarks/cifar10_landscape.py --data ../shared/data --out runs/table3 --figure   # figure 5

Every cell (layer, seed, edits or optimisations) is written when it is done and skipped when the command is run again.
`--workers 2` runs two cells at a time, one thread each. What is tuned uses even-positioned test files and tuning units;
the table uses odd-positioned files and test units. Both lists of units are drawn here, before anything is fitted.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from judges import load_judge
from provenance import provenance, provenance_line

from vislens_interp import zoo
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.baselines.standard_vae import StandardVAE
from vislens_interp.files import write_text
from vislens_interp.landscape.edit import interpolate
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import Direction, ResponseScaler
from vislens_interp.landscape.vae import BottleneckCVAE
from vislens_interp.method import LandscapeMethod
from vislens_interp.metrics.bootstrap import interval
from vislens_interp.metrics.realism import frechet_distance
from vislens_interp.metrics.response import interpolate_at
from vislens_interp.precision import mixed_precision
from vislens_interp.targets import LayerTarget
from vislens_interp.training.data import pixels, read_images

SIGN: dict[Direction, int] = {"increase": 1, "decrease": -1}
REFERENCE_IMAGES = 8_000
TEST_IMAGES = 200
FIT_EPOCHS = 2
FIT = {"epochs": FIT_EPOCHS, "bf16": True}
TRACE = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 28, 36, 46, 60, 80, 105, 140, 200)
"""Steps that are scored, close together at first: a dozen steps cost half of the similarity."""
REFINED_AT = (0, 3, 10, 36, 200)
"""Steps of ``TRACE`` that are also refined: a picture's refinement costs as much as thirty steps."""
REFINED_IMAGES = 34
"""Of a seed's test images, the first so many are refined as well."""
GIVEN_UP = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Similarity that every picture gives up where methods are compared: shares of what lies between the mean
reconstruction and a random pair."""
SHARES = (0.25, 0.5, 0.75, 0.9)
"""Shares of a common Δr at which similarities are compared."""
HARDLY = 0.05
"""A common Δr, in SDs, so small that similarities at shares of it say nothing."""
ALPHAS = (0.25, 0.5, 0.75, 1.0)
WHAT = ("edits", "optimisations")
WIDTH = {"conv3": 128, "fc1": 256}
TUNING_UNITS, TEST_UNITS = 8, {"conv3": 8, "fc1": 4}
ALIVE = 0.05
"""Share of images that must drive a unit; a third of fc1 never answers at all."""
SHARED = {"w_kld": (1e-4,), "scale": ("latent", "response"), "w_consistency": (0.0, 0.01, 0.03)}
GRID: dict[Direction, dict[str, tuple[Any, ...]]] = {
    "increase": {"lr": (0.1, 0.2, 0.4), **SHARED},
    "decrease": {"lr": (0.01, 0.03, 0.1), **SHARED},
}
"""Searched for both priors alike. Decreases end at a rectified unit's floor, which large steps overshoot. An earlier
grid (lr and scale without ``w_consistency``) had 0, 1e-4 and 1e-2 for ``w_kld``: 1e-4 was best upwards under both
priors, and downwards it made no difference."""
SILENT = 0.1
"""``w_silent`` wherever the loss has a term that would hold a silent picture where it is; under both priors."""
REACH = 3.0
"""Of the structured prior's mean."""
TUNED_ON = {"conv3": 2, "fc1": 2}
"""Tuning units of each layer."""

PAPER = {
    ("increase", "structured edit"): (0.745, 0.046),
    ("increase", "structured optimisation"): (0.666, 0.079),
    ("increase", "standard optimisation"): (0.520, 0.067),
    ("decrease", "structured edit"): (0.696, -0.083),
    ("decrease", "structured optimisation"): (0.661, -0.110),
    ("decrease", "standard optimisation"): (0.538, -0.068),
}


@dataclass(frozen=True)
class Row:
    """One row of the table: how its landscape is made, and what is done in it.

    Args:
        label: As printed.
        start: Shared VAE that the fit starts from: with the consistency loss, or the paper's with a pixel loss alone.
        landscape: ``"published"``, ``"shipped"``, ``"shuffled"`` or ``"standard"``.
        technique: ``"edit"``, ``"optimize"`` or ``"twin"``.
        paper: The paper's row.
        prior: Of an optimisation.
        tuned: Of an optimisation: which of the settings that tuning chose, or None for the paper's own.
    """

    label: str
    start: str
    landscape: str
    technique: str
    paper: str | None = None
    prior: Literal["structured", "standard"] = "structured"
    tuned: Literal["structured", "standard", "held"] | None = None


ROWS = [
    Row("structured edit, as published", "pixel", "published", "edit", "structured edit"),
    Row("structured edit, as shipped", "consistent", "shipped", "edit", "structured edit"),
    Row("shuffled-response landscape, edit", "consistent", "shuffled", "edit"),
    Row("algebraic twin (centroids weighted by r·abs(r)), lerp", "consistent", "standard", "twin"),
    Row("structured optimisation, as published", "pixel", "published", "optimize", "structured optimisation"),
    Row(
        "structured optimisation, as shipped",
        "consistent",
        "shipped",
        "optimize",
        "structured optimisation",
        tuned="structured",
    ),
    Row(
        "standard-VAE optimisation, as published", "pixel", "standard", "optimize", "standard optimisation", "standard"
    ),
    Row(
        "standard-VAE optimisation, same consistency loss",
        "consistent",
        "standard",
        "optimize",
        prior="standard",
        tuned="standard",
    ),
    Row(
        "standard-VAE optimisation, the loss in the optimisation too",
        "consistent",
        "standard",
        "optimize",
        prior="standard",
        tuned="held",
    ),
]
PAIRS_TITLE = "## Two units in one latent"
OURS, RIVAL, HELD = ROWS[5], ROWS[7], ROWS[8]
"""Ours; Algorithm 3 under N(0, 1) in a VAE that had the consistency loss; the same with all that ours has beside the
structure: the loss in the optimisation as well, the same scales of steps."""


class Bench:
    """The data, the network, the judge and the shared VAEs, loaded once a process."""

    def __init__(self, data: Path, pixel_vae: Path | None) -> None:
        archive = data / "cifar10"
        images, _, _ = read_images(archive / "train.zip", 32)
        rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:REFERENCE_IMAGES]
        self.reference = pixels(images[rows])
        test, _, _ = read_images(archive / "test.zip", 32)
        odd, even = pixels(test[1::2]), pixels(test[::2])
        pick = torch.Generator().manual_seed(1)
        order = torch.randperm(len(odd), generator=pick)
        self.test, self.real = odd[order[:TEST_IMAGES]], odd[order[TEST_IMAGES:]]
        self.tuning = even[torch.randperm(len(even), generator=pick)[:20]]
        self.judge = load_judge(data)
        self.network = zoo.load("cifar10_convnet")
        self.refiner = PixelBackend().refiner
        self.pixel_vae = pixel_vae

    def backend(self, start: str) -> PixelBackend:
        """The pixel backend with one of the two shared VAEs."""
        backend = PixelBackend()
        if start == "pixel":
            if self.pixel_vae is None:
                raise ValueError("--pixel-vae is not given; expected a standard CVAE trained with w_consistency=0.")
            vae = BottleneckCVAE().to(memory_format=torch.channels_last)
            vae.load_state_dict(load_file(self.pixel_vae))
            backend.vae = lambda: vae  # type: ignore[method-assign]
        return backend

    def target(self, layer: str, units: list[int]) -> LayerTarget:
        return LayerTarget(self.network, layer, units)

    def units(self, layer: str) -> tuple[list[int], list[int]]:
        """Tuning units, the first of one fixed shuffle, and test units, the next that are not dead."""
        order = torch.randperm(WIDTH[layer], generator=torch.Generator().manual_seed(0)).tolist()
        responses = self.target(layer, order).responses(self.reference[:2000])
        driven = (responses > 0).float().mean(0) >= ALIVE
        tuning = [unit for unit, ok in zip(order[:TUNING_UNITS], driven[:TUNING_UNITS], strict=True) if ok]
        rest = [unit for unit, ok in zip(order[TUNING_UNITS:], driven[TUNING_UNITS:], strict=True) if ok]
        return tuning, rest

    def features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.judge.features(part) for part in images.split(250)])

    def similarity(self, features: Tensor, start: Tensor) -> Tensor:
        return torch.nn.functional.cosine_similarity(features, start)

    def refine(self, images: Tensor, seed: int) -> Tensor:
        # Every image of a seed meets the same noise, as in the paper.
        return self.refiner(images, strength=PixelBackend.defaults.strength, seeds=[42 + seed] * len(images))


def landscapes(bench: Bench, layer: str, units: list[int], seed: int) -> dict[tuple[str, str], LandscapeMethod]:
    """Every landscape of one cell, each fitted for the same number of epochs on the same images."""
    target = bench.target(layer, units)
    responses = target.responses(bench.reference)
    shuffled = responses[torch.randperm(len(responses), generator=torch.Generator().manual_seed(seed + 99))]
    published = {"organise": False, "w_consistency": 0.0, "block_dim": 192 // len(units), **FIT}
    made: dict[tuple[str, str], LandscapeMethod] = {}
    for start, kind, responses_, settings in (
        ("pixel", "published", responses, published),
        ("consistent", "shipped", responses, {**FIT}),
        ("consistent", "shuffled", shuffled, {**FIT}),
    ):
        method = LandscapeMethod(seed=seed, shuffles=0, **settings)
        made[start, kind] = method.fit(target, bench.backend(start), bench.reference, responses_)
    for start in ("pixel", "consistent"):
        method = LandscapeMethod(seed=seed, shuffles=0).bind(target, bench.backend(start))
        method.landscape_ = standard(bench, method, responses, start, seed)
        made[start, "standard"] = method
    return made


def standard(bench: Bench, method: LandscapeMethod, responses: Tensor, start: str, seed: int) -> Landscape:
    """The shared VAE trained on under N(0, 1) for as many epochs as the structured ones."""
    rival = StandardVAE(seed=seed, **FIT, **({} if start == "consistent" else {"w_consistency": 0.0}))
    return rival.fit(method.target, method.backend, bench.reference, responses).landscape_


def centroids(landscape: Landscape, unit: int) -> dict[Direction, Tensor]:
    """The algebraic twin: means of latents weighted by r·|r|, one a direction."""
    r = landscape.scaler.standardise(landscape.responses)[:, unit]
    weights = {"increase": (r * r.abs()).clamp_min(0), "decrease": (-r * r.abs()).clamp_min(0)}
    return {way: (landscape.latents * w[:, None]).sum(0) / w.sum() for way, w in weights.items()}


def optimize_settings(row: Row, way: Direction, tuned: dict[str, Any], steps: int) -> dict[str, Any]:
    """The paper's numbers for the published rows; what tuning chose, from one grid for both priors, for the others."""
    if row.tuned is None:
        return complete({"lr": 0.1, "w_kld": 0.001, "move": "block"}, row.prior, steps)
    return complete(tuned[row.tuned][way], row.prior, steps)


def complete(chosen: dict[str, Any], prior: Literal["structured", "standard"], steps: int) -> dict[str, Any]:
    """Every setting of an optimisation: nothing is left to the backend's defaults, which are ours."""
    plain = {"scale": "latent", "w_consistency": 0.0, "move": "all"}
    ours = prior == "structured" and chosen.get("move") != "block"
    silent = SILENT if ours or chosen.get("w_consistency", 0.0) > 0 else 0.0
    fixed = {"steps": steps, "prior": prior, "chunk": 34, "reach": REACH if ours else 1.0, "w_silent": silent}
    return {**plain, **fixed, **chosen}


def trajectories(
    bench: Bench, method: LandscapeMethod, images: Tensor, unit: int, way: Direction, settings: dict[str, Any]
) -> dict[int, Tensor]:
    """Decoded images (N, 3, 32, 32) at the steps of ``TRACE``."""
    method.settings = {f"optimize_{name}": value for name, value in settings.items()}
    z, sigma = method.landscape_.encode(images)
    goal = method.landscape_.goal(z, {unit: way})
    seen: dict[int, list[Tensor]] = {}

    def trace(step: int, latent: Tensor) -> None:
        if step in TRACE:
            seen.setdefault(step, []).append(latent.clone())

    # For every row alike; what is scored is decoded and read in fp32. Without a cache: autocast keeps the cast of a
    # leaf that needs gradients, which the latent is, and would go on decoding the first step's.
    with mixed_precision("cpu", cache_enabled=False):
        method.optimize(z, sigma, goal, {unit: way}, x=images, trace=trace)
    return {step: method.landscape_.decode(torch.cat(parts)) for step, parts in seen.items()}


def edits(method: LandscapeMethod, images: Tensor, unit: int, way: Direction, technique: str) -> dict[float, Tensor]:
    """Decoded images (N, 3, 32, 32) at the weights of ``ALPHAS`` and unedited."""
    if technique == "edit":
        latents = {alpha: method.latents(images, {unit: way}, alpha=alpha)[1] for alpha in (0.0, *ALPHAS)}
    else:
        z, _ = method.landscape_.encode(images)
        goal = centroids(method.landscape_, unit)[way]
        latents = {alpha: interpolate(z, goal, alpha) for alpha in (0.0, *ALPHAS)}
    return {alpha: method.landscape_.decode(z) for alpha, z in latents.items()}


def cell(
    bench: Bench, layer: str, seed: int, what: str, tuned: dict[str, Any], steps: int, published: bool
) -> Iterator[dict[str, Any]]:
    """All edits or all optimisations of one layer and seed: one record for each row, unit, direction and dose.

    ``published`` says whether the published optimisation rows, half of their time, are run too.
    """
    units = bench.units(layer)[1][: TEST_UNITS[layer]]
    made = landscapes(bench, layer, units, seed)
    truth = bench.target(layer, units)
    scaler = ResponseScaler.fit(truth.responses(bench.reference), truth.names)
    # A seed's third of the test images: the three seeds together cover all of them.
    pictures = bench.test[seed % 3 :: 3]
    start = bench.features(pictures)

    def look(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = bench.features(images)
        return scaler.standardise(truth.responses(images)), bench.similarity(features, start[: len(images)]), features

    read_input = look(pictures)[0]
    shown_random = bench.similarity(start.roll(1, 0), start)
    for row in ROWS:
        optimisation = row.technique == "optimize"
        if optimisation != (what == "optimisations") or (optimisation and row.start == "pixel" and not published):
            continue
        method = made[row.start, row.landscape]
        landscape = method.landscape_
        z, _ = landscape.encode(pictures)
        unedited = landscape.decode(z)
        zero = {"decoded": look(unedited), "refined": look(bench.refine(unedited[:REFINED_IMAGES], seed))}
        for unit in range(len(units)):
            for way in SIGN:
                began = time.monotonic()
                if row.technique == "optimize":
                    settings = optimize_settings(row, way, tuned, steps)
                    doses = trajectories(bench, method, pictures, unit, way, settings)
                else:
                    doses = edits(method, pictures, unit, way, row.technique)
                entry: dict[str, Any] = {
                    "row": row.label,
                    "layer": layer,
                    "seed": seed,
                    "unit": units[unit],
                    "direction": way,
                    "sd": scaler.std[unit].item(),
                    "input": read_input[:, unit].tolist(),
                    "random": shown_random.tolist(),
                    "seconds": time.monotonic() - began,
                    "doses": [],
                }
                for dose, images in doses.items():
                    seen = {"decoded": look(images)}
                    if dose == 0:
                        seen["refined"] = zero["refined"]
                    elif dose == max(doses) or (row.technique == "optimize" and dose in REFINED_AT):
                        seen["refined"] = look(bench.refine(images[:REFINED_IMAGES], seed))
                    measured: dict[str, Any] = {"dose": dose}
                    for stage, (responses, similarity, features) in seen.items():
                        measured[stage] = {
                            "change": (SIGN[way] * (responses - zero[stage][0])[:, unit]).tolist(),
                            "response": responses[:, unit].tolist(),
                            "similarity": similarity.tolist(),
                        }
                        if dose == max(doses):
                            measured[stage]["features"] = features.half().tolist()
                    entry["doses"].append(measured)
                print(f"{layer} seed {seed} {row.label} unit {units[unit]} {way}: {entry['seconds']:.1f} s", flush=True)
                yield entry


def pair_cell(bench: Bench, part: int, parts: int) -> Iterator[dict[str, Any]]:
    """Two units in one latent, against a landscape of each alone: what does an edit for one do to the other?"""
    pool = bench.units("conv3")[1][:12]
    chosen = pairs(bench, pool)
    truth = bench.target("conv3", pool)
    scaler = ResponseScaler.fit(truth.responses(bench.reference), truth.names)
    reference, pictures = bench.reference[:4000], bench.test[:100]
    single: dict[int, LandscapeMethod] = {}

    def fit(units: list[int]) -> LandscapeMethod:
        method = LandscapeMethod(shuffles=0, **FIT)
        return method.fit(bench.target("conv3", units), bench.backend("consistent"), reference)

    for correlation, a, b in chosen[part::parts]:
        entry: dict[str, Any] = {"units": [a, b], "correlation": correlation, "edits": []}
        both = fit([a, b])
        for unit in (a, b):
            if unit not in single:
                single[unit] = fit([unit])
        for position, (unit, other) in enumerate(((a, b), (b, a))):
            for kind, method, index in (("single", single[unit], 0), ("both", both, position)):
                z, _ = method.landscape_.encode(pictures)
                start = scaler.standardise(truth.responses(method.landscape_.decode(z)))
                for way in SIGN:
                    moved = method.landscape_.decode(method.latents(pictures, {index: way}, alpha=1.0)[1])
                    change = scaler.standardise(truth.responses(moved)) - start
                    target, elsewhere = change[:, pool.index(unit)], change[:, pool.index(other)]
                    entry["edits"].append(
                        {
                            "kind": kind,
                            "unit": unit,
                            "direction": way,
                            "target": target.tolist(),
                            "other": elsewhere.tolist(),
                        }
                    )
        print(f"pair {a}, {b} (r = {correlation:.2f})", flush=True)
        yield entry


def pairs(bench: Bench, pool: list[int]) -> list[tuple[float, int, int]]:
    """Twenty pairs, at equal steps through all pairs of the pool sorted by their natural correlation."""
    natural = torch.corrcoef(bench.target("conv3", pool).responses(bench.reference).T)
    every = sorted((natural[i, j].item(), pool[i], pool[j]) for i in range(len(pool)) for j in range(i + 1, len(pool)))
    return [every[round(step)] for step in np.linspace(0, len(every) - 1, 20)]


def tune(bench: Bench, steps: int, prior: Literal["structured", "standard"]) -> list[dict[str, Any]]:
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
        scaler = ResponseScaler.fit(responses, target.names)
        backend = bench.backend("consistent")
        method = LandscapeMethod(shuffles=0, **FIT)
        if prior == "structured":
            method.fit(target, backend, bench.reference, responses)
        else:
            method.bind(target, backend)
            method.landscape_ = standard(bench, method, responses, "consistent", 0)
        zero = method.landscape_.decode(method.landscape_.encode(bench.tuning)[0])
        before = scaler.standardise(target.responses(zero))
        span = bench.similarity(bench.features(zero), start).mean().item() - random
        for row in found:
            way = row["direction"]
            given = complete({name: row[name] for name in GRID[way]}, prior, steps) | {"chunk": len(bench.tuning)}
            for unit in range(count):
                shown = trajectories(bench, method, bench.tuning, unit, way, given).values()
                after = [scaler.standardise(target.responses(x)) for x in shown]
                change = torch.stack([SIGN[way] * (x - before)[:, unit] for x in after], 1)
                kept = torch.stack([bench.similarity(bench.features(x), start) for x in shown], 1)
                row["curves"].append({"span": span, "change": change.tolist(), "similarity": kept.tolist()})
            print(layer, {name: value for name, value in row.items() if name != "curves"}, flush=True)
    return found


def score(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every setting of one direction by the two measures of the table, each in SDs over the settings, unit by unit.

    So a unit that goes far counts no more than one that does not, and Δr no more than similarity. Similarity is taken
    at shares of the Δr that all settings reach with a picture; pictures that some setting hardly moves have none.

    Args:
        found: What `tune` measured, of both priors.

    Returns:
        The settings, each with ``change`` and ``similarity`` (units,) and their ``score``.
    """
    change, alike = [], []  # (settings, units)
    for unit in range(len(found[0]["curves"])):
        curves = [row["curves"][unit] for row in found]
        gained = [torch.tensor(curve["change"], dtype=torch.float64) for curve in curves]
        kept = [torch.tensor(curve["similarity"], dtype=torch.float64) for curve in curves]
        spans = [curve["span"] for curve in curves]
        at = [change_where_given_up(*one).mean() for one in zip(gained, kept, spans, strict=True)]
        common = torch.stack([one.max(1).values for one in gained]).min(0).values
        moved = common > HARDLY
        shares = [one[moved] / common[moved, None] for one in gained]
        same = [interpolate_at(a, b[moved], torch.tensor(SHARES)).mean() for a, b in zip(shares, kept, strict=True)]
        change.append(torch.stack(at))
        alike.append(torch.stack(same))
    measures = [torch.stack(one, 1) for one in (change, alike)]
    total = sum((one - one.mean(0)) / one.std(0) for one in measures).nanmean(1)  # type: ignore[union-attr]
    plain = [{name: value for name, value in row.items() if name != "curves"} for row in found]
    return [
        {**row, "change": a.tolist(), "similarity": b.tolist(), "score": c.item()}
        for row, a, b, c in zip(plain, *measures, total, strict=True)
    ]


def choose(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The best setting of each kind and direction, from what `score` says."""
    best: dict[str, Any] = {"grid": found}
    for name, prior, held in (
        ("structured", "structured", (True, False)),
        ("standard", "standard", (False,)),
        ("held", "standard", (True,)),
    ):
        best[name] = {}
        for way, grid in GRID.items():
            rows = [row for row in found if row["prior"] == prior and row["direction"] == way]
            top = max((row for row in rows if (row["w_consistency"] > 0) in held), key=lambda row: row["score"])
            best[name][way] = {setting: top[setting] for setting in grid}
    return best


def merge_tuning(out: Path) -> None:
    """Choose from what the workers measured."""
    rows = [row for path in sorted(out.glob("tuning-*.json")) for row in json.loads(path.read_text())]
    scored = [one for way in GRID for one in score([row for row in rows if row["direction"] == way])]
    write_text(out / "tuned.json", json.dumps(choose(scored), indent=1))


def change_where_given_up(change: Tensor, kept: Tensor, span: float) -> Tensor:
    """Δr of each picture where it has given up the shares ``GIVEN_UP`` of ``span``: (N, T) twice to (N, levels).

    A picture that never gives up so much, because it stands still or turns back, counts with the most it reached.
    """
    lost = (kept[:, :1] - kept) / span
    found = torch.stack([interpolate_at(lost, change, level) for level in GIVEN_UP], 1)
    return torch.where(found.isnan(), change.max(1, keepdim=True).values.double(), found)


def change_at(similarity: list[float], change: list[float], level: float) -> float:
    """Response change where a trajectory first falls to a similarity; its largest if it never falls so far."""
    if similarity[0] <= level:
        return 0.0
    value = interpolate_at(torch.tensor(similarity), torch.tensor(change), level).item()
    return max(change) if math.isnan(value) else value


def similarity_at(similarity: list[float], change: list[float], level: float) -> float:
    """Similarity where a trajectory first reaches a response change; NaN if it never does."""
    return interpolate_at(torch.tensor(change), torch.tensor(similarity), level).item()


class Table:
    """What the cells say, in numbers with intervals: units are drawn first, then seeds and images within them."""

    def __init__(self, entries: list[dict[str, Any]], draws: int = 400) -> None:
        self.cells: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
        for entry in entries:
            unit = (entry["layer"], entry["unit"])
            self.cells.setdefault((entry["row"], entry["direction"], unit), {})[entry["seed"]] = entry
        # A row counts the seeds that all of its units have, so that every unit is seen on the same pictures.
        for row in {row for row, _, _ in self.cells}:
            mine = [key for key in self.cells if key[0] == row]
            common = set.intersection(*(set(self.cells[key]) for key in mine))
            for key in mine:
                self.cells[key] = {seed: entry for seed, entry in self.cells[key].items() if seed in common}
        self.units = sorted({unit for _, _, unit in self.cells})
        self.draws = draws
        self.random = float(np.mean(np.concatenate([entry["random"] for entry in _one_per_seed(entries)])))

    def values(self, row: str, way: str, what: str, *, stage: str = "decoded", dose: float | None = None) -> np.ndarray:
        """(units, images): one number for each picture at a dose, the seeds' thirds of the test set side by side."""
        return np.array([self._unit(row, way, unit, what, stage, dose) for unit in self.units])

    def _unit(self, row: str, way: str, unit: Any, what: str, stage: str, dose: float | None) -> list[float]:
        numbers: list[float] = []
        for _, entry in sorted(self.cells[row, way, unit].items()):
            at = entry["doses"][-1] if dose is None else next(d for d in entry["doses"] if d["dose"] == dose)
            values = at[stage][what]
            numbers += values
        return numbers

    def seeds(self, row: str) -> int:
        """Seeds that a row was run for."""
        return min(len(cells) for (label, _, _), cells in self.cells.items() if label == row)

    def doses(self, row: str, stage: str) -> list[float]:
        entry = next(iter(self.cells[row, "increase", self.units[0]].values()))
        return [dose["dose"] for dose in entry["doses"] if stage in dose]

    def curves(self, row: str, way: str, stage: str) -> tuple[np.ndarray, np.ndarray]:
        """Change and similarity along the doses: (units, images, doses) twice."""
        doses = self.doses(row, stage)
        return tuple(
            np.stack([self.values(row, way, what, stage=stage, dose=dose) for dose in doses], -1)
            for what in ("change", "similarity")
        )

    def matched(self, way: str, stage: str, ours: Row, rival: Row) -> dict[str, Any]:
        """Ours against the rival's picture by picture, at matched similarity and at matched change, with intervals.

        A third of all pictures stand at a rectified unit's floor, without a gradient: they stay where they are under
        one prior and drift under another. Means over pictures at one step mix them with those that go far.
        """
        curves = {row.label: self.curves(row.label, way, stage) for row in (ours, rival)}
        span = float(np.mean([kept[..., 0].mean() for _, kept in curves.values()])) - self.random
        at = {
            label: np.stack(
                [
                    change_where_given_up(torch.from_numpy(a), torch.from_numpy(b), span).numpy()
                    for a, b in zip(change, kept, strict=True)
                ]
            )
            for label, (change, kept) in curves.items()
        }
        found: dict[str, np.ndarray] = {}
        gained = at[ours.label] - at[rival.label]  # (units, images, levels)
        for index, share in enumerate(GIVEN_UP):
            found[f"Δr where {share:.0%} of similarity is given up"] = gained[..., index]
        # Shares of what both reach with a picture, so that a rectified unit's floor and an open ceiling compare alike.
        (change_a, kept_a), (change_b, kept_b) = (curves[row.label] for row in (ours, rival))
        reach = np.minimum(change_a.max(-1), change_b.max(-1))
        kept = np.full((*reach.shape, len(SHARES)), np.nan)
        for unit, image in zip(*np.nonzero(reach > HARDLY), strict=True):
            levels = torch.tensor([share * reach[unit, image] for share in SHARES], dtype=torch.float64)
            a, b = (
                interpolate_at(torch.from_numpy(change[unit, image]), torch.from_numpy(alike[unit, image]), levels)
                for change, alike in ((change_a, kept_a), (change_b, kept_b))
            )
            kept[unit, image] = (a - b).numpy()
        for index, share in enumerate(SHARES):
            found[f"similarity at {share:.0%} of the common Δr"] = kept[..., index]
        found["Δr, mean over similarities"] = gained.mean(-1)
        found["similarity, mean over Δr"] = kept.mean(-1)
        rng = np.random.default_rng(0)
        units, images = reach.shape
        drawn = [(rng.integers(units, size=units), rng.integers(images, size=images)) for _ in range(2 * self.draws)]
        out: dict[str, Any] = {}
        for name, values in found.items():
            # A unit counts as one, however many of its pictures could be compared.
            means = [np.nanmean(np.nanmean(values[np.ix_(*pick)], 1)) for pick in drawn]
            low, high = np.percentile(means, [2.5, 97.5])
            out[name] = {
                "difference": float(np.nanmean(np.nanmean(values, 1))),
                "low": float(low),
                "high": float(high),
                "by_unit": np.nanmean(values, 1).tolist(),
            }
        for row in (ours, rival):
            lost = self.curves(row.label, way, stage)[1]
            never = ((lost[..., :1] - lost).max(-1)[..., None] < np.array(GIVEN_UP) * span).mean((0, 1))
            out.setdefault("never gave up so much", {})[row.label] = never.tolist()
        out["pictures with a common Δr"] = float(np.isfinite(kept[..., 0]).mean())
        return out

    def matched_means(self, way: str, stage: str) -> dict[str, Any]:
        """Ours against the rival's, means over pictures at the same step, at matched similarity and matched change."""
        curves = {row.label: self.curves(row.label, way, stage) for row in (OURS, RIVAL)}
        start = float(curves[RIVAL.label][1][..., 0].mean())
        levels = {f"{share:.0%}": self.random + share * (start - self.random) for share in (0.9, 0.8, 0.7, 0.6, 0.5)}

        def compare(picked: list[tuple[int, np.ndarray]]) -> dict[str, float]:
            mean = {
                label: [(change[unit][rows].mean(0), kept[unit][rows].mean(0)) for unit, rows in picked]
                for label, (change, kept) in curves.items()
            }
            out: dict[str, list[float]] = {}
            for (a_change, a_kept), (b_change, b_kept) in zip(mean[OURS.label], mean[RIVAL.label], strict=True):
                for name, level in levels.items():
                    a = change_at(a_kept.tolist(), a_change.tolist(), level)
                    b = change_at(b_kept.tolist(), b_change.tolist(), level)
                    out.setdefault(f"Δr at {name} similarity", []).append(a - b)
                # Shares of what both reach, so that a rectified unit's floor and a wide-open ceiling compare alike.
                reach = min(a_change.max(), b_change.max())
                if reach <= 0:  # a unit that one of the two never moved the wanted way has no common Δr
                    continue
                for share in SHARES:
                    a = similarity_at(a_kept.tolist(), a_change.tolist(), share * reach)
                    b = similarity_at(b_kept.tolist(), b_change.tolist(), share * reach)
                    out.setdefault(f"similarity at {share:.0%} of the common Δr", []).append(a - b)
            flat = {name: float(np.nanmean(values)) for name, values in out.items()}
            flat["Δr, mean over similarities"] = float(np.mean([flat[f"Δr at {name} similarity"] for name in levels]))
            kept_names = [name for name in flat if name.startswith("similarity at")]
            flat["similarity, mean over Δr"] = float(np.mean([flat[name] for name in kept_names]))
            return flat

        count, images = curves[OURS.label][0].shape[:2]
        point = compare([(unit, np.arange(images)) for unit in range(count)])
        rng = np.random.default_rng(0)
        # All units were shown the same pictures: one draw of images for all of them, or their luck would average out.
        drawn = [
            compare([(int(unit), rows) for unit in rng.integers(count, size=count)])
            for rows in rng.integers(images, size=(self.draws, images))
        ]
        return {
            name: {
                "difference": value,
                "low": float(np.nanpercentile([one[name] for one in drawn], 2.5)),
                "high": float(np.nanpercentile([one[name] for one in drawn], 97.5)),
            }
            for name, value in point.items()
        }

    def frechet(self, row: str, way: str, stage: str, real: Tensor) -> float:
        """Fréchet distance of the last dose's pictures, a fixed number of each unit's, to other real images."""
        rng = np.random.default_rng(0)
        rows = []
        for unit in self.units:
            features = np.concatenate(
                [entry["doses"][-1][stage]["features"] for _, entry in sorted(self.cells[row, way, unit].items())]
            )
            rows.append(features[rng.permutation(len(features))[: len(real) // len(self.units)]])
        pictures = torch.from_numpy(np.concatenate(rows)).float()
        return frechet_distance(pictures, real[: len(pictures)])


def _one_per_seed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({entry["seed"]: entry for entry in entries}.values())


def report(bench: Bench, out: Path, provenance_: dict[str, Any]) -> str:
    """The table as markdown, with its numbers beside it as JSON."""
    entries = [entry for path in sorted(out.glob("cell-*.json")) for entry in json.loads(path.read_text())]
    if not entries:
        raise FileNotFoundError(f"out={str(out)!r} holds no finished cell; run without --report first.")
    tuned = json.loads((out / "tuned.json").read_text())
    table = Table(entries)
    count = 60 * len(
        table.units
    )  # one number of pictures for every Fréchet distance: it is biased by how few there are
    real = bench.features(bench.real[: 2 * count])
    floor = frechet_distance(real[:count], real[count : 2 * count])
    real = real[:count]
    start = {row.label: table.values(row.label, "increase", "similarity", dose=0.0).mean() for row in ROWS}
    seeds = sorted({entry["seed"] for entry in entries})
    numbers: dict[str, Any] = {"rows": [], "matched": {}, "random": table.random, "frechet_floor": floor}
    named = ", ".join(f"{layer} {unit}" for layer, unit in table.units)
    few = [f"{row.label} ({table.seeds(row.label)})" for row in ROWS if table.seeds(row.label) < len(seeds)]
    about = f"""
{len(table.units)} test units ({named}).
{TEST_IMAGES} test images (odd positions of cifar10/test.zip), of which each seed has a third; seeds run: {seeds}.
{REFERENCE_IMAGES} reference images, {FIT_EPOCHS} epochs for every fit, {max(TRACE)} optimisation steps.
{f"Run for fewer seeds: {'; '.join(few)}." if few else ""}

Δr: signed so that positive is the wanted way, against α = 0 of the same landscape and seed, in SDs of the unit over the
reference images. Similarity: cosine to the input in the penultimate features of the third-party ResNet-20; normalised:
0 is a random pair ({table.random:.3f}), 1 the row's own reconstruction. Fréchet distance in the same features, of
{count} pictures, to as many other test images; two such sets of test images are {floor:.2f} apart. Refined: the
same after the DDPM at strength {PixelBackend.defaults.strength}, for the first {REFINED_IMAGES} pictures of each seed
(and, for the distance, of at most {count} pictures). Intervals: 95 %, bootstrap over units first, then images. Edits
are at α = 1.

Tuned on tuning units and images, by Δr where similarity is given up and by similarity at shares of the common Δr,
each in SDs over the settings, with the same grid for both priors ({GRID}):
structured {tuned["structured"]}; standard without the loss in the optimisation {tuned["standard"]}, with it
{tuned["held"]}. Chosen on tuning units without a grid: the structured prior's mean for an optimisation ({REACH:g} prior
means) and the weight of a silent unit's prior ({SILENT}, both priors).
"""
    columns = (
        "direction",
        "method",
        "Δr, SD",
        "Δr, raw",
        "units the right way",
        "similarity",
        "normalised",
        "Fréchet",
        "refined: Δr",
        "refined: similarity",
        "refined: Fréchet",
        "paper: similarity, Δr",
    )
    lines = [
        "# Table 3: CIFAR-10, edits and optimisation in structured and standard landscapes",
        "",
        provenance_line(provenance_),
        about,
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    sd = {(e["layer"], e["unit"]): e["sd"] for e in entries}
    for way in SIGN:
        for row in ROWS:
            change = table.values(row.label, way, "change")
            kept = table.values(row.label, way, "similarity")
            refined = table.values(row.label, way, "change", stage="refined")
            refined_kept = table.values(row.label, way, "similarity", stage="refined")
            delta, alike = interval(change, same_images=True), interval(kept, same_images=True)
            delta_refined = interval(refined, same_images=True)
            normal = (kept.mean() - table.random) / (start[row.label] - table.random)
            raw = np.mean([change[i].mean() * sd[unit] for i, unit in enumerate(table.units)])
            share = float((change.mean(1) > 0).mean())
            frechet = {stage: table.frechet(row.label, way, stage, real) for stage in ("decoded", "refined")}
            paper = PAPER.get((way, row.paper)) if row.paper else None
            numbers["rows"].append(
                {
                    "direction": way,
                    "method": row.label,
                    "change": [delta.mean, delta.low, delta.high],
                    "change_raw": float(raw),
                    "units_right": share,
                    "similarity": [alike.mean, alike.low, alike.high],
                    "normalised_similarity": float(normal),
                    "frechet": frechet["decoded"],
                    "frechet_refined": frechet["refined"],
                    "refined_change": [delta_refined.mean, delta_refined.low, delta_refined.high],
                    "refined_similarity": float(refined_kept.mean()),
                    "change_by_unit": change.mean(1).tolist(),
                }
            )
            cells = (
                way,
                row.label,
                _ci(delta),
                f"{raw:+.4f}",
                f"{share:.0%}",
                f"{alike.mean:.3f}",
                f"{normal:.2f}",
                f"{frechet['decoded']:.2f}",
                _ci(delta_refined),
                f"{refined_kept.mean():.3f}",
                f"{frechet['refined']:.2f}",
                f"{paper[0]:.3f}, {paper[1]:+.3f}" if paper else "",
            )
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## The α = 0 control", "", "| landscape | response against the input, SD | similarity | refined |"]
    lines += ["|---|---|---|---|"]
    for row in (ROWS[0], ROWS[1], ROWS[2], ROWS[6], ROWS[7]):
        bias = table.values(row.label, "increase", "response", dose=0.0) - _inputs(table, row.label)
        off = interval(bias, same_images=True)
        refined_kept = table.values(row.label, "increase", "similarity", stage="refined", dose=0.0).mean()
        numbers.setdefault("reconstruction", {})[row.label] = {
            "bias": [off.mean, off.low, off.high],
            "bias_by_unit": bias.mean(1).tolist(),
            "similarity": float(start[row.label]),
            "similarity_refined": float(refined_kept),
        }
        lines.append(
            f"| {row.landscape}, {row.start} start | {_ci(off)} | {start[row.label]:.3f} | {refined_kept:.3f} |"
        )
    lines += ["", "## Editing against its controls", ""]
    shipped = np.array([table.values(ROWS[1].label, way, "change").mean(1) for way in SIGN])
    shuffled = np.array([table.values(ROWS[2].label, way, "change").mean(1) for way in SIGN])
    wins = float(((shipped > 0) & (shipped > shuffled)).mean())
    numbers["editing"] = {"wins": wins, "mean_change": float(shipped.mean()), "pairs": int(shipped.size)}
    lines.append(
        f"The shipped edit beats α = 0 and the shuffled landscape in {wins:.0%} of {shipped.size} unit × direction "
        f"pairs; mean signed Δr {shipped.mean():+.2f} SD."
    )
    lines += [
        "",
        "## Structured against standard-VAE optimisation, both with the consistency loss, at matched dose",
        "",
    ]
    lines += [
        "Difference, ours minus the rival's.",
        "",
        "| direction | stage | measure | difference | 95 % |",
        "|---|---|---|---|---|",
    ]
    for way in SIGN:
        for stage in ("decoded", "refined"):
            numbers["matched"][f"{way}, {stage}"] = found = table.matched(way, stage, OURS, RIVAL)
            lines += matched_lines(way, stage, found)
    never = numbers["matched"]["increase, decoded"]["never gave up so much"]
    lines += [
        "",
        f"Shares of pictures that never gave up {', '.join(f'{share:.0%}' for share in GIVEN_UP)} (increase): ",
    ]
    lines[-1] += "; ".join(f"{name}: {', '.join(f'{v:.0%}' for v in values)}" for name, values in never.items()) + "."
    lines[-1] += " They count with the most that they reached. Pictures with a common Δr above 0.05 SD: "
    lines[-1] += ", ".join(
        f"{way} {numbers['matched'][f'{way}, decoded']['pictures with a common Δr']:.0%}" for way in SIGN
    )
    lines += [
        "",
        "## The same by means over pictures at the same step",
        "",
        "A picture at the floor loses similarity under N(0, 1) and gains no response. That counts against it here, and",
        "not above, where every picture is taken at the same cost.",
        "",
        "| direction | stage | measure | difference | 95 % |",
        "|---|---|---|---|---|",
    ]
    for way in SIGN:
        for stage in ("decoded", "refined"):
            found = table.matched_means(way, stage)
            numbers.setdefault("matched means", {})[f"{way}, {stage}"] = found
            lines += matched_lines(way, stage, found)
    lines += ["", "## What the structure does, and what the consistency loss", ""]
    lines += [
        "Structure: ours against N(0, 1) in the standard VAE with the consistency loss in the optimisation too. Loss:",
        "that against the standard VAE's optimisation without it. Picture by picture.",
        "",
        "| comparison | direction | stage | measure | difference | 95 % |",
        "|---|---|---|---|---|---|",
    ]
    for label, one, other in (("structure", OURS, HELD), ("loss", HELD, RIVAL)):
        for way in SIGN:
            for stage in ("decoded", "refined"):
                found = table.matched(way, stage, one, other)
                numbers.setdefault("ablation", {})[f"{label}, {way}, {stage}"] = found
                lines += [f"| {label} {line}" for line in matched_lines(way, stage, found) if "mean over" in line]
    pair_entries = read_pairs(out)
    if pair_entries:
        numbers["pairs"] = pair_numbers(pair_entries)
        lines += ["", PAIRS_TITLE, "", *pair_lines(numbers["pairs"])]
    elif (kept := earlier_pairs(out)) is not None:
        numbers["pairs"] = kept
        said = f"Run before the cells above, at {kept['provenance']['commit'][:10]}:"
        lines += ["", PAIRS_TITLE, "", said, provenance_line(kept["provenance"]), "", *pair_lines(kept)]
    seconds = {row.label: np.mean([e["seconds"] for e in entries if e["row"] == row.label]) for row in ROWS}
    lines += ["", "Seconds a unit and direction (" + f"{TEST_IMAGES // 3} images, one thread): "]
    lines[-1] += ", ".join(f"{label}: {value:.1f}" for label, value in seconds.items()) + "."
    numbers["provenance"] = provenance_
    commits = sorted({entry["commit"] for entry in [*entries, *pair_entries]})
    lines += ["", f"Cells were run at {', '.join(commits)}; the report was made at the commit above."]
    if (out / "figure5.png").exists():
        said = "the first test unit of each layer, the first test images; optimisations at 30 % of similarity given up"
        lines += ["", "![Figure 5](figure5.png)", "", f"Figure 5: {said}, refined."]
    lines[2:2] = verdict(numbers)
    write_text(out / "table3.json", json.dumps(numbers, indent=1))
    text = "\n".join(lines) + "\n"
    write_text(out / "table3.md", text)
    return text


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
    end = next(row for row in range(start, len(lines)) if lines[row].startswith("Seconds a unit"))
    said = f"Run anew after the cells above, at {', '.join(sorted({entry['commit'] for entry in entries}))}:"
    lines[start:end] = [PAIRS_TITLE, "", said, provenance_line(provenance_), "", *pair_lines(numbers["pairs"]), ""]
    head = next(row for row, line in enumerate(lines) if line.startswith("`python"))
    lines[2:head] = verdict(numbers)
    write_text(out / "table3.json", json.dumps(numbers, indent=1))
    text = "\n".join(lines)
    write_text(out / "table3.md", text)
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
    for key, found in numbers["matched"].items():
        for name in ("Δr, mean over similarities", "similarity, mean over Δr"):
            one = found[name]
            text = f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}] (wanted: above zero)."
            said[f"Structured against standard-VAE optimisation, {key}: {name} {text}"] = one["low"] > 0
    for key, found in numbers.get("ablation", {}).items():
        if key.startswith("structure"):
            for name in ("Δr, mean over similarities", "similarity, mean over Δr"):
                one = found[name]
                text = f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}] (not asked for: above zero)."
                where = key.removeprefix("structure, ")
                said[f"The same, and the rival has the loss in its optimisation too, {where}: {name} {text}"] = (
                    one["low"] > 0
                )
    for name in ("of mean changes", "of single pictures") if "pairs" in numbers else ():
        one = numbers["pairs"][name]
        text = f"{one['both over single']:.2f} [{one['low']:.2f}, {one['high']:.2f}] of a single unit's (wanted: 0.50)."
        count = numbers["pairs"]["pairs"]
        said[f"Two units in one latent, {count} pairs: cross-talk {name} is {text}"] = one["both over single"] <= 0.5
    return said


def verdict(numbers: dict[str, Any]) -> list[str]:
    """What was hoped for and is not seen, first; then what is."""
    said = checks(numbers)
    failed, held = ([f"- {text}" for text, ok in said.items() if ok is wanted] for wanted in (False, True))
    failed = failed or ["- Nothing of what was asked."]
    return ["**What fails, first.**", "", *failed, "", "**What holds.**", "", *held, ""]


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
    signed = [
        SIGN[e["direction"]] * np.mean(e["target"]) for entry in entries for e in entry["edits"] if e["kind"] == "both"
    ]
    found["change of the target, both"] = float(np.mean(signed))
    signed = [
        SIGN[e["direction"]] * np.mean(e["target"])
        for entry in entries
        for e in entry["edits"]
        if e["kind"] == "single"
    ]
    found["change of the target, single"] = float(np.mean(signed))
    return found


def pair_lines(found: dict[str, Any]) -> list[str]:
    about = f"""{found["pairs"]} pairs of conv3 units, natural correlations {min(found["correlations"])} to
{max(found["correlations"])}; 100 test images, α = 1, both directions. Signed Δr of the target:
{found["change of the target, both"]:+.2f} SD with two blocks, {found["change of the target, single"]:+.2f} SD alone."""
    columns = (
        "Δ other / Δ target, sizes",
        "landscape of one unit",
        "two blocks",
        "two blocks / one unit",
        "95 % over pairs",
    )
    lines = [about, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in ("of mean changes", "of single pictures"):
        one = found[name]
        lines.append(
            f"| {name} | {one['single']:.3f} | {one['both']:.3f} | {one['both over single']:.2f} | "
            f"{one['low']:.2f} to {one['high']:.2f} |"
        )
    return lines


def _inputs(table: Table, row: str) -> np.ndarray:
    return np.array(
        [
            np.concatenate([entry["input"] for _, entry in sorted(table.cells[row, "increase", unit].items())])
            for unit in table.units
        ]
    )


def _ci(value: Any) -> str:
    return f"{value.mean:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def figure(bench: Bench, tuned: dict[str, Any], path: Path, pictures: int = 6) -> None:
    """Figure 5: the first test unit of each layer and the first test images, nothing picked.

    Optimisations are shown, picture by picture, at the last scored step before it gives up 30 % of its similarity, so
    that both priors are seen at the same cost. Everything is refined; below each picture stands its Δr.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images = bench.test[0::3][:pictures]
    start = bench.features(images)
    columns: list[tuple[str, Tensor, list[str]]] = []
    for layer in TEST_UNITS:
        units = bench.units(layer)[1][: TEST_UNITS[layer]]
        made = landscapes(bench, layer, units, 0)
        target = bench.target(layer, units)
        scaler = ResponseScaler.fit(target.responses(bench.reference), target.names)
        random = bench.similarity(bench.features(bench.test).roll(1, 0), bench.features(bench.test)).mean().item()
        zero_kept = start
        for row in (None, ROWS[1], OURS, RIVAL):
            method = made[row.start, row.landscape] if row else made["consistent", "shipped"]
            landscape = method.landscape_
            z, _ = landscape.encode(images)
            unedited = landscape.decode(z)
            base = scaler.standardise(target.responses(bench.refine(unedited, 0)))[:, 0]
            if row is None:
                name = f"{layer}, unit {units[0]}"
                columns.append((f"{name}\ninput", images, [""] * pictures))
                columns.append((f"{name}\nα = 0", bench.refine(unedited, 0), ["0.0"] * pictures))
                zero_kept = bench.similarity(bench.features(unedited), start)
                continue
            for way in SIGN:
                if row.technique == "edit":
                    shown = landscape.decode(method.latents(images, {0: way}, alpha=1.0)[1])
                else:
                    settings = optimize_settings(row, way, tuned, max(TRACE))
                    doses = torch.stack(list(trajectories(bench, method, images, 0, way, settings).values()))
                    kept = torch.stack([bench.similarity(bench.features(dose), start) for dose in doses])
                    lost = (kept[:1] - kept) / (zero_kept.mean() - random)
                    spent = (lost >= 0.3).int()
                    last = torch.where(spent.any(0), spent.argmax(0) - 1, len(doses) - 1).clamp_min(0)
                    shown = doses[last, torch.arange(pictures)]
                refined = bench.refine(shown, 0)
                change = scaler.standardise(target.responses(refined))[:, 0] - base
                label = {ROWS[1].label: "edit", OURS.label: "our optim.", RIVAL.label: "standard optim."}[row.label]
                columns.append((f"{label}\n{way}", refined, [f"{value:+.1f}" for value in change.tolist()]))
    per_layer = len(columns) // len(TEST_UNITS)
    page = Figure(figsize=(1.05 * pictures + 1.3, 1.2 * len(columns)), dpi=110)
    FigureCanvasAgg(page)
    axes = page.subplots(len(columns), pictures)
    for index, (name, shown, notes) in enumerate(columns):
        for column in range(pictures):
            axis = axes[index][column]
            axis.imshow(shown[column].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(notes[column], fontsize=8, labelpad=1)
        bold = "bold" if index % per_layer == 0 else "normal"
        axes[index][0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8, fontweight=bold)
    page.tight_layout(pad=0.4)
    page.savefig(path)


def save_cell(path: Path, entries: Iterator[dict[str, Any]], commit: str) -> None:
    write_text(path, json.dumps([{**entry, "commit": commit} for entry in entries]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pixel-vae", type=Path, help="standard CVAE trained with w_consistency=0; pairs need none")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--figure", action="store_true", help="draw figure 5 into OUT/figure5.png")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--published-seeds", type=int, default=3, help="seeds that the published optimisation rows get")
    parser.add_argument("--only", choices=("pairs", "edits", "optimisations"), help="run these cells alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", type=int, help="run only every workers-th job, this one first (used by --workers)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    said = provenance(seed=0)
    if not args.report and not args.figure and args.part is None and args.workers > 1:
        commands = [[sys.executable, *sys.argv, "--part", str(part)] for part in range(args.workers)]
        running = [subprocess.Popen(command) for command in commands]
        if any(process.wait() for process in running):
            raise SystemExit("a worker failed; what it finished is kept, run the same command again.")
        if args.tune:
            merge_tuning(args.out)
            return
        args.report = True
    bench = Bench(args.data, args.pixel_vae)
    steps = max(TRACE)
    if args.tune:
        for index, prior in enumerate(("structured", "standard")):
            path = args.out / f"tuning-{prior}.json"
            if index % args.workers == (args.part or 0) % args.workers and not path.exists():
                write_text(path, json.dumps(tune(bench, steps, prior), indent=1))
        if args.workers == 1:
            merge_tuning(args.out)
        return
    if args.report and args.only == "pairs":
        print(report_pairs(args.out, said))
        return
    if args.report:
        print(report(bench, args.out, said))
        return
    tuned = {} if args.only == "pairs" else json.loads((args.out / "tuned.json").read_text())
    if args.figure:
        figure(bench, tuned, args.out / "figure5.png")
        return
    part = args.part or 0
    path = args.out / f"pairs-{part}-of-{args.workers}.json"
    if not path.exists() and args.only in (None, "pairs"):
        save_cell(path, pair_cell(bench, part, args.workers), said["commit"])
    jobs = [(what, layer, seed) for what in WHAT for seed in range(args.seeds) for layer in TEST_UNITS]
    # A conv3 cell costs twice an fc1 cell: odd seeds swap who begins, so that two workers end together.
    for what, layer, seed in [job for index, job in enumerate(jobs) if (index + job[2]) % args.workers == part]:
        path = args.out / f"cell-{layer}-{seed}-{what}.json"
        if not path.exists() and args.only in (None, what):
            entries = cell(bench, layer, seed, what, tuned, steps, seed < args.published_seeds)
            save_cell(path, entries, said["commit"])


if __name__ == "__main__":
    main()
