"""Edits of one network's layer, judged by natural images or by generated pictures."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from embedded_bench import Bench, EmbedderOnly, Recorded, nearest, rounded, seen_by, unit_rows
from embedded_methods import (
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
from embedded_networks import load_units
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vislens_interp.files import write_atomically
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.math import angle_between
from vislens_interp.methods.controls import Unedited
from vislens_interp.methods.natural_images import NaturalImages, RandomImages
from vislens_interp.metrics.realism import kernel_distance
from vislens_interp.targets.target import Target
from vislens_interp.training.data import pixels

NATURAL_IMAGES = 10


def retrieval_cell(
    bench: Bench,
    name: str,
    layer: str,
    *,
    tune: bool,
    units: int,
    images: int,
    methods: dict[str, Callable[[], Any]],
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


def spread_of(features: Tensor, centre: Tensor) -> float:
    """How unlike one another the pictures are: 1 - mean cosine over pairs, features around ``centre``."""
    rows = unit_rows(features - centre)
    cosine = rows @ rows.T
    return (1 - (cosine.sum() - cosine.diagonal().sum()) / (len(rows) * (len(rows) - 1))).item()


@dataclass(frozen=True)
class Eyes:
    """Who looks at the pictures that are made for one unit.

    Args:
        answers: Images to every judge's response to them, (N,), standardised; by the judge's name.
        sees: Images to features (N, D), on the CPU, of a network that is neither the target nor one of the judges.
        natural: (M, D), those of natural images that are not edited.
    """

    answers: Callable[[Tensor], dict[str, Tensor]]
    sees: Callable[[Tensor], Tensor]
    natural: Tensor


def judged_edits(
    eyes: Eyes,
    methods: dict[str, Any],
    target: Target,
    backend: Any,
    reference: tuple[Tensor, Tensor],
    pictures: Tensor,
    noise: list[int],
    angle: float,
    about: str,
) -> dict[str, Any]:
    """Every method for one unit on the same pictures, with the same noise, turned by the same angle.

    Args:
        eyes: Who judges.
        methods: By their names; they are fitted here. Natural images among them are shown, not edited.
        target: The unit.
        backend: Embeds and generates.
        reference: Images to learn from, and their responses (N, 1).
        pictures: Images to edit.
        noise: A seed for each.
        angle: Degrees.
        about: Printed with each method's seconds.

    Returns:
        JSON values: what judges say of the pictures (``input``), of α = 0 (``zero``), and of every method and
        direction, whose ``changes`` are against α = 0, signed, by judge.
    """
    natural = eyes.natural
    centre = natural.mean(0)

    def near(features: Tensor) -> Tensor:
        return nearest(features - centre, natural - centre)[0].mean(1)

    control = Unedited().fit(target, backend, *reference)
    zero_images = control.generate(pictures, {}, seeds=noise).images
    zero, zero_seen = eyes.answers(zero_images), eyes.sees(zero_images)
    shown, shown_seen = eyes.answers(pictures), eyes.sees(pictures)
    cell: dict[str, Any] = {
        "input": {judge: rounded(values) for judge, values in shown.items()},
        "zero": {judge: rounded(values) for judge, values in zero.items()},
        "zero_similarity": rounded(cosine_similarity(zero_seen - centre, shown_seen - centre)),
        "random_similarity": rounded(cosine_similarity(zero_seen.roll(1, 0) - centre, zero_seen - centre)),
        "zero_natural": rounded(near(zero_seen)),
        "input_natural": rounded(near(shown_seen)),
        "zero_diversity": spread_of(zero_seen, centre),
        "zero_kernel": kernel_distance(zero_seen, natural),
        "input_kernel": kernel_distance(shown_seen, natural),
        "methods": [],
    }
    x = backend.encode(pictures)
    for label, method in methods.items():
        began = time.monotonic()
        method.fit(target, backend, *reference)
        fitted = time.monotonic() - began
        edits = not isinstance(method, NaturalImages)
        if edits:
            set_angle(method, angle)
        # Of the top k each is shown once; of random images one for each picture, by its noise.
        seeds = noise if edits or isinstance(method, RandomImages) else list(range(min(method.count, len(pictures))))
        seconds = 0.0
        for way in SIGN:
            began = time.monotonic()
            made = method.generate(pictures[: len(seeds)], {0: way}, seeds=seeds).images
            seconds = time.monotonic() - began
            response, seen = eyes.answers(made), eyes.sees(made)
            # A natural image has no picture of its own to be compared with: against the mean of all.
            before = zero if edits else {judge: values.mean() for judge, values in zero.items()}
            measured: dict[str, Any] = {
                "method": label,
                "direction": way,
                "fit_seconds": fitted,
                "correlation": correlation_of(method),
                "seconds": seconds,
                "natural": rounded(near(seen)),
                "diversity": spread_of(seen, centre),
                "changes": {judge: rounded(SIGN[way] * (values - before[judge])) for judge, values in response.items()},
            }
            if edits:
                reached = angle_between(method.embeddings(x, {0: way}), x)
                # What stops short of the angle has arrived at α = 1, where all pictures are one: not in a distance.
                open_ = (reached >= angle - 1).cpu()
                measured |= {
                    "reached": rounded(reached),
                    "similarity": rounded(cosine_similarity(seen - centre, zero_seen - centre)),
                    "arrived": int((~open_).sum()),
                    "kernel": kernel_distance(seen[open_], natural) if open_.sum() > 1 else None,
                }
            cell["methods"].append(measured)
        print(f"{about} {label}: {fitted:.0f} s + {seconds:.0f} s", flush=True)
    return cell


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
