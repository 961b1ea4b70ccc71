"""The closed-loop benchmark on a planted neuron: methods find it, and the report says what is true."""

import numpy as np
import pytest
import torch

from benchmarks.closed_loop import run as bench
from benchmarks.closed_loop.report import BUDGETS, LOOP, METHODS, checks, report
from benchmarks.common.provenance import provenance


@pytest.fixture(scope="module")
def planted():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 12))
    return np.exp(1.5 + 0.5 * x[:, 0]), x


@pytest.mark.parametrize("label", METHODS[1:])
def test_rivals_spend_their_trials_and_find_something(planted, label):
    animal = bench.Animal(*planted, seed=1)
    shown = []
    honest = animal.show
    animal.show = lambda rows: shown.extend(rows) or honest(rows)
    scores = bench.RIVALS[label](animal, 1)
    assert len(shown) == max(BUDGETS)
    assert set(scores) == set(BUDGETS)
    assert scores[BUDGETS[-1]][1] > 0.8


def test_the_loop_is_the_packages_experiment(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "BUDGETS", (48, 72))
    images = torch.rand(300, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scores = bench.closed_loop(bench.Animal(*planted, seed=1), 1, images, tmp_path / "exp")
    assert set(scores) == {48, 72}
    assert scores[72][1] > 0.8
    assert not (tmp_path / "exp").exists()


def test_scores_are_true_rates(planted):
    animal = bench.Animal(*planted, seed=0)
    rates = planted[0]
    best = animal.score(np.argsort(-rates))
    assert best[0] == pytest.approx((rates.max() - rates.mean()) / rates.std())
    assert bench.mean_order([0, 1, 1, 2], np.array([9.0, 8, 8, 1])).tolist() == [1, 0, 2]


def cell(neuron, **better):
    scores = {method: {str(budget): [1.0, 1.0 + 0.01 * neuron] for budget in BUDGETS} for method in METHODS}
    for method, value in better.items():
        scores[method] = {budget: [value, value + 0.01 * neuron] for budget in scores[LOOP]}
    found = {"session": "201025", "neuron": neuron, "scores": scores, "best": 3.0, "mean_count": 2.0, "photographs": 9}
    return {"provenance": provenance(seed=0), "found": found}


def test_the_report_says_what_fails_first():
    text, numbers = report([cell(neuron, **{LOOP: 2.0, "CMA-ES": 3.0}) for neuron in range(5)])
    held = numbers["checks"]
    assert held["At 240 trials the loop's nine photographs drive the neuron more than: ridge loop."] is True
    assert held["At 240 trials the loop's nine photographs drive the neuron more than: CMA-ES."] is False
    assert text.index("CMA-ES") < text.index("ridge loop")
    assert "5 neurons" in text
    same = checks([cell(neuron) for neuron in range(5)])
    assert sum(value is True for value in same.values()) == 1  # no worse than the ridge at twice the trials
    with pytest.raises(FileNotFoundError, match="--out holds no neuron yet"):
        report([])
