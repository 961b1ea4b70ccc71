"""Every method on the same pictures of one neuron, drawn with the same noise and looked at by the same judges."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import SIGN, set_angle
from benchmarks.common.judges import nearest

NATURAL_IMAGES = 10


@dataclass(frozen=True)
class Eyes:
    """Who looks at the pictures that are made for one neuron.

    Args:
        answers: Images to every judge's response to them, (N,), standardised; by the judge's name.
        sees: Images to features (N, D), on the CPU, of a network that is neither the target nor one of the judges.
        natural: (M, D), those of natural images that are not edited.
    """

    answers: Callable[[Tensor], dict[str, Tensor]]
    sees: Callable[[Tensor], Tensor]
    natural: Tensor


def spread_of(features: Tensor, centre: Tensor) -> float:
    """How unlike one another the pictures are: 1 - mean cosine over pairs, features around ``centre``."""
    rows = vl.unit_rows(features - centre)
    cosine = rows @ rows.T
    return (1 - (cosine.sum() - cosine.diagonal().sum()) / (len(rows) * (len(rows) - 1))).item()


def rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.double().cpu().tolist()]


def judged_edits(
    eyes: Eyes,
    methods: dict[str, Any],
    target: vl.Target,
    backend: Any,
    reference: tuple[Tensor, Tensor],
    pictures: Tensor,
    noise: list[int],
    angle: float,
    about: str,
) -> dict[str, Any]:
    """Fit every method, and edit the same pictures with the same noise, turned by the same angle.

    Args:
        eyes: Who judges.
        methods: By their names. Natural images among them are shown, not edited.
        reference: Images to learn from, and their responses (N, 1).
        pictures: Images to edit, each with a seed in ``noise``.
        about: Printed with each method's seconds.

    Returns:
        JSON values: what judges say of the pictures (``input``), of α = 0 (``zero``), and of every method and
        direction, whose ``changes`` are against α = 0, signed, by judge.
    """
    natural = eyes.natural
    centre = natural.mean(0)

    def near(features: Tensor) -> list[float]:
        return rounded(nearest(features - centre, natural - centre).mean(1))

    def similar(a: Tensor, b: Tensor) -> list[float]:
        return rounded(cosine_similarity(a - centre, b - centre))

    zero_images = vl.Unedited().fit(target, backend, *reference).generate(pictures, {}, seeds=noise).images
    zero, zero_seen = eyes.answers(zero_images), eyes.sees(zero_images)
    shown, shown_seen = eyes.answers(pictures), eyes.sees(pictures)
    cell: dict[str, Any] = {
        "input": {judge: rounded(values) for judge, values in shown.items()},
        "zero": {judge: rounded(values) for judge, values in zero.items()},
        "zero_similarity": similar(zero_seen, shown_seen),
        "random_similarity": similar(zero_seen.roll(1, 0), zero_seen),
        "zero_natural": near(zero_seen),
        "input_natural": near(shown_seen),
        "zero_diversity": spread_of(zero_seen, centre),
        "zero_kernel": vl.kernel_distance(zero_seen, natural),
        "input_kernel": vl.kernel_distance(shown_seen, natural),
        "methods": [],
    }
    x = backend.encode(pictures)
    for label, method in methods.items():
        began = time.monotonic()
        method.fit(target, backend, *reference)
        fitted = time.monotonic() - began
        edits = not isinstance(method, vl.NaturalImages)
        if edits:
            set_angle(method, angle)
        # Of the top k each is shown once; of random images one for each picture, by its noise.
        seeds = noise if edits or isinstance(method, vl.RandomImages) else list(range(min(method.count, len(pictures))))
        evidence = next(iter(getattr(method, "evidence_", {}).values()), None)
        for way, sign in SIGN.items():
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
                "correlation": evidence.correlation if evidence else None,
                "seconds": seconds,
                "natural": near(seen),
                "diversity": spread_of(seen, centre),
                "changes": {judge: rounded(sign * (values - before[judge])) for judge, values in response.items()},
            }
            if edits:
                reached = vl.angle_between(method.embeddings(x, {0: way}), x)
                # What stops short of the angle has arrived at α = 1, where all pictures are one: not in a distance.
                open_ = (reached >= angle - 1).cpu()
                measured |= {
                    "reached": rounded(reached),
                    "similarity": similar(seen, zero_seen),
                    "arrived": int((~open_).sum()),
                    "kernel": vl.kernel_distance(seen[open_], natural) if open_.sum() > 1 else None,
                }
            cell["methods"].append(measured)
        print(f"{about} {label}: {fitted:.0f} s + {seconds:.0f} s", flush=True)
    return cell
