"""The page of the audit says what the records hold: failures first, and the operating point of our evidence."""

import json

import pytest
import torch

from benchmarks.audit.report import audited, auroc, calibration, checks, shortened, time_checks, write
from benchmarks.audit.run import main

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
    rows = [row(method, 0.5 + 0.3 * passed, state) for method in ("edit", "prototypes", "edited_prototypes")]
    rows.append(row("random_images", 0.5, "failed"))
    return {"rows": rows, "evidence": {"correlation": r, "weak": r < 0.1}, "seconds": {"edit": 1.0}}


def fooled(edit, ascent):
    methods = {
        name: {
            "rows": [row(name, 0.9, state)],
            "honest rows": [row(name, 0.9, "passed")],
            "likeness": 1.0,
            "honest unit, SD": [3.0, -1.0],
            "pixels": 2 / 255,
        }
        for name, state in (("edit", edit), ("maco", ascent))
    }
    return {"agreement": 1.0, "accuracy": [0.8, 0.8], "methods": methods}


CELLS = {
    "unit-lite2-blocks.1-1": unit(0.8, True),
    "unit-lite2-blocks.1-2": unit(0.6, True),
    "unit-squeezenet-features.4-3": unit(0.3, False),
    "paths-squeezenet-features.4-3": {"rows": [row("edit", 0.4, "passed", "paths")]},
    "ascent-squeezenet-features.4-3": {"rows": [row("maco", 0.7, "passed")], "seconds": {"maco": 9.0}},
    "landscape-lite2-blocks.1-4": unit(0.7, True),
    "random-lite2_random-blocks.1-4": unit(0.2, False),
    "shuffled-lite2-blocks.1-1": unit(0.0, False),
    "fooled-convnet-conv3-1": {"switch": fooled("passed", "failed"), "silent": fooled("passed", "passed")},
    "whole-lite2-blocks.1-1": {"seconds": 80.0, "cpu": 30.0, "threads": 2, "load": 9.0},
}
RECORDS = {name: {"found": cell, "provenance": SOURCE} for name, cell in CELLS.items()}


def test_auroc():
    assert auroc(torch.tensor([3.0, 2, 1]), torch.tensor([True, True, False])) == 1
    assert auroc(torch.tensor([1.0, 2, 1]), torch.tensor([True, False, False])) == 0.25


def test_a_unit_has_the_rows_of_all_its_cells():
    units = audited(RECORDS)
    assert len(units) == 3
    found = units["unit-squeezenet-features.4-3"]
    assert [(one["method"], one["test"]) for one in found["rows"][4:]] == [
        ("edit", "paths"),
        ("maco", "2AFC, extremes"),
    ]
    assert found["seconds"] == {"edit": 1.0, "maco": 9.0}
    assert len(units["unit-lite2-blocks.1-1"]["rows"]) == 4


def test_a_unit_has_no_rows_of_one_whose_number_begins_alike():
    more = {"ascent-lite2-blocks.1-12": RECORDS["ascent-squeezenet-features.4-3"]}
    assert len(audited(RECORDS | more)["unit-lite2-blocks.1-1"]["rows"]) == 4


def test_calibration_counts_who_is_confirmed():
    known = calibration(RECORDS)
    point = known["operating point"]
    assert known["auroc"]["edit"]["all"][0] == known["auroc"]["edit"]["real units"][0] == 1
    assert known["landscapes"] == {"unit": 3, "landscape": 1, "random": 1, "shuffled": 1}
    shown = ("edit", "prototypes", "edited_prototypes")
    assert point["good"] == {"landscapes": 5} | dict.fromkeys(shown, 3)
    assert point["weak"] == {"landscapes": 1} | dict.fromkeys(shown, 0)
    assert [sum(row[key] for row in point["bins"]) for key in ("landscapes", *shown)] == [6, 3, 3, 3]


def test_each_kind_of_pictures_is_confirmed_by_its_own_row():
    cells = {name: {"found": cell["found"] | {}} for name, cell in RECORDS.items()}
    found = cells["unit-lite2-blocks.1-1"]["found"]
    found["rows"] = [one | {"state": "failed"} if one["method"] == "edit" else one for one in found["rows"]]
    good = calibration(cells)["operating point"]["good"]
    assert good == {"landscapes": 5, "edit": 2, "prototypes": 3, "edited_prototypes": 3}


def test_what_is_missing_is_said():
    few = {name: RECORDS[name] for name in ("unit-lite2-blocks.1-1", "shuffled-lite2-blocks.1-1")}
    found = checks(audited(few), {"switch-a": fooled("failed", "passed")}, calibration(few))
    assert [met for text, met in found.items() if "Pictures of" in text] == [False, False]
    assert next(met for text, met in found.items() if "test units" in text) is False


@pytest.mark.parametrize(("seconds", "cpu", "met"), [(59, 90, True), (61, 59, None), (90, 61, False)])
def test_an_audit_that_waited_for_others_is_open(seconds, cpu, met):
    cell = {"seconds": seconds, "cpu": cpu, "threads": 2, "load": 5.0}
    assert list(time_checks({"whole-lite2-a-1": {"found": cell}}).values()) == [met]


def test_a_control_that_passes_is_a_failure():
    cells = {f"unit-lite2-a-{place}": {"found": unit(0.5, True)} for place in range(20)}
    for place in range(3):
        text, met = next(
            one for one in checks(audited(cells), {}, calibration(cells)).items() if one[0].startswith("Random")
        )
        assert (met, f"for {place} of 20" in text) == (place < 2, place >= 2)
        cells[f"unit-lite2-a-{place}"]["found"]["rows"][-1]["state"] = "passed"


@pytest.mark.parametrize(("edit", "met"), [(0.6, False), (0.9, True)])
def test_edits_are_compared_with_top_photographs(edit, met):
    cells = {f"unit-lite2-a-{place}": {"found": unit(0.5, True)} for place in range(3)}
    for cell in cells.values():
        others = [one for one in cell["found"]["rows"] if one["method"] not in ("edit", "random_images")]
        cell["found"]["rows"] = [row("edit", edit, "passed"), row("natural_images", 0.8, "passed"), *others]
    found = checks(audited(cells), {}, calibration(cells))
    assert [held for text, held in found.items() if "that edits tell" in text] == [met]


def test_what_is_published_has_no_sentences_and_four_digits():
    assert shortened({"rows": [{"meaning": "long", "value": 0.123456}], "n": 3}) == {
        "rows": [{"value": 0.1235}],
        "n": 3,
    }


def test_page(tmp_path, capsys):
    write(RECORDS, tmp_path)
    page, numbers = (tmp_path / "audit.md").read_text(), json.loads((tmp_path / "audit.json").read_text())
    assert page.index("What fails, first") < page.index("## Methods by tests") < page.index("## Fooled units")
    assert "| good | 5 | 3 | 3 | 3 |" in page
    assert "| weak | 1 | 0 | 0 | 0 |" in page
    assert "It rests on 3 test units" in page
    assert "differ by 2 of 255 levels" in page
    assert numbers["measures"][0]["value"] == pytest.approx(0.5)
    assert json.loads((tmp_path / "calibration.json").read_text()) == numbers["calibration"]["operating point"]
    assert capsys.readouterr().out.strip() == page.strip()


def test_cells_of_tuning_units_lie_apart(tmp_path, capsys, monkeypatch):
    for folder, cells in ((tmp_path, RECORDS), (tmp_path / "tuning", {"unit-lite2-blocks.1-7": unit(0.5, True)})):
        folder.mkdir(exist_ok=True)
        for stem, cell in cells.items():
            cell = cell if folder == tmp_path else {"found": cell, "provenance": SOURCE}
            (folder / f"{stem}.json").write_text(json.dumps(cell))
    monkeypatch.setattr("sys.argv", ["run", "--out", str(tmp_path), "--report", "--tune"])
    main()
    assert list(json.loads((tmp_path / "tuning" / "audit.json").read_text())["cells"]) == ["unit-lite2-blocks.1-7"]
    assert not (tmp_path / "audit.json").exists()
