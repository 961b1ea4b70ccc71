"""A fooled unit answers photographs as before; ascents show something else, what learnt from photographs does not."""

import pytest
import torch

from vislens_interp import FeatureLens, LayerTarget
from vislens_interp.audit import audit
from vislens_interp.audit.fooling import agreement, fool
from vislens_interp.methods import method_by_name

BLUE = 2


def ascent(steps=32):
    options = {"parametrization": "pixel", "robust": False, "size": 32, "lr": 0.2}
    return method_by_name("activation_maximization", steps=steps, **options)


@pytest.fixture(scope="module")
def synthetic(lens, backend, reference):
    """What ascents make on their way, for the unit and for the decoy."""
    made = []
    for unit in (0, BLUE):
        target = lens.target.at(unit)
        for steps in (1, 8, 32):
            maker = ascent(steps).fit(target, backend, reference)
            made.append(maker.generate(reference[:8], {0: "increase"}, seeds=range(50, 58)).images)
    return torch.cat(made)


@pytest.fixture(scope="module", params=["switch", "silent"])
def fooled(request, lens, reference, synthetic):
    return fool(lens.target, reference, synthetic, construction=request.param, decoy=BLUE)


def test_photographs_are_answered_as_before(lens, fooled, photographs):
    assert agreement(lens.target, fooled, photographs) > 0.999
    assert torch.equal(fooled.model(photographs), lens.target.model(photographs))


def test_ascents_are_caught_and_what_learnt_from_photographs_is_not_fooled(
    lens, fooled, backend, reference, photographs, judge
):
    methods = {"ascent": ascent(), "natural": "natural_images"}
    honest = audit(lens, photographs, {"ascent": ascent()}, judge=judge)
    assert [row.state for row in honest.rows[1:4]] == ["passed"] * 3
    changed = FeatureLens(fooled, backend=backend).fit(reference, epochs=1, shuffles=1)
    result = audit(changed, photographs, methods, judge=judge)
    assert [row.state for row in result.of("ascent")[1:4]] == ["failed"] * 3
    assert [row.state for row in result.of("natural")[1:4]] == ["passed"] * 3
    assert torch.equal(changed.landscape_.responses, lens.landscape_.responses)


def test_errors(lens, reference, synthetic):
    with pytest.raises(ValueError, match="expected one channel of a layer of layout NCHW"):
        fool(lens.target.at([0, 1]), reference, synthetic)
    with pytest.raises(ValueError, match="the detector gives photographs up to"):
        fool(lens.target, reference, reference)
    assert isinstance(fool(lens.target, reference, synthetic), LayerTarget)
