"""Units whose preference is known: functions of real embeddings, and what noisy recordings of them would say."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.common import package as vl
from benchmarks.common.judges import IMAGENET_MEAN, IMAGENET_STD, load_squeezenet
from benchmarks.common.script import read

PLAN = Path(__file__).with_name("units.json")


def load_plan() -> dict[str, Any]:
    """Families, SNRs, sizes and seeds, committed before the first run."""
    return read(PLAN)


@dataclass(frozen=True)
class Space:
    """Embeddings of real images, divided into what is fitted on, what is retrieved from, and what is edited."""

    fit: Tensor  # (N, D) that methods may learn from
    pool: Tensor  # (M, D) natural images that no method has seen
    tune: Tensor  # (n, D) to edit while settings are chosen
    test: Tensor  # (n, D) to edit for the table
    classes: Tensor  # (C, D) mean embedding of each class of the fitted images: where preferences are planted


def load_space(data: Path, cache: Path, plan: dict[str, Any]) -> Space:
    """The plan's embeddings, centred and reduced on the images that are fitted on; the network runs once."""
    said = plan["embedding"]
    file = cache / f"planted_embeddings_{said['pixels']}px.safetensors"
    if file.exists():
        raw = vl.load_state(file, "planted embeddings")
    else:
        raw = _embed(data, said)
        vl.save_state(file, "planted embeddings", raw)
    fit = raw["fit"].double()
    mean = fit.mean(0)
    components = torch.linalg.svd(fit - mean, full_matrices=False).Vh[: said["dimensions"]]
    scale = ((fit - mean) @ components.T).var(0).mean().sqrt()

    def reduce(part: Tensor) -> Tensor:
        return (((part.double() - mean) @ components.T) / scale).float()

    reduced = {name: reduce(raw[name]) for name in ("fit", "pool", "tune", "test")}
    labels = raw["labels"]
    classes = torch.stack([reduced["fit"][labels == label].mean(0) for label in labels.unique().tolist()])
    return Space(**reduced, classes=classes)


def _embed(data: Path, said: dict[str, Any]) -> dict[str, Tensor]:
    network, normalised = load_squeezenet(data), vl.Preprocess(None, IMAGENET_MEAN, IMAGENET_STD)

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        parts = []
        for part in images.split(64):
            pixels = interpolate(part.float() / 255, size=said["pixels"], mode="bilinear", antialias=True)
            parts.append(network.features(normalised(pixels)).mean((2, 3)))
        return torch.cat(parts)

    folder = data / "tiny_imagenet"
    found: dict[str, Tensor] = {}
    for name in ("fit", "pool"):
        images, labels, _ = vl.read_images(folder / said[name]["zip"], 64)
        rows = slice(None, None, said[name]["every"])
        found[name] = embed(images[rows])
        if name == "fit":
            found["labels"] = labels[rows]
    images, _, _ = vl.read_images(folder / said["inputs"]["zip"], 64)
    for name, start in (("tune", 0), ("test", 1)):  # even positions tune, odd ones test
        own = images[start::2]
        found[name] = embed(own[:: len(own) // said["inputs"]["count"]][: said["inputs"]["count"]])
    return found


@dataclass(frozen=True)
class Planted:
    family: str  # its name in the plan
    filters: Tensor  # (F, D), each projection has SD 1 over the fitted images
    threshold: float | None  # in those SDs; None leaves the projection as it is
    inhibited: bool  # the second filter takes away what the first one gives
    scale: float = 1.0  # SD of the noiseless response over the fitted images, which becomes 1

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings (N, D) to noiseless responses (N,), in SDs over the fitted images."""
        drive = x @ self.filters.T
        if self.threshold is not None:
            drive = (drive - self.threshold).clamp_min(0)
        found = drive[:, 0] - drive[:, 1] if self.inhibited else drive.amax(1)
        return found / self.scale


def plant(family: str, seed: int, space: Space, plan: dict[str, Any]) -> Planted:
    """The unit of this family and seed.

    Filters are random directions of the first components, or mean embeddings of random classes, drawn again until their
    cosines are as unlike as the family says.
    """
    said = plan["families"][family]
    draw = torch.Generator().manual_seed(seed * 1009 + sorted(plan["families"]).index(family))
    dims = space.fit.shape[1]
    while True:
        if said["of"] == "random":
            filters = torch.zeros(said["filters"], dims)
            kept = min(plan["filter_components"], dims)
            filters[:, :kept] = torch.randn(said["filters"], kept, generator=draw)
        else:
            filters = space.classes[torch.randperm(len(space.classes), generator=draw)[: said["filters"]]]
        unit = vl.unit_rows(filters)
        cosines = (unit @ unit.T).fill_diagonal_(-1)
        if cosines.max() < said.get("cosine_below", 1.0):
            break
    filters = filters / (space.fit @ filters.T).std(0)[:, None]
    unit = Planted(family, filters, said["threshold"], bool(said.get("inhibited")))
    return replace(unit, scale=unit(space.fit).std().item())


def record(unit: Planted, x: Tensor, snr: float, seed: int) -> Tensor:
    """Noisy responses (N, 1) to embeddings (N, D): variance 1 of signal, 1 / ``snr`` of noise."""
    noise = torch.randn(len(x), generator=torch.Generator().manual_seed(seed * 7919 + 1))
    return (unit(x) + noise / snr**0.5)[:, None]


def name_of_space(space: Space) -> str:
    """Fingerprint of the embeddings, so that results of other ones are not mixed."""
    return vl.fingerprint({"fit": space.fit, "pool": space.pool, "test": space.test})
