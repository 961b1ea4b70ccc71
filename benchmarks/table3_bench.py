"""What every part of Table 3 shares: data, networks, landscapes, and edits and optimisations in them."""

from pathlib import Path
from typing import Any, Literal

import torch
from judges import load_judge
from safetensors.torch import load_file
from table3_rows import (
    ALIVE,
    ALPHAS,
    FIT,
    REACH,
    REFERENCE_IMAGES,
    SILENT,
    TEST_IMAGES,
    TRACE,
    TUNING_UNITS,
    WIDTH,
    Row,
)
from torch import Tensor

from vislens_interp import zoo
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.baselines.standard_vae import StandardVAE
from vislens_interp.landscape.edit import interpolate
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import Direction
from vislens_interp.landscape.vae import BottleneckCVAE
from vislens_interp.method import LandscapeMethod
from vislens_interp.precision import mixed_precision
from vislens_interp.targets import LayerTarget
from vislens_interp.training.data import pixels, read_images


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
    plain = {"scale": "latent", "w_consistency": 0.0, "noise": 0.0, "move": "all"}
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
