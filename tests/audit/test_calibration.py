"""What evidence was worth is a table that a benchmark measured, and every report has it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vislens_interp.landscape.calibration import measured, operating_point

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "audit.json"


def test_the_table_is_what_the_benchmark_found():
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["calibration"]
    assert measured() == found["operating point"]  # after a run: copy its calibration.json
    total = [sum(one) for one in zip(measured()["good"], measured()["weak"], strict=True)]
    assert total == [sum(row[place] for row in measured()["bins"]) for place in (2, 3)]
    assert total[0] == sum(found["landscapes"].values())


@pytest.mark.parametrize("correlation", torch.linspace(-1, 1, 41).tolist())
def test_every_correlation_has_its_row(lens, correlation):
    said = operating_point(replace(lens.evidence_["0"], correlation=correlation))
    rows = [f"of {row[3]} of {row[2]} with a held-out correlation of {row[0]:g} to" for row in measured()["bins"]]
    assert sum(row in said for row in rows) >= 1
    assert said.count("as here") == 1


def test_without_evidence_the_counts_alone(lens):
    (good, right), (weak, missed) = measured()["good"], measured()["weak"]
    assert f"{right} of {good} with good evidence and of {missed} of {weak} with weak evidence." in operating_point()
    assert "as here" not in operating_point(replace(lens.evidence_["0"], correlation=float("nan")))


def test_a_contact_sheet_has_it(lens, photographs):
    assert operating_point() in lens.contact_sheet([0], photographs[:1]).html()
