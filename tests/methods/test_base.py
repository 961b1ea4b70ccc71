"""What the base class of every method does: counts, refuses, and leaves the target as it was."""

import pytest
import torch

from vislens_interp import CallableTarget
from vislens_interp.methods.base import Method


class Halves(Method):
    """Reads every second image; uses no argument."""

    def _fit(self, reference, *, progress, checkpoint):
        self.seen_ = reference

    def _generate(self, images, directions, seeds, alpha, strength):
        self.target.responses(images[::2])
        if not directions:
            raise RuntimeError("midway")
        return images, None


def test_generation_counts_its_cost_also_when_it_fails(pixels):
    target = CallableTarget(lambda images: images.mean((1, 2, 3)))
    method = Halves().fit(target, pixels(8), torch.rand(5, 3, 8, 8))
    assert method.seen_.responses.shape == (5, 1)
    images = torch.rand(6, 3, 8, 8)
    made = method.generate(images, {0: "increase"}, seeds=[0] * 6)
    assert made.images is images
    assert (made.cost.forward, made.cost.backward) == (3, 0)
    assert made.cost.seconds > 0
    assert made.settings_in_force == {"alpha": None, "strength": None}
    with pytest.raises(RuntimeError, match="midway"):
        method.generate(images, {}, seeds=[0] * 6)
    assert method.target is target


def test_a_method_without_its_parts_is_none():
    class Half(Method):
        def _fit(self, reference, *, progress, checkpoint):
            """Nothing is learned."""

    with pytest.raises(TypeError, match="_generate"):
        Half()
