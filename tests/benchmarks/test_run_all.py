"""One page of all benchmarks: what fails is said, what is lost comes first, and the README's table is made from it."""

import json

import pytest


@pytest.fixture
def ran():
    from planted_units import load_plan

    rows = []
    for family in load_plan()["families"]:
        for seed in (0, 1):
            for method, value in (("landscape, goal near", 2.0), ("ridge pattern", 1.0 + seed)):
                for direction in ("increase", "decrease"):
                    row = {"family": family, "seed": seed, "snr": 1.0, "images": 2000, "method": method, "seconds": 1.0}
                    scores = dict.fromkeys(("angle", "retrieval", "realism 0.9", "realism 1.0"), value)
                    rows.append({**row, "direction": direction, **scores})
    source = {"command": "python x", "commit": None, "dirty": None, "device": "a CPU", "cpus": 1, "threads": 1}
    source |= {"torch": "2", "python": "3", "seed": [0], "date": "today"}
    results = {"rows": rows, "provenance": source, "verdicts": ["ours loses to x", "ours beats y"]}
    done = {
        "name": "planted_units",
        "status": "done",
        "why": None,
        "seconds": 3.0,
        "commands": [],
        "table": "# Planted\n",
    }
    other = {**done, "name": "speed", "status": "failed", "why": "no disk", "table": "", "results": None}
    return {"schema": 1, "quick": False, "environment": source, "benchmarks": [{**done, "results": results}, other]}


def test_losses_and_failures_come_first(ran):
    from run_all import check, page

    check(ran)
    text = page(ran)
    assert text.index("speed failed: no disk") < text.index("ours loses to x") < text.index("## Planted")
    assert "ours beats y" not in text
    with pytest.raises(ValueError, match=r"results has the keys \[\]; expected"):
        check({})
    with pytest.raises(ValueError, match="benchmark 'x' has"):
        check({**ran, "benchmarks": [{"name": "x", "status": "done"}]})


def test_the_headline_is_computed_and_stands_between_its_marks(ran):
    from run_all import MARKS, headline, replace_between

    table = headline(ran)
    assert "| landscape, goal near | +2.00 [+2.00, +2.00] |" in table
    assert "| ridge pattern | +1.50 [+1.00, +2.00] |" in table
    readme = f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"
    once = replace_between(readme, table)
    assert once == replace_between(once, table)
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    with pytest.raises(ValueError, match="no one pair of marks.*Add them"):
        replace_between("nothing", table)
    with pytest.raises(ValueError, match="no full run of planted_units"):
        headline({**ran, "quick": True})


def test_what_cannot_run_is_skipped_with_a_reason_and_what_fails_is_named(tmp_path, monkeypatch):
    import run_all

    one = run_all.Benchmark("broken", ("no_such_script.py --out OUT",), (), "broken")
    needy = run_all.Benchmark("needy", ("x.py --weights WEIGHTS",), (), "needy")
    monkeypatch.setattr(run_all, "BENCHMARKS", (one, needy))
    run_all.main(["--out", str(tmp_path)])
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    said = {row["name"]: (row["status"], row["why"]) for row in content["benchmarks"]}
    assert said["broken"][0] == "failed"
    assert "no_such_script.py ended with 2" in said["broken"][1]
    assert said["needy"] == ("skipped", "it needs --weights")
    run_all.main(["--out", str(tmp_path), "--quick"])
    assert "broken skipped: it has no quick mode" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
