"""The atlas benchmark: what its page says follows from what was measured, and a part runs by itself."""

import json

import pytest
import torch

from benchmarks.atlas.report import checks_of, exponent, lens_numbers
from benchmarks.atlas.run import main
from benchmarks.common import package as vl
from vislens_interp.images import to_pil

LENSES = {
    "atlas_units": 10,
    "layer_units": 528,
    "inputs": 6,
    "references": 2118,
    "atlas_fit": 100.0,
    "atlas_pictures": 20.0,
    "site_bytes": 500_000,
    "peak_gib": 2.0,
    "lens_fit": [40.0, 10.0, 12.0],
    "lens_pictures": [2.0, 2.0, 2.0],
}


def test_512_units_are_projected_from_the_fit_and_a_unit():
    numbers = lens_numbers(LENSES)
    atlas, loop = 100 + 512 * 2, 42 + 511 * 13
    assert numbers["minutes"] == pytest.approx(atlas / 120)
    assert numbers["ratio"] == pytest.approx(loop / atlas)
    assert numbers["ratio_a_unit"] == pytest.approx(6.5)
    assert numbers["ratio_of_fits"] == pytest.approx((40 + 511 * 11) / 100)
    assert numbers["kilobytes"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("pictures", "units", "met"), [(20.0, 10, None), (40.0, 10, False), (1000.0, 512, True), (2000.0, 512, False)]
)
def test_a_line_that_is_not_met_says_so_and_what_was_not_run_is_open(pictures, units, met):
    checks = checks_of({"lenses": LENSES | {"atlas_pictures": pictures, "atlas_units": units}})
    (minutes,) = [text for text in checks if "minutes of two cores" in text]
    assert checks[minutes] is met
    assert ("projected from 10" in minutes) == (units == 10)
    assert checks["ten kills: not run"] is None


def test_an_exponent_is_that_of_the_steepest_step():
    rows = [{"units": 10, "fit": 1.0}, {"units": 20, "fit": 2.0}, {"units": 40, "fit": 8.0}]
    assert exponent(rows, "units") == pytest.approx(2)


def test_a_part_runs_alone_and_is_kept(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--quick", "--only", "growth"]) == 0
    assert main(["--out", str(tmp_path), "--only"]) == 0
    page, numbers = (tmp_path / "atlas.md").read_text(), json.loads((tmp_path / "atlas.json").read_text())
    assert "| 300 | 600 | 40 |" in page
    assert "ten kills: not run" in page
    assert set(numbers["parts"]) == {"growth"}
    assert (tmp_path / "atlas_growth.webp").stat().st_size < 60_000
    assert capsys.readouterr().out.count("# Atlas: cost") == 2


def test_pairs_to_judge_are_written_and_counted(tmp_path, capsys):
    for row, image in enumerate(to_pil(torch.rand(210, 3, 8, 8, generator=torch.Generator().manual_seed(0)))):
        (tmp_path / "photographs").mkdir(exist_ok=True)
        image.save(tmp_path / f"photographs/{row:03d}.png")
    atlas = vl.Atlas("zoo:cifar10_convnet", "conv1", str(tmp_path / "photographs"), backend="cifar10").fit(inputs=0)
    atlas.save(tmp_path / "atlas", units=range(3), site=False)
    main(["--choices", str(tmp_path / "atlas"), str(tmp_path / "photographs"), "--out", str(tmp_path / "choices")])
    key = json.loads((tmp_path / "choices/key.json").read_text())
    assert set(key) == {"0", "1", "2"}
    assert {path.stem for path in (tmp_path / "choices").glob("*.png")} == set(key)
    (tmp_path / "choices/guesses.json").write_text(json.dumps(key | {"1": ["-"] * 3}))
    main(["--score", "--out", str(tmp_path / "choices")])
    assert capsys.readouterr().out.endswith("6 of 9 pairs; right by unit: {'0': 3, '1': 0, '2': 3}\n")
