"""Reference images that are chosen for what their likeness tells of a unit, and edits that start from them."""

import pytest
import torch
from scipy.stats import rankdata

from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.math import unit_rows
from vislens_interp.methods.directions import DifferenceOfMeans
from vislens_interp.methods.prototypes import EditedPrototypes, Prototypes, prototype_rows
from vislens_interp.metrics.predictivity import predictivity
from vislens_interp.preprocess import Preprocess


def draw(count, seed, dim=12):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def likeness_correlates(x, responses, groups, sides):
    """Correlation of the ranks with likeness to these images, counted the plain way."""
    like = torch.zeros(len(x), dtype=torch.float64)
    for sign, rows in zip((1, -1), sides, strict=True):
        for row in rows.tolist():
            one = x @ x[row]
            own = groups == groups[row]
            like += sign * torch.where(own, 0.0, one - one[~own].mean()) / len(rows)
    ranks = torch.from_numpy(rankdata(responses.numpy()))
    return torch.corrcoef(torch.stack([like, ranks]))[0, 1].item()


def test_prototypes_tell_more_of_new_images_than_the_extremes_do():
    """Where the extremes are chance: responses with outliers, as of noisy recordings."""
    gaps = []
    for seed in range(8):
        x, new, axis = draw(300, seed), draw(200, seed + 100), draw(1, seed + 200)[0]
        noise = torch.distributions.StudentT(2.0)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            responses = x @ axis + 2 * noise.sample((300,)).double()
        order = responses.argsort(descending=True)
        shown = prototype_rows(unit_rows(x), responses, torch.arange(300), 4, 0.1)
        truth = new @ axis
        ours, extremes = (
            predictivity(x[up], x[down], new, truth).accuracy for up, down in (shown, (order[:4], order[-4:]))
        )
        gaps.append(ours - extremes)
    assert sum(gaps) / len(gaps) > 0.03
    assert sum(gap > 0 for gap in gaps) >= 6


@pytest.mark.parametrize("crops", [1, 3])
def test_no_other_candidate_would_tell_more(crops):
    """Each of the chosen, against every candidate in its place; the correlation counted the plain way."""
    x, groups = unit_rows(draw(90, 1)), torch.arange(90) // crops
    responses = x[:, 0] + 0.5 * x[:, 1].square() + 0.1 * draw(90, 2)[:, 0]
    sides = prototype_rows(x, responses, groups, 3, 0.2)
    best = likeness_correlates(x, responses, groups, sides)
    order = responses.argsort(descending=True, stable=True)
    ends = (order[:24], order[-24:])  # 8 times 3 images are more than a fifth of 90
    for half, place in ((half, place) for half in (0, 1) for place in range(3)):
        taken = {int(groups[row]) for rows in sides for row in rows} - {int(groups[sides[half][place]])}
        for row in ends[half].tolist():
            if int(groups[row]) not in taken:
                other = [rows.clone() for rows in sides]
                other[half][place] = row
                assert likeness_correlates(x, responses, groups, other) <= best + 2e-3
    assert len({int(groups[row]) for rows in sides for row in rows}) == 6  # photographs, not crops


def test_images_of_few_photographs_are_shown_once_each():
    x = unit_rows(draw(40, 3))
    sides = prototype_rows(x, x[:, 0], torch.arange(40) % 2, 5, 0.1)
    assert len(set(torch.cat(sides).tolist())) == 10


def test_a_unit_that_answers_all_alike_gets_some():
    sides = prototype_rows(unit_rows(draw(30, 4)), torch.ones(30), torch.arange(30), 4, 0.05)
    assert len(set(torch.cat(sides).tolist())) == 8


def test_the_two_senses_are_two_sides_of_one_choice(pictures, pixels, linear_unit):
    weight = torch.zeros(3, 8, 8)
    weight[0] = 1
    method = Prototypes(4).fit(linear_unit(weight), pixels(), pictures(80))
    up, down = (method.rows({0: sense}) for sense in ("increase", "decrease"))
    red = pictures(80)[:, 0].mean((1, 2))
    assert red[up].min() > red.median() > red[down].max()


def test_an_edit_starts_from_the_prototypes(pictures, pixels, linear_unit):
    target, images = linear_unit(torch.ones(3, 8, 8)), pictures(3, seed=1)
    method = EditedPrototypes(DifferenceOfMeans(), count=4).fit(target, pixels(), pictures(80))
    seeds = [0, 5, 2]
    made = method.generate(images, {0: "decrease"}, seeds=seeds, alpha=0.5)
    rows = method.prototypes.rows({0: "decrease"})[[0, 1, 2]]
    alone = DifferenceOfMeans().fit(target, pixels(), pictures(80))
    wanted = alone.generate(pictures(80)[rows], {0: "decrease"}, seeds=seeds, alpha=0.5)
    assert torch.equal(made.images, wanted.images)
    assert made.settings_in_force == wanted.settings_in_force
    control = method.generate(images, {}, seeds=seeds).images
    assert torch.equal(control, alone.generate(images, {}, seeds=seeds).images)


def test_a_depth_embedders_likeness_is_that_of_its_last_layers(pictures):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3))
    network.__dict__["preprocess"] = Preprocess(16, [0.5], [0.5])
    embedder = DepthEmbedder(network, ["0", "1", "2"], size=16).standardise(pictures(30, 16))
    x = embedder(pictures(5, 16))
    assert torch.equal(embedder.last_layers(x), x[:, 4:])
    assert torch.equal(embedder.last_layers(x, 1), x[:, 8:])


def test_too_few_images_are_refused(pictures, pixels, linear_unit):
    with pytest.raises(ValueError, match="images holds 15 images; expected at least 16, count=8 to either side"):
        Prototypes(8).fit(linear_unit(torch.ones(3, 8, 8)), pixels(), pictures(15))
    with pytest.raises(TypeError, match="method is a str; expected a Method such as LandscapeEdit"):
        EditedPrototypes("edit")
    with pytest.raises(ValueError, match="share=2 must lie in"):
        Prototypes(share=2)
