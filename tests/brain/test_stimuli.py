import json
from collections import Counter
from itertools import pairwise

import pytest
import torch

from vislens_interp.brain.stimuli import (
    _balanced_orders,
    export_stimuli,
    load_stimuli,
    luminance_and_contrast,
    match,
)
from vislens_interp.results.result import LensResult

NAMES = ["a", "b", "c", "d"]


def result(alpha=0.5, seed=0, unit="FFA-1"):
    generator = torch.Generator().manual_seed(seed)
    images = {
        key: torch.rand(4, 3, 8, 8, generator=generator) * 0.6 + 0.2
        for key in ("inputs", "unedited", "increase", "decrease")
    }
    responses = {key: torch.arange(4.0) + place for place, key in enumerate(images)}
    return LensResult(
        unit, "", "encoder", images, responses, 1.0, 2.0, names=NAMES, settings={"alpha": alpha, "seeds": [5, 6, 7, 8]}
    )


def test_what_was_written_is_read_back(tmp_path):
    one = result()
    folder = export_stimuli(one, tmp_path / "set", size=8, spread=lambda images: images.mean((1, 2, 3)), seed=3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["set"]
    found = load_stimuli(folder)
    described = json.loads((folder / "stimuli.json").read_text())
    assert set(described) < set(found.rows[0])
    assert "standard deviations" in described["predicted_response"]["Units"]
    assert len(found) == 4 * 4  # up, down, unedited and random, for each of four inputs
    assert [row["number"] for row in found.rows] == list(range(1, 17))
    for picture, row in zip(found.images, found.rows, strict=True):
        place = NAMES.index(row["source"])
        assert row["target"] == "FFA-1"
        assert row["seed"] == 5 + place
        if row["kind"] == "edited":
            made = one.images[row["direction"]][place]
            torch.testing.assert_close(picture, made, atol=1 / 255, rtol=0)
            assert row["predicted_response"] == pytest.approx(one.standardised[row["direction"]][place].item())
            assert row["alpha"] == 0.5
            assert row["spread"] == pytest.approx(made.mean().item(), abs=1e-5)
        else:
            assert row["predicted_response"] is None


def test_controls_have_the_luminance_and_contrast_of_the_edited(tmp_path):
    one = result()
    found = load_stimuli(export_stimuli(one, tmp_path / "set", size=8))
    blocks = {}
    for row in found.rows:
        blocks.setdefault(row["block"], {}).setdefault(row["kind"], []).append(row)
    assert len(blocks) == 4
    for block in blocks.values():
        for key in ("luminance", "contrast"):
            wanted = sum(row[key] for row in block["edited"]) / 2
            for kind in ("unedited", "random"):
                assert block[kind][0][key] == pytest.approx(wanted, abs=0.005)
        own = {row["source"] for row in block["edited"]}
        assert block["unedited"][0]["source"] in own
        assert block["random"][0]["source"] not in own


def test_several_levels(tmp_path):
    found = load_stimuli(result(0.5).export_stimuli(tmp_path / "set", levels=[result(1.0, seed=1)], size=8))
    count = Counter((row["kind"], row["alpha"]) for row in found.rows)
    assert count == {("edited", 0.5): 8, ("edited", 1.0): 8, ("unedited", 0.0): 4, ("random", 0.0): 4}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_orders_are_balanced(count):
    orders = _balanced_orders(count)
    for place in range(count):
        assert len(set(Counter(order[place] for order in orders).values())) == 1
    follows = Counter(pair for order in orders for pair in pairwise(order))
    assert len(follows) == count * (count - 1)
    assert len(set(follows.values())) == 1


def test_match_reaches_what_can_be_reached():
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([0.3, 0.5, 0.6]), torch.tensor([0.05, 0.1, 0.15])
    made = match(images, *wanted)
    assert made.min() >= 0
    assert made.max() <= 1
    for got, want in zip(luminance_and_contrast(made), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=2e-3, rtol=0)


def test_the_order_is_the_seeds(tmp_path):
    files = [
        load_stimuli(export_stimuli(result(), tmp_path / str(number), size=8, seed=seed)).rows
        for number, seed in enumerate((1, 1, 2))
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="is there already; expected a new one"):
        export_stimuli(result(), tmp_path)
    with pytest.raises(ValueError, match="results are of units 'FFA-1' and 'PPA'"):
        export_stimuli([result(), result(unit="PPA")], tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="holds no stimuli.tsv"):
        load_stimuli(tmp_path)
    folder = export_stimuli(result(), tmp_path / "set", size=8)
    (folder / "0003.png").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 0003.png of 16 pictures"):
        load_stimuli(folder)
    (folder / "stimuli.tsv").write_text("number\n1\n")
    with pytest.raises(ValueError, match=r"stimuli.tsv' holds \['number'\] in line 1; expected"):
        load_stimuli(folder)
