"""Planted truth is what it says: closed forms of the families, of the noise and of reading a path."""

import pytest
import torch


@pytest.fixture(scope="module")
def space():
    from benchmarks.planted_units.truth import Space

    draw = torch.Generator().manual_seed(0)
    classes = 3 * torch.randn(40, 16, generator=draw)
    parts = [classes.repeat(20, 1) + torch.randn(800, 16, generator=draw) for _ in range(2)]
    parts = [part - part.mean(0) for part in parts]
    return Space(parts[0], parts[1], parts[1][:20], parts[1][20:40], classes - classes.mean(0))


def test_families_are_what_the_plan_says(space):
    from benchmarks.planted_units.truth import load_plan, plant

    plan = load_plan()
    for family, said in plan["families"].items():
        unit = plant(family, 3, space, plan)
        found = unit(space.fit)
        assert found.std().item() == pytest.approx(1, abs=1e-4)
        assert torch.equal(found, plant(family, 3, space, plan)(space.fit))
        assert len(unit.filters) == said["filters"]
        assert torch.allclose((space.fit @ unit.filters.T).std(0), torch.ones(said["filters"]), atol=1e-4)
        if said["filters"] > 1:
            cosines = unit.filters / unit.filters.norm(dim=1, keepdim=True)
            assert (cosines @ cosines.T).fill_diagonal_(-1).max() < said["cosine_below"]
    mixture = plant("mixture of two", 0, space, plan)
    for preferred in mixture.filters:  # either preference alone drives it as much as it is strong
        assert mixture(20 * preferred[None] / preferred.norm() ** 2).item() == pytest.approx(
            19 / mixture.scale, rel=1e-3
        )
    inhibited = plant("inhibited", 0, space, plan)
    assert inhibited(20 * inhibited.filters[1:]).item() < 0
    rare = plant("rare", 0, space, plan)(space.fit)
    assert 0 < (rare > 0).double().mean() < 0.12


def test_noise_has_the_snr_and_repeats(space):
    from benchmarks.planted_units.truth import load_plan, plant, record

    unit = plant("linear", 0, space, load_plan())
    noise = record(unit, space.fit, 0.25, 5)[:, 0] - unit(space.fit)
    assert noise.std().item() == pytest.approx(2, rel=0.1)
    assert torch.equal(record(unit, space.fit, 0.25, 5)[:, 0] - unit(space.fit), noise)


def test_a_path_is_read_at_its_furthest_realistic_point():
    from benchmarks.planted_units.run import furthest

    change, real = [0.0, 1.0, 2.0, 3.0], [1.0, 0.8, 0.9, 0.5]
    assert furthest(change, real, 0.7) == pytest.approx(2.5)
    assert furthest(change, real, 0.95) == pytest.approx(0.25)
    assert furthest(change, [1.0, 1.0, 1.0, 1.0], 0.9) == 3.0
    assert furthest(change, real, 2.0) == 0.0


def test_an_image_is_its_own_neighbour(space):
    from benchmarks.planted_units.run import realism

    near, rows = realism(space.pool[:5], space.pool, 1)
    assert torch.allclose(near, torch.ones(5), atol=1e-5)
    assert rows.tolist() == list(range(5))


@pytest.mark.parametrize(
    "label", ["landscape, goal near", "ridge pattern", "landscape, goal uphill", "landscape, non-linear"]
)
def test_methods_move_a_clean_linear_unit_both_ways_by_the_angle(space, label):
    from benchmarks.planted_units.methods import fit_and_move
    from benchmarks.planted_units.truth import load_plan, plant, record
    from vislens_interp.math import angle_between

    unit = plant("linear", 1, space, load_plan())
    responses = record(unit, space.fit, 100.0, 0)
    before = unit(space.test).mean()
    moved = fit_and_move(label, space.fit, responses, space.test, ("increase", "decrease"), [30.0])
    assert unit(moved["increase"][0]).mean() > before + 0.3
    assert unit(moved["decrease"][0]).mean() < before - 0.3
    if label in ("landscape, goal near", "landscape, goal uphill", "ridge pattern"):
        assert angle_between(moved["increase"][0], space.test).mean().item() == pytest.approx(
            30, abs=2
        )  # a goal may lie nearer


def test_tables_average_units_that_every_method_has():
    from benchmarks.planted_units.report import complete

    unit = {"family": "linear", "snr": 1.0, "images": 500}
    both = [{**unit, "seed": 0, "method": method} for method in ("a", "b")]
    assert complete([*both, {**unit, "seed": 1, "method": "a"}]) == both


def test_a_rival_is_compared_on_the_units_that_it_was_run_on():
    from benchmarks.planted_units.methods import SHIPPED, SINGLE
    from benchmarks.planted_units.report import first_measure, verdicts

    unit = {"family": "mixture of two", "snr": 1.0, "images": 500, "direction": "increase"}
    ours = {**unit, "method": SHIPPED, first_measure(): 1.0}
    theirs = {**unit, "method": SINGLE[0], first_measure(): 0.5}
    rows = [*({**ours, "seed": seed} for seed in range(4)), *({**theirs, "seed": seed} for seed in range(3))]
    ((won, text),) = verdicts(rows)
    assert won
    assert "+0.50 [+0.50, +0.50]" in text
