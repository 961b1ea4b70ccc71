"""What evidence was worth is a table that a benchmark measured, and every report has it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vislens_interp.landscape.calibration import SHOWN, measured, operating_point

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "audit.json"


def test_the_table_is_what_the_benchmark_found():
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["calibration"]
    assert measured() == found["operating point"]  # after a run: copy its calibration.json
    for key in ("landscapes", *SHOWN):
        assert sum(row[key] for row in measured()["bins"]) == measured()["good"][key] + measured()["weak"][key]
    assert measured()["good"]["landscapes"] + measured()["weak"]["landscapes"] == sum(found["landscapes"].values())


@pytest.mark.parametrize("correlation", torch.linspace(-1, 1, 41).tolist())
def test_every_correlation_has_its_row(lens, correlation):
    said = operating_point(replace(lens.evidence_["0"], correlation=correlation))
    rows = [
        f"of {row['landscapes']} with a held-out correlation of {row['from']:g} to {row['to']:g}, as here, the edits "
        f"of prototypes of {row['edited_prototypes']}, the prototypes of {row['prototypes']} and"
        for row in measured()["bins"]
    ]
    assert sum(row in said for row in rows) == said.count("as here") == 1


def test_without_evidence_the_counts_alone(lens):
    for one in (measured()["good"], measured()["weak"]):
        assert f"of {one['landscapes']} with" in operating_point()
        assert f"the edits of any photographs of {one['edit']}" in operating_point()
    assert "as here" not in operating_point(replace(lens.evidence_["0"], correlation=float("nan")))


def test_a_contact_sheet_has_it(lens, photographs):
    assert operating_point() in lens.contact_sheet([0], photographs[:1]).html()
