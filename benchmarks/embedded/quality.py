"""How good embedder and generator are, and what they cost."""

import io
import resource
import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmarks.common.bench import Bench, EmbedderOnly, rounded, seen_by
from benchmarks.common.judges import load_squeezenet
from benchmarks.common.networks import NETWORKS, load_units
from benchmarks.embedded.edits import generated
from vislens_interp.images import resize, to_pil
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.metrics.realism import frechet_distance, kernel_distance
from vislens_interp.training.data import pixels, read_images
from vislens_interp.training.probe import knn_accuracy, linear_probe, retrieval


def quality_embedder(bench: Bench, bank: int) -> dict[str, Any]:
    """Linear probe and 20-NN top-1 on the test images, from ``bank`` training images."""
    parts = [read_images(bench.imagenet / f"train_{part}.zip", 64) for part in (0, 1)]
    images, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(2))[:bank]
    known, asked = bench.embed(pixels(images[rows])), bench.embed(bench.test)
    return {
        "bank": len(rows),
        "test": len(asked),
        "linear_probe_top1": linear_probe(known, labels[rows], asked, bench.labels["test"]),
        "knn20_top1": knn_accuracy(known, labels[rows], asked, bench.labels["test"]),
        "parameters": sum(p.numel() for p in bench.embedder.embedder.parameters()),
    }


def jpeg(images: Tensor, quality: int = 20) -> Tensor:
    """The same images through a JPEG file."""
    arrays = []
    for picture in to_pil(images):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        with Image.open(file) as again:
            arrays.append(np.asarray(again.convert("RGB")))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def quality_generator(bench: Bench, backend: Any, count: int) -> dict[str, Any]:
    """Do pictures have the embedding they were asked for, do they look like photographs, and are they new?"""
    wanted = bench.embed(bench.test)[:count]
    made = generated(bench, backend, count)
    obtained = bench.embedder(made)
    cosine = cosine_similarity(obtained, wanted)  # embeddings are standardised: this is the centred cosine
    random = cosine_similarity(obtained.roll(1, 0), wanted)
    rest = bench.test[count : 2 * count]
    judge = load_squeezenet(bench.data)
    against = seen_by(judge, rest)
    from torchvision.transforms.functional import gaussian_blur

    pairs = {
        "generated": made,
        "floor: training images": bench.reference[: len(rest)],
        "floor: the same test images": bench.test[: len(rest)],
        "blurred copies (sigma 1 px)": gaussian_blur(bench.test[: len(rest)], [9, 9], [1.0, 1.0]),
        "JPEG-20 copies": jpeg(bench.test[: len(rest)]),
    }
    distances: dict[str, Any] = {}
    for label, pictures in pairs.items():
        features = seen_by(judge, pictures[: len(rest)])
        enough = len(features) > features.shape[1]
        distances[label] = {
            "images": len(features),
            "frechet": frechet_distance(features, against) if enough else None,
            "kernel": kernel_distance(features, against),
        }
        print(label, distances[label], flush=True)
    train = torch.cat([read_images(bench.imagenet / f"train_{part}.zip", 64)[0] for part in (0, 1)])
    small = torch.cat([resize(pixels(part), 16).flatten(1) for part in train.split(2000)])
    near = {
        label: pixel_neighbour(resize(pictures, 16).flatten(1), small)
        for label, pictures in {"generated": made, "test images": bench.test[:count]}.items()
    }
    return {
        "images": count,
        "cosine": rounded(cosine),
        "random": rounded(random),
        "retrieval": retrieval(obtained, wanted),
        "distances": distances,
        "nearest_training_image": {label: rounded(value) for label, value in near.items()},
        "sampling": {"steps": backend.generator.steps, "guidance": backend.generator.guidance},
    }


def pixel_neighbour(queries: Tensor, bank: Tensor) -> Tensor:
    """Root mean squared pixel difference to the nearest of the bank: (N,)."""
    return torch.cat([torch.cdist(part, bank).min(1).values for part in queries.split(200)]) / queries.shape[1] ** 0.5


def cost_stage(bench: Bench, stage: str) -> dict[str, Any]:
    """Seconds of one stage and the peak memory of this process, which does nothing else."""
    name = "vit_tiny64" if "vit_tiny64" in bench.present() else "squeezenet"
    layer = list(NETWORKS[name].layers)[1]
    images = bench.reference[:1000]
    target = bench.target(name, layer, load_units()[name][layer][:1])
    count = {"embed": 1000, "read": 1000, "fit": len(bench.reference), "generate": 8}[stage]
    if stage == "fit":
        bench.embed(bench.reference)
        responses = bench.responses(name, layer, bench.reference)[:, :1]
    elif stage == "generate":
        backend, x = bench.backend(), bench.embedder(images[:8])
    began = time.monotonic()
    if stage == "embed":
        bench.embedder(images)
    elif stage == "read":
        target.responses(images)
    elif stage == "fit":
        method = LandscapeEdit()  # with the shuffled fits behind the evidence, as a lens does it
        method.fit(target, EmbedderOnly(bench.embedder, bench.embedder(bench.reference)), bench.reference, responses)
    else:
        backend.decode(x, init_image=None, strength=1.0, seeds=[42] * 8)
    return {
        "stage": stage,
        "images": count,
        "seconds": time.monotonic() - began,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "network": f"{name} {layer}",
    }
