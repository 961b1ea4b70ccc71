import json
import subprocess
import sys

import pytest

from benchmarks import run_all
from benchmarks.common.findings import Aim, Findings, Measure, stated
from benchmarks.common.results_page import LIST, SOURCE, full_list, gather, headline, page, sources_of
from benchmarks.common.script import RESULTS, ROOT, provenance_line
from benchmarks.suite import SUITE, Benchmark, CannotRunError
from vislens_interp.files import write_text

FOLDER = ROOT / "benchmarks"
SAID = dict.fromkeys(SOURCE) | {"command": "python toy.py", "device": "toy", "cpus": 2, "threads": 1, "seed": 3}
TOY = """# Toy

Words.

## A part

| what | value |
|---|---|
| a | 1 |
| b \\| c | 2 |
"""
SCRIPT = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[2])
if "--fail" in sys.argv:
    print("the reason")
    sys.exit(3)
calls = out / "calls.txt"
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
(out / "toy.md").write_text("# Toy\\n")
(out / "toy.json").write_text(json.dumps({"checks": {"It is 2 (wanted: 1).": False}}))
"""


def write_toy(folder, numbers):
    write_text(folder / "toy.json", json.dumps(numbers))
    write_text(folder / "toy.md", TOY + "\n" + provenance_line(SAID) + "\n")
    return {"toy": folder}


def findings_of(name, numbers):
    (one,) = (one for one in SUITE if one.name == name)
    return one.findings(numbers)


def toy(**settings):
    return Benchmark("toy", ("run --out {out}",), **settings)


# ---- the list -------------------------------------------------------------------------------------------------------


def test_every_benchmark_is_in_the_list():
    """A module with arguments of its own is a benchmark; the ones in the list and this command are all there are."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in FOLDER.rglob("*.py")
        if "parser(__doc__" in path.read_text(encoding="utf-8").replace("\n        ", "")
    }
    listed = {f"{one.module}.{command.split()[0]}" for one in SUITE for command in one.commands}
    assert modules - {"benchmarks.run_all"} <= listed
    assert len({one.name for one in SUITE}) == len(SUITE)
    assert all((FOLDER / module.split(".")[1] / "README.md").is_file() for module in listed)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("one", SUITE, ids=lambda one: one.name)
def test_commands_name_options_that_exist(one, quick, tmp_path):
    values = {name: tmp_path / name for name in ("out", "data", "weights", "pixel_vae", "nsd")} | {"device": "cpu"}
    if quick and one.quick is None:
        with pytest.raises(CannotRunError, match="it has no quick run"):
            one.prepare(quick=True, values=values)
        return
    for _, _, module, *words in one.prepare(quick=quick, values=values):
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []
        assert not any("{" in word for word in words)


def test_what_cannot_run_says_why():
    with pytest.raises(CannotRunError, match="it needs --pixel-vae"):
        Benchmark("speed", ("run --x {pixel_vae}",)).prepare(quick=False, values={"out": "o", "pixel_vae": None})
    with pytest.raises(CannotRunError, match=r"benchmarks\.toy is not there"):
        toy().prepare(quick=False, values={"out": "o"})


def test_a_folder_with_spaces_stays_one_word():
    (words,) = Benchmark("speed", ("run --out {out}",)).prepare(quick=False, values={"out": "a b"})
    assert words[-2:] == ["--out", "a b"]


# ---- running --------------------------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path):
    write_text(tmp_path / "toy.py", SCRIPT)
    return [sys.executable, str(tmp_path / "toy.py"), "--out", str(tmp_path / "out")]


def test_a_run_that_has_ended_is_not_run_again(script, tmp_path, monkeypatch):
    repository, calls = tmp_path / "repository", tmp_path / "out" / "calls.txt"
    monkeypatch.setattr(run_all, "ROOT", repository)

    def git(*words):
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(repository), *who, *words], check=True, capture_output=True)

    def run_twice():
        assert [run_all.run(toy(), [script], tmp_path / "out") for _ in range(2)] == [None, None]
        return calls.read_text()

    write_text(repository / "code", "one")
    git("init", "--quiet")
    git("add", "code")
    git("commit", "--quiet", "--message=one")
    assert run_twice() == "x"
    git("commit", "--quiet", "--allow-empty", "--message=other code")
    assert run_twice() == "xx"
    write_text(repository / "code", "two")  # code that no commit names
    assert run_twice() == "xxxx"


def test_a_failure_is_said_first_and_stops_nothing(script, tmp_path):
    assert run_all.run(toy(), [[*script, "--fail"], script], tmp_path / "out") == (
        "failed with exit status 3: the reason"
    )
    assert not (tmp_path / "out" / "calls.txt").exists()
    suite = (toy(), Benchmark("other", ("toy.py",)))
    folders = {**write_toy(tmp_path / "old", {}), "other": tmp_path}
    results = gather(suite, folders, tmp_path, not_run={"toy": "failed with exit status 3: the reason"})
    assert [entry["state"] for entry in results["benchmarks"]] == ["failed", "not run"]
    text = page(results)
    assert text.index("- toy: failed with exit status 3: the reason") < text.index("- other: other.json is not there")


def test_a_run_of_the_whole_command(tmp_path, capsys):
    """Nothing has what it needs, so nothing runs; the page says of each what it lacks."""
    names = ["table3", "pictures"]
    assert run_all.main(["--out", str(tmp_path), "--only", *names, "--data", str(tmp_path / "absent")]) == 0
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    found = {entry["name"]: (entry["state"], entry["why"]) for entry in results["benchmarks"]}
    assert found == dict.fromkeys(names, ("not run", "it needs --data, which is not there"))
    assert "- pictures: it needs --data" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "either --out DIR"),
        (["--gather", "--out", "x"], "either"),
        (["--out", "x", "--quick", "--publish"], "whole"),
    ],
)
def test_commands_that_contradict_themselves(words, said, capsys):
    with pytest.raises(SystemExit):
        run_all.main(words)
    assert said in capsys.readouterr().err


# ---- what files say -------------------------------------------------------------------------------------------------


def test_a_file_that_states_its_own_checks():
    measure = {"what": "w", "value": 1.0, "unit": "SD", "sample": "4 units"}
    found = stated({"checks": {"It holds.": True, "It does not.": False}, "measures": [measure]})
    assert found == Findings((Aim("It holds.", True), Aim("It does not.", False)), (Measure(**measure),))
    assert stated({"rows": []}) == Findings()


@pytest.mark.parametrize(
    ("measure", "shown"),
    [
        (Measure("w", 1.0294, "SD", "s", 0.8163, 1.2655), "+1.03 SD [+0.82, +1.27]"),
        (Measure("w", -0.5, "SD", "s"), "-0.50 SD"),
        (Measure("w", 0.99999, "share", "s"), "99.9 %"),  # 100 % means all
        (Measure("w", 1.0, "share", "s"), "100.0 %"),
        (Measure("w", 0.57, "share", "s"), "57.0 %"),
        (Measure("w", 12.345, "s", "s", 12.0, 13.0), "12.35 s [12.00, 13.00]"),
        (Measure("w", 0.777, "", "s"), "0.78"),
    ],
)
def test_figures_are_shown_with_their_spread(measure, shown):
    assert str(measure) == shown


def test_speed_against_its_limits():
    def one(again, full):
        ratios = {name: {"median": 1.0} for name in ("late", "target")}
        ratios |= {"bare again": {"median": again}}
        ratios |= {"full": {"median": full, "quartile_1": 0.9, "quartile_3": 1.1, "rounds": 4}}
        return {"network": "toy", "ratios": ratios}

    size = {"size": {"repeats": 4}}
    for again, full, met in ((1.0, 1.03, True), (1.0, 1.031, False), (1.05, 1.0, None)):
        found = findings_of("speed", {**size, "hooks": [one(again, full)], "units": []})
        assert found.aims[0].met is met
    assert findings_of("speed", size).aims == (
        Aim("Part 'hooks' of the costs has not been measured.", None),
        Aim("Part 'units' of the costs has not been measured.", None),
    )


def test_a_wrong_reading_fails_whatever_the_share():
    total = {"unit right": 999, "unit wrong": 1, "wrong": 1, "architectures": 2}
    found = findings_of("unit_coverage", {"vislens_interp": {"version": "1", "total": total}})
    assert [aim.met for aim in found.aims] == [True, False]
    assert str(found.measures[0]) == "99.9 %"


def test_a_fit_that_never_arrives_fails():
    def fit(seconds):
        return {"found": {"name": "toy", "images": 1, "dim": 1, "alternating": {"seconds_to_goal": seconds}}}

    found = findings_of("sd15_speed", {"parts": {"fit, simulated": fit(59.0)}})
    assert [aim.met for aim in found.aims] == [True, None]
    found = findings_of("sd15_speed", {"parts": {"fit, simulated": fit(None), "fit, photographs": fit(61.0)}})
    assert [aim.met for aim in found.aims] == [False, False]


def test_planted_mixtures_decide():
    from benchmarks.planted_units.methods import SHIPPED, SINGLE
    from benchmarks.planted_units.truth import load_plan

    measure, about = f"realism {load_plan()['realism']['levels'][0]}", {"snr": 1.0, "images": 500}
    rows = [
        {**about, "family": family, "seed": seed, "method": method, "direction": way, measure: value + 0.01 * seed}
        for family in load_plan()["families"]
        for seed in range(3)
        for method, value in {SHIPPED: 1.0, **dict.fromkeys(SINGLE, 0.5)}.items()
        for way in ("increase", "decrease")
    ]
    found = findings_of("planted_units", {"rows": rows})
    assert found.aims
    assert all(aim.met for aim in found.aims)
    assert [one.direction for one in found.measures] == ["increase", "decrease"]
    assert found.measures[0].value == pytest.approx(1.01)


def test_v4_encoders_against_the_aim_and_the_baselines():
    from benchmarks.v4_encoder import report as v4

    medians = {v4.OURS: 0.51, v4.BASELINES[0]: 0.52, v4.BASELINES[1]: 0.2}
    held = {label: {"median_r": [value, 0.1, 0.9], "r": {"a": 0.5}} for label, value in medians.items()}
    found = findings_of("v4_encoder", {"aim": {"session": "s", "median_r": 0.5}, "sessions": {"s": held}})
    assert [aim.met for aim in found.aims] == [True, False, True]


def test_v4_edits_ahead_in_decrease_and_not_behind_in_increase():
    from benchmarks.v4_recorded import report as v4

    def by_angle(value):
        return {"10": [value, value + 0.1, value], "40": [value, value, value + 0.1]}

    changes = {label: {way: by_angle(1.0) for way in ("increase", "decrease")} for label in (v4.OURS, v4.BRAINACTIV)}
    found = findings_of("v4_recorded", {"changes": changes})  # equal: not behind, and not ahead
    assert [aim.met for aim in found.aims] == [True, False]
    changes[v4.OURS] = {"increase": by_angle(0.5), "decrease": by_angle(1.5)}
    assert [aim.met for aim in findings_of("v4_recorded", {"changes": changes}).aims] == [False, True]


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_fixed_schema(tmp_path):
    numbers = {
        "provenance": {**SAID, "of the benchmark": 1},
        "parts": [{"provenance": SAID}],
        "checks": {"It is.": True},
    }
    results = gather((toy(),), write_toy(tmp_path / "toy", numbers), tmp_path)
    assert results == {
        "schema": 2,
        "quick": False,
        "benchmarks": [
            {
                "name": "toy",
                "state": "measured",
                "why": None,
                "commands": ["python -m benchmarks.toy.run --out {out}"],
                "page": "toy/toy.md",
                "sources": [SAID],
                "aims": [{"what": "It is.", "met": True}],
                "measures": [],
            }
        ],
    }


def test_different_sources_are_all_kept():
    other = {**SAID, "seed": 4}
    assert sources_of({"a": {"provenance": SAID, "b": [other, SAID]}}) == [SAID, other]


def test_what_fails_comes_first_then_what_is_open(tmp_path):
    checks = {"Good.": True, "Bad.": False, "Open.": None}
    folders = write_toy(tmp_path / "toy", {"checks": checks, "provenance": SAID})
    run_all.write_results(gather((toy(),), folders, tmp_path), tmp_path, tmp_path / "RESULTS.md")
    lines = (tmp_path / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    assert lines[:5] == ["# Results", "", "**What fails its own aim, first.**", "", "- toy: Bad."]
    assert lines.index("- toy: Bad.") < lines.index("- toy: Open.")
    assert "[toy](toy/toy.md)" in lines
    assert lines[-1] == "The 1 aims that hold are listed in [README.md](README.md)."
    everything = (tmp_path / "README.md").read_text(encoding="utf-8").splitlines()
    places = [everything.index(f"- toy: {text}") for text in ("Bad.", "Open.", "Good.")]
    assert places == sorted(places)
    assert any("python toy.py" in line and "seed 3" in line for line in everything)


def test_a_quick_run_judges_nothing(tmp_path):
    measure = {"what": "w", "value": 1.0, "unit": "SD", "sample": "4 units"}
    folders = write_toy(tmp_path, {"checks": {"Good.": True, "Bad.": False}, "measures": [measure]})
    results = gather((toy(),), folders, tmp_path, quick=True)
    assert results["benchmarks"][0]["aims"] == []
    text = page(results)
    assert text.startswith("# Results (quick run: it works, and measures nothing)\n")
    assert "4 units" not in text


def test_a_file_that_cannot_be_read_fails_alone(tmp_path):
    folders = write_toy(tmp_path, {})
    write_text(tmp_path / "toy.json", "{")
    (entry,) = gather((toy(),), folders, tmp_path)["benchmarks"]
    assert entry["state"] == "failed"
    assert entry["why"].startswith("failed to be read: JSONDecodeError")


def test_tables_and_figures_are_of_one_run(tmp_path):
    folders = write_toy(tmp_path, {"provenance": {**SAID, "seed": 4}})
    (entry,) = gather((toy(),), folders, tmp_path)["benchmarks"]
    assert entry["state"] == "failed"
    assert "toy.md holds the line of no run in toy.json; expected both from one run. Copy both files" in entry["why"]


def test_only_what_was_measured_is_published(tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    folders = write_toy(tmp_path / "toy", {"checks": {}}) | {"other": tmp_path / "toy"}
    write_text(tmp_path / "toy" / "figure.png", "")
    write_text(tmp_path / "toy" / "figure.webp", "")
    write_text(tmp_path / "toy" / "log.txt", "")
    suite = (toy(), Benchmark("other", ("toy.py",)))
    run_all.publish(gather(suite, folders, tmp_path, not_run={"other": "failed"}), suite, folders)
    found = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert found == ["figure.png", "figure.webp", "toy.json", "toy.md"]


def test_the_headline_joins_directions_and_says_what_brackets_are(tmp_path):
    row = {"what": "w", "unit": "SD", "sample": "4 units", "low": 0.5, "high": 1.5, "spread": "95 %"}
    measures = [{**row, "value": 1.0, "direction": "increase"}, {**row, "value": 0.9, "direction": "decrease"}]
    results = gather((toy(),), write_toy(tmp_path / "toy", {"measures": measures}), tmp_path)
    assert headline(results)[2:] == [
        "| w | increase +1.00 SD [+0.50, +1.50]; decrease +0.90 SD [+0.50, +1.50] | 4 units | toy |",
        "",
        "In brackets: 95 %.",
    ]


# ---- what is committed ----------------------------------------------------------------------------------------------


def test_committed_results_are_gathered():
    """After new files in benchmarks/results: python -m benchmarks.run_all --gather."""
    results = gather(SUITE, {one.name: RESULTS for one in SUITE}, ROOT)
    assert json.loads((RESULTS / "results.json").read_text(encoding="utf-8")) == results
    assert (RESULTS / LIST).read_text(encoding="utf-8") == full_list(results)
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    assert text == page(results)
    assert len(text.encode()) <= 15_000
    assert [entry["why"] for entry in results["benchmarks"] if entry["state"] == "failed"] == []
