"""Edits of one network's layer, judged by natural images or by generated pictures."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.common.bench import Bench, EmbedderOnly, Recorded, nearest, rounded, seen_by
from benchmarks.common.edit_methods import (
    ANGLES,
    JOB_METHODS,
    METHODS,
    NATURAL,
    SIGN,
    UNIT,
    correlation_of,
    fit_with_fewer_modes,
    set_angle,
)
from benchmarks.common.judged_edits import NATURAL_IMAGES, Eyes, judged_edits
from benchmarks.common.networks import load_units
from vislens_interp.files import write_atomically
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.math import angle_between
from vislens_interp.methods.natural_images import NaturalImages
from vislens_interp.training.data import pixels


def retrieval_cell(
    bench: Bench, name: str, layer: str, *, tune: bool, units: int, images: int, methods: dict[str, Callable[[], Any]]
) -> Iterator[dict[str, Any]]:
    """One record for each unit, method, direction and angle; edits are judged by the images they come to lie among."""
    gallery_images = bench.tuning if tune else bench.test
    gallery, reference_x = bench.embed(gallery_images), bench.embed(bench.reference)
    backend = EmbedderOnly(bench.embedder, reference_x)
    reference = bench.responses(name, layer, bench.reference)
    known = bench.responses(name, layer, gallery_images)
    candidates = load_units()[name][layer]
    own = torch.arange(images)
    x = gallery[own]
    cosine_0, rows_0 = nearest(x, gallery, own)
    for column in bench.units(name, layer, reference, tune=tune, count=units):
        responses = reference[:, [column]]
        scaler = ResponseScaler.fit(responses)
        standard = scaler.standardise(known[:, [column]])[:, 0]
        before = standard[rows_0].mean(1)
        for label, build in methods.items():
            began = time.monotonic()
            method = build()
            fit_with_fewer_modes(method, Recorded([str(candidates[column])]), backend, bench.reference, responses)
            seconds = time.monotonic() - began
            for angle in ANGLES:
                set_angle(method, angle)
                for way in SIGN:
                    moved = method.embeddings(x, {0: way})
                    cosine, rows = nearest(moved, gallery, own)
                    yield {
                        "network": name,
                        "layer": layer,
                        "unit": candidates[column],
                        "method": label,
                        "direction": way,
                        "angle": angle,
                        "reached": rounded(angle_between(moved, x)),
                        "change": rounded(SIGN[way] * (standard[rows].mean(1) - before)),
                        "natural": rounded(cosine.mean(1)),
                        "seconds": seconds,
                        "correlation": correlation_of(method),
                    }
    print(f"{name} {layer}: untouched images have {cosine_0.mean():.2f} to their five nearest", flush=True)


def job_cell(
    bench: Bench,
    backend: Any,
    name: str,
    layer: str,
    column: int,
    seed: int,
    images: int,
    angle: float,
    labels: Sequence[str] = JOB_METHODS,
) -> dict[str, Any]:
    """One unit and seed."""
    judge = bench.judge(name)
    unit = load_units()[name][layer][column]
    target = bench.target(name, layer, [unit])
    responses = bench.responses(name, layer, bench.reference)[:, [column]]
    scaler = ResponseScaler.fit(responses)
    pictures = bench.test[:images]
    for remembered in (bench.reference, pictures):
        bench.embed(remembered)
    eyes = Eyes(
        lambda made: {UNIT: scaler.standardise(target.responses(made))[:, 0]},
        lambda made: seen_by(judge, made),
        seen_by(judge, bench.test[images : 11 * images]),
    )
    methods = {label: METHODS[label]() for label in labels} | {NATURAL: NaturalImages(NATURAL_IMAGES)}
    noise = [1000 * seed + row for row in range(images)]
    about = f"{name} {layer} {unit} seed {seed}"
    reference = (bench.reference, responses)
    said = {"network": name, "layer": layer, "unit": unit, "seed": seed, "angle": angle, "images": images}
    return said | judged_edits(eyes, methods, target, backend, reference, pictures, noise, angle, about)


def generated(bench: Bench, backend: Any, count: int, chunk: int = 50) -> Tensor:
    """One picture from the embedding of each of the first ``count`` test images, made and kept a chunk at a time."""
    x = bench.embed(bench.test)[:count]
    made = []
    for start in range(0, count, chunk):
        file = bench.out / f"generated-{start:04d}.safetensors"
        if not file.is_file():
            part = x[start : start + chunk]
            seeds = list(range(start, start + len(part)))
            pictures = backend.decode(part, init_image=None, strength=1.0, seeds=seeds).cpu()
            stored = {"images": (pictures * 255).round().byte().contiguous()}
            write_atomically(file, lambda temporary, stored=stored: save_file(stored, temporary))
            print(f"generated {start + len(part)} of {count}", flush=True)
        made.append(pixels(load_file(file)["images"]))
    return torch.cat(made)[:count]
