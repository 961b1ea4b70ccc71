"""What every part of Table 3 shares: data, networks, landscapes, and edits and optimisations in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.judges import load_judge
from benchmarks.common.script import shuffled
from benchmarks.table3 import rows as plan
from benchmarks.table3.rows import FIT, Row


class FromPixelLoss(vl.PixelBackend):
    """The pixel backend whose fits start from the CVAE that was trained with a pixel loss alone: a file of weights."""

    def __init__(self, device: torch.device, weights: Path) -> None:
        super().__init__(device)
        self.weights = weights

    def vae(self) -> vl.BottleneckCVAE:
        vae = vl.BottleneckCVAE()
        vae.load_state_dict(load_file(self.weights))
        return vae.to(self.device).to(memory_format=torch.channels_last)


class Material:
    """The data, the network, the judge and the shared VAEs, loaded once a process.

    Images are on the CPU, features and responses too; networks are on ``device``.
    """

    def __init__(self, data: Path, pixel_vae: Path | None, device: str = "cpu") -> None:
        self.device = torch.device(device)
        archive = data / "cifar10"
        images, _, _ = vl.read_images(archive / "train.zip", 32)
        rows = shuffled(len(images), 0)[: plan.REFERENCE_IMAGES]
        self.reference = vl.pixels(images[rows])
        test, _, _ = vl.read_images(archive / "test.zip", 32)
        odd, even = vl.pixels(test[1::2]), vl.pixels(test[::2])
        pick = torch.Generator().manual_seed(1)
        order = torch.randperm(len(odd), generator=pick)
        self.test, self.real = odd[order[: plan.TEST_IMAGES]], odd[order[plan.TEST_IMAGES :]]
        self.tuning = even[torch.randperm(len(even), generator=pick)[:20]]
        self.judge = load_judge(data).to(self.device)
        self.network = vl.zoo.load("cifar10_convnet").to(self.device)
        self.refiner = vl.PixelBackend(self.device).refiner
        self.pixel_vae = pixel_vae

    def backend(self, start: str) -> vl.PixelBackend:
        """The pixel backend with one of the two shared VAEs."""
        if start != "pixel":
            return vl.PixelBackend(self.device)
        if self.pixel_vae is None:
            raise ValueError("--pixel-vae is not given; expected a standard CVAE trained with w_consistency=0.")
        return FromPixelLoss(self.device, self.pixel_vae)

    def target(self, layer: str, units: list[int]) -> vl.LayerTarget:
        return vl.LayerTarget(self.network, layer, units)

    def units(self, layer: str) -> tuple[list[int], list[int]]:
        """Tuning units, the first of one fixed shuffle, and test units, the next that are not dead."""
        order = shuffled(plan.WIDTH[layer], 0).tolist()
        responses = self.target(layer, order).responses(self.reference[:2000])
        alive = ((responses > 0).float().mean(0) >= plan.ALIVE).tolist()
        tuning, rest = slice(plan.TUNING_UNITS), slice(plan.TUNING_UNITS, None)
        first, others = ([u for u, ok in zip(order[p], alive[p], strict=True) if ok] for p in (tuning, rest))
        return first, others

    def features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.judge.features(part) for part in images.split(250)])

    def similarity(self, features: Tensor, start: Tensor) -> Tensor:
        return torch.nn.functional.cosine_similarity(features, start)

    def refine(self, images: Tensor, seed: int) -> Tensor:
        # Every image of a seed meets the same noise, as in the paper.
        return self.refiner(images, strength=vl.PixelBackend.defaults.edit.strength, seeds=[42 + seed] * len(images))


@dataclass(frozen=True)
class Cell:
    """One landscape of the table: whose units share it, and how it is made."""

    layer: str
    group: int
    seed: int
    start: str
    landscape: str

    def __str__(self) -> str:
        return f"{self.layer}-{self.group}-{self.seed}-{self.start}-{self.landscape}"

    def units(self, bench: Material) -> list[int]:
        size = plan.TOGETHER[self.layer]
        return bench.units(self.layer)[1][self.group * size : (self.group + 1) * size]


def cells(seeds: int) -> list[Cell]:
    """Every landscape of the table: first what the main comparison needs, last what stands beside it as published."""
    kinds = [("consistent", kind) for kind in ("standard", "shipped", "shuffled")]
    kinds += [("pixel", kind) for kind in ("published", "standard")]
    return [
        Cell(layer, group, seed, *kind)
        for kind in kinds
        for layer, count in plan.TEST_UNITS.items()
        for group in range(count // plan.TOGETHER[layer])
        for seed in range(seeds)
    ]


def fit(bench: Material, cell: Cell, path: Path | None = None) -> vl.LandscapeMethod:
    """The landscape of a cell, read from ``path`` if it is there, else fitted and written there.

    Each is fitted for the same number of epochs on the same images.
    """
    units = cell.units(bench)
    target, backend = bench.target(cell.layer, units), bench.backend(cell.start)
    published = {"closed_form_init": False, "w_consistency": 0.0, "block_dim": 192 // len(units)}
    given = published if cell.landscape == "published" else {}
    method = vl.LandscapeEdit(seed=cell.seed, shuffles=0, **FIT, **given).bind(target, backend)
    if path is not None and path.exists():
        method.landscape_ = vl.Landscape.load(path)
        method.landscape_.vae.to(bench.device)
        return method
    responses = target.responses(bench.reference)
    if cell.landscape == "standard":
        method.landscape_ = standard(bench, method, responses, cell.start, cell.seed)
    else:
        if cell.landscape == "shuffled":
            order = shuffled(len(responses), cell.seed + 99)
            responses = responses[order]
        method.fit(target, backend, bench.reference, responses)
    if path is not None:
        method.landscape_.save(path)
    return method


def standard(bench: Material, method: vl.LandscapeMethod, responses: Tensor, start: str, seed: int) -> vl.Landscape:
    """The shared VAE trained on under N(0, 1) for as many epochs as the structured ones."""
    rival = vl.StandardVAE(seed=seed, **FIT, **({} if start == "consistent" else {"w_consistency": 0.0}))
    return rival.fit(method.target, method.backend, bench.reference, responses).landscape_


def centroids(landscape: vl.Landscape, unit: int) -> dict[vl.Sense, Tensor]:
    """The algebraic twin: means of latents weighted by r·|r|, one a direction."""
    r = landscape.scaler.standardise(landscape.responses)[:, unit]
    weights = {"increase": (r * r.abs()).clamp_min(0), "decrease": (-r * r.abs()).clamp_min(0)}
    return {way: (landscape.latents * w[:, None]).sum(0) / w.sum() for way, w in weights.items()}


def optimize_settings(row: Row, way: vl.Sense, tuned: dict[str, Any], steps: int) -> dict[str, Any]:
    """The paper's numbers for the published rows; what tuning chose, from one grid for both priors, for the others."""
    if row.tuned is None:
        return complete({"lr": 0.1, "w_kld": 0.001, "move": "block"}, row.prior, steps)
    return complete(tuned[row.tuned][way], row.prior, steps)


def complete(chosen: dict[str, Any], prior: Literal["structured", "standard"], steps: int) -> dict[str, Any]:
    """Every setting of an optimisation: nothing is left to the backend's defaults, which are ours."""
    ours = prior == "structured" and chosen.get("move") != "block"
    silent = plan.SILENT if ours or chosen.get("w_consistency", 0.0) > 0 else 0.0
    fixed = {"steps": steps, "prior": prior, "prior_mean_scale": plan.REACH if ours else 1.0, "w_silent": silent}
    return {"scale": "latent", "w_consistency": 0.0, "noise": 0.0, "move": "all"} | fixed | chosen


def trajectories(
    method: vl.LandscapeMethod, images: Tensor, unit: int, way: vl.Sense, settings: dict[str, Any]
) -> dict[int, Tensor]:
    """Decoded images (N, 3, 32, 32) at the steps of ``TRACE``."""
    together = {**settings, "chunk": len(images)}
    optimization = vl.LandscapeOptimization(optimize=together).share(method)
    x = method.backend.encode(images)
    z, sigma = method.landscape_.encode(x)
    goal = method.landscape_.goal(z, {unit: way})
    seen: dict[int, list[Tensor]] = {}

    def trace(step: int, latent: Tensor) -> None:
        if step in plan.TRACE:
            seen.setdefault(step, []).append(latent.clone())

    optimization.optimize(z, sigma, goal, {unit: way}, x=x, trace=trace)
    return {step: method.landscape_.decode(torch.cat(parts)) for step, parts in seen.items()}


def edits(method: vl.LandscapeMethod, images: Tensor, unit: int, way: vl.Sense, technique: str) -> dict[float, Tensor]:
    """Decoded images (N, 3, 32, 32) at the weights of ``ALPHAS`` and unedited."""
    if technique == "edit":
        latents = {alpha: method.latents(images, {unit: way}, alpha=alpha)[1] for alpha in (0.0, *plan.ALPHAS)}
    else:
        z, _ = method.landscape_.encode(method.backend.encode(images))
        goal = centroids(method.landscape_, unit)[way].to(z)
        latents = {alpha: vl.interpolate(z, goal, alpha) for alpha in (0.0, *plan.ALPHAS)}
    return {alpha: method.landscape_.decode(z) for alpha, z in latents.items()}
