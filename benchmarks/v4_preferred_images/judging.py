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
from benchmarks.common.script import rounded

NATURAL_IMAGES = 10


@dataclass(frozen=True)
class Eyes:
    """Who looks at the pictures that are made for one neuron."""

    # Images to every judge's response to them, (N,), standardised; by the judge's name.
    answers: Callable[[Tensor], dict[str, Tensor]]
    # Images to features (N, D), on the CPU, of a network that is neither the target nor one of the judges.
    sees: Callable[[Tensor], Tensor]
    natural: Tensor  # (M, D), those of natural images that are not edited


class Seen:
    """What judges answer to some pictures, and what is measured in features around the natural images' mean."""

    def __init__(self, eyes: Eyes, images: Tensor) -> None:
        self.answers, self.features = eyes.answers(images), eyes.sees(images)
        self.gallery, self.centre = eyes.natural, eyes.natural.mean(0)

    def rounded_answers(self) -> dict[str, list[float]]:
        return {judge: rounded(values) for judge, values in self.answers.items()}

    def natural(self) -> list[float]:
        """Mean cosine of each picture with the five nearest natural images."""
        return rounded(nearest(self.features - self.centre, self.gallery - self.centre).mean(1))

    def similarity(self, features: Tensor) -> list[float]:
        return rounded(cosine_similarity(self.features - self.centre, features - self.centre))

    def diversity(self) -> float:
        """How unlike one another the pictures are: 1 - mean cosine over pairs."""
        rows = vl.unit_rows(self.features - self.centre)
        cosine = rows @ rows.T
        return (1 - (cosine.sum() - cosine.diagonal().sum()) / (len(rows) * (len(rows) - 1))).item()


def judged_edits(
    eyes: Eyes,
    methods: dict[str, Any],
    target: vl.Target,
    backend: vl.Backend,
    reference: tuple[Tensor, Tensor],
    pictures: Tensor,
    noise: list[int],
    angle: float,
    about: str,
) -> dict[str, Any]:
    """Fit every method, and edit the same pictures with the same noise, turned by the same angle.

    Natural images among the methods are shown, not edited. The JSON values that are returned hold what judges say of
    the pictures (``input``), of α = 0 (``zero``), and of every method and direction, whose ``changes`` are against
    α = 0, signed, by judge.
    """
    zero_images = vl.Unedited().fit(target, backend, *reference).generate(pictures, {}, seeds=noise).images
    zero, shown = Seen(eyes, zero_images), Seen(eyes, pictures)
    cell: dict[str, Any] = {
        "input": shown.rounded_answers(),
        "zero": zero.rounded_answers(),
        "zero_natural": zero.natural(),
        "zero_diversity": zero.diversity(),
        "zero_kernel": vl.kernel_distance(zero.features, eyes.natural),
        "input_kernel": vl.kernel_distance(shown.features, eyes.natural),
        "methods": [],
    }
    x = backend.encode(pictures)
    for label, method in methods.items():
        began = time.monotonic()
        method.fit(target, backend, *reference)
        edits = not isinstance(method, vl.NaturalImages)
        if edits:
            set_angle(method, angle)
        # Each natural image is shown once.
        shown = len(pictures) if edits or isinstance(method, vl.RandomImages) else min(method.count, len(pictures))
        seeds = noise if edits else list(range(shown))
        for way, sign in SIGN.items():
            made = Seen(eyes, method.generate(pictures[: len(seeds)], {0: way}, seeds=seeds).images)
            # A natural image has no picture of its own to be compared with: against the mean of all.
            before = zero.answers if edits else {judge: values.mean() for judge, values in zero.answers.items()}
            measured: dict[str, Any] = {
                "method": label,
                "direction": way,
                "natural": made.natural(),
                "diversity": made.diversity(),
                "changes": {judge: rounded(sign * (now - before[judge])) for judge, now in made.answers.items()},
            }
            if edits:
                reached = vl.angle_between(method.embeddings(x, {0: way}), x)
                # What stops short of the angle has arrived at α = 1, where all pictures are one: not in a distance.
                open_ = (reached >= angle - 1).cpu()
                left = made.features[open_]
                measured |= {
                    "reached": rounded(reached),
                    "similarity": made.similarity(zero.features),
                    "arrived": int((~open_).sum()),
                    "kernel": vl.kernel_distance(left, eyes.natural) if len(left) > 1 else None,
                }
            cell["methods"].append(measured)
        print(f"{about} {label}: {time.monotonic() - began:.0f} s", flush=True)
    return cell
