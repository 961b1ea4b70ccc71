"""The page of the audit says what the records hold: failures first, and the operating point of our evidence."""

import json

import pytest
import torch

from benchmarks.audit.report import auroc, calibration, checks, write

SOURCE = {
    "command": "python -m benchmarks.audit.run",
    "commit": "0" * 40,
    "dirty": False,
    "device": "a processor",
    "cpus": 2,
    "threads": 1,
    "torch": "2",
    "seed": 0,
    "date": "today",
}


def row(method, value, state, test="2AFC, extremes"):
    return {"method": method, "test": test, "value": value, "state": state, "low": value, "high": value, "bar": 0.5}


def unit(r, passed):
    state = "passed" if passed else "failed"
    rows = [row("edit", 0.5 + 0.3 * passed, state), row("random_images", 0.5, "failed")]
    return {"rows": rows, "evidence": {"correlation": r, "weak": r < 0.1}, "seconds": {"edit": 1.0}}


def fooled(edit, ascent):
    methods = {
        name: {
            "rows": [row(name, 0.9, state)],
            "honest rows": [row(name, 0.9, "passed")],
            "likeness": 1.0,
            "honest unit, SD": [3.0, -1.0],
        }
        for name, state in (("edit", edit), ("maco", ascent))
    }
    return {"agreement": 1.0, "accuracy": [0.8, 0.8], "methods": methods}


CELLS = {
    "unit-convnet-conv3-1": unit(0.8, True),
    "unit-convnet-conv3-2": unit(0.6, True),
    "unit-squeezenet-features.4-3": unit(0.3, False),
    "shuffled-convnet-conv3-1": unit(0.0, False),
    "fooled-1": {"switch": fooled("passed", "failed"), "silent": fooled("passed", "passed")},
}


def test_auroc():
    assert auroc(torch.tensor([3.0, 2, 1]), torch.tensor([True, True, False])) == 1
    assert auroc(torch.tensor([1.0, 2, 1]), torch.tensor([True, False, False])) == 0.25


def test_calibration_counts_who_is_confirmed():
    units = {name: cell for name, cell in CELLS.items() if name.startswith("unit")}
    known = calibration(units, {"shuffled-convnet-conv3-1": CELLS["shuffled-convnet-conv3-1"]})
    assert known["auroc"][0] == 1
    assert (known["landscapes"], known["confirmed"], known["good"], known["good and confirmed"]) == (4, 2, 3, 2)
    assert sum(count for _, count, _ in known["bins"]) == 4


def test_what_is_missing_is_said():
    found = checks({"unit-a": unit(0.5, True)}, {"fooled-switch-1": fooled("failed", "passed")}, None)
    assert [met for text, met in found.items() if "edit" in text or "maco" in text] == [False, False]
    assert next(met for text, met in found.items() if "test units" in text) is False


def test_page(tmp_path, capsys):
    write({name: {"found": cell, "provenance": SOURCE} for name, cell in CELLS.items()}, tmp_path)
    page, numbers = (tmp_path / "audit.md").read_text(), json.loads((tmp_path / "audit.json").read_text())
    assert page.index("What fails, first") < page.index("## Methods by tests") < page.index("## Fooled units")
    assert "of 2 confirmed landscapes, 0 are called weak" in page
    assert "It rests on 3 test units" in page
    assert numbers["measures"][0]["value"] == pytest.approx(0.5)
    assert capsys.readouterr().out.strip() == page.strip()
