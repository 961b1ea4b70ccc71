"""The folder of an atlas: what it holds, what others read of it, and what kills and hostile hands leave."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from small_layer import CONSTANT, DEAD, ORIGINAL, TWIN, UNITS, clouds

from vislens_interp.atlas import Atlas, open_atlas
from vislens_interp.atlas.pictures import CELL, encode_jpeg, paint, sheet, thumbnails
from vislens_interp.atlas.population import layer_map
from vislens_interp.atlas.store import write_arrow
from vislens_interp.files import locked

UNIT = 4


def contents(folder):
    """Every file of a folder and its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_row_a_unit(store, fitted):
    rows = {row["unit"]: row for row in store.table().to_pylist()}
    assert sorted(rows) == list(range(UNITS))
    assert rows[DEAD]["state"] == "dead"
    assert rows[CONSTANT]["reasons"] == ["its response is constant"]
    assert rows[DEAD]["correlation"] is None
    assert rows[DEAD]["sheet"] is None
    assert rows[TWIN]["duplicate_of"] == ORIGINAL
    assert rows[ORIGINAL]["duplicate_of"] is None
    row, fit = rows[UNIT], fitted.fit_
    assert row["correlation"] == pytest.approx(fit.readouts.correlation[fit.column_of[UNIT]].item(), abs=1e-6)
    best = int(fit.responses[:, UNIT].argmax())
    assert row["top_images"][0] == fit.image_names[best]
    expected = (fit.responses[best, UNIT] - fit.responses[:, UNIT].mean()) / fit.responses[:, UNIT].std()
    assert row["top_responses"][0] == pytest.approx(expected.item(), abs=1e-3)
    assert "12 units" in store.describe()
    assert "1 dead, 1 constant, 1 duplicates" in store.describe()


def test_pictures_move_the_unit_both_ways(store):
    alive = [row for row in store.table().to_pylist() if row["state"] == "alive"]
    assert np.mean([np.mean(row["increase"]) for row in alive]) > 0.1
    assert np.mean([np.mean(row["decrease"]) for row in alive]) < -0.1
    for row in alive:
        assert row["doses"] == [-1, -0.5, 0, 0.5, 1]
        assert row["dose_response"][2] == 0
        assert row["dose_response"][4] == pytest.approx(np.mean(row["increase"]), abs=1e-5)
        assert row["error"] is None


def test_a_picture_does_not_depend_on_the_units_beside_it(fitted, backend):
    fit = fitted.fit_
    inputs = fit.pictures([0, 1, 2])
    together = paint(backend.closed_loop, inputs, fit.directions[:3])
    alone = paint(backend.closed_loop, inputs[1:2], fit.directions[1:2])
    apart = (together[1] - alone[0]).abs().mean()
    assert apart < 0.02 * (together[0] - together[1]).abs().mean()


def test_a_sheet_shows_top_images_inputs_and_edits(store, fitted):
    with Image.open(store.folder / "sheets" / f"{UNIT}.webp") as opened:
        picture = np.asarray(opened.convert("RGB"), dtype=float)
    assert picture.shape == (4 * CELL, 4 * CELL, 3)
    top = fitted.fit_.cells(fitted.fit_.top_rows[UNIT].tolist())[0].numpy().astype(float)
    assert np.abs(picture[:CELL, :CELL] - top).mean() < 12
    start = thumbnails(fitted.fit_.pictures([UNIT])[0])[1].numpy().astype(float)
    assert np.abs(picture[CELL : 2 * CELL, CELL : 2 * CELL] - start).mean() < 12
    assert (picture[CELL + 8 :, 2 * CELL + 8 :] > 225).all()  # two inputs; WebP rings a little beside pictures
    assert sheet([torch.zeros(1, CELL, CELL, 3, dtype=torch.uint8)], 1) == sheet(
        [torch.zeros(1, CELL, CELL, 3, dtype=torch.uint8)], 1
    )


def test_an_atlas_of_format_1_is_looked_up(store, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(store.folder, folder)
    write_arrow(folder / "units.parquet", store.table().drop_columns(["inputs", "input_responses"]))
    manifest = json.loads((folder / "atlas.json").read_text())
    (folder / "atlas.json").write_text(json.dumps(manifest | {"format": 1}))
    old = open_atlas(folder)
    assert old.query("kind1") == store.query("kind1")
    assert set(old.table()["inputs"].to_pylist()) == {None}
    assert old.most_alike(old)[0]["correlation"] == pytest.approx(1)
    (folder / "atlas.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"column inputs is missing"):
        open_atlas(folder).table()


def test_others_read_the_table(store):
    path = str(store.path)
    asked = f"select unit from '{path}' where passes order by correlation desc"
    ours = store.table(["unit", "passes", "correlation"]).to_pandas()
    ours = ours[ours.passes].sort_values("correlation", ascending=False).unit.tolist()
    assert [row[0] for row in duckdb.sql(asked).fetchall()] == ours
    assert pd.read_parquet(path).shape == (UNITS, 29)
    assert pl.read_parquet(path).filter(pl.col("state") == "dead")["unit"].to_list() == [DEAD]


def test_a_query_finds_numbers_words_and_images(store):
    alive = UNITS - 2
    assert len(store.query("CLOUD")) == alive
    assert len(store.query("cloud", limit=4)) == 4
    assert store.query("cloud kind1") == store.query("kind1")
    assert {row["words"][1] for row in store.query("kind1")} == {"kind1"}
    assert store.query("nothing of this") == []
    best = store.query("kind1")[0]
    assert best["unit"] in [row["unit"] for row in store.query(best["top_images"][0])]
    correlations = [row["correlation"] for row in store.query("cloud") if row["passes"]]
    assert correlations == sorted(correlations, reverse=True)
    with pytest.raises(ValueError, match=r"text='  ' holds no word"):
        store.query("  ")


def test_a_finished_atlas_is_not_made_again(store, fitted, monkeypatch):
    before = contents(store.folder)
    monkeypatch.setattr("vislens_interp.atlas.run.paint", lambda *_: pytest.fail("a picture was made again"))
    fitted.save(store.folder, shard=5)
    assert contents(store.folder) == before


def test_a_killed_run_goes_on_to_the_same_bytes(store, tmp_path):
    folder = tmp_path / "killed"
    threads = str(torch.get_num_threads())
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(folder), threads]
    kept = {}
    for stage in ("reading/*.safetensors", "shards/*.parquet"):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not list(folder.glob(stage)) and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("shards/*.parquet")}
    subprocess.run(command, check=True, capture_output=True)
    assert contents(folder) == contents(store.folder)
    assert kept
    assert all(path.stat().st_mtime_ns == earlier for path, earlier in kept.items()), "a finished shard was made again"


def test_another_fit_is_refused_and_nothing_is_lost(store, network, backend, images):
    other = Atlas(network, "layer", images, backend=backend, seed=1).fit(inputs=0)
    before = contents(store.folder)
    with pytest.raises(ValueError, match=r"holds an atlas of SmallLayer, layer layer, with other weights, images or"):
        other.save(store.folder)
    with pytest.raises(ValueError, match=r"holds the fit \w+, expected \w+: another model, layer, reference"):
        Atlas(network, "layer", images, backend=backend, seed=1).fit(store.folder)
    assert contents(store.folder) == before


def test_folders_that_are_no_atlas_are_refused(fitted, store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files \(first: 'thesis.txt'\) and no atlas"):
        fitted.save(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match=r"holds no atlas; expected one that vislens atlas wrote"):
        open_atlas(tmp_path / "mine")
    with locked(tmp_path / "busy" / "atlas"), pytest.raises(BlockingIOError, match=r"being written by another process"):
        fitted.save(tmp_path / "busy")
    with pytest.raises(ValueError, match=r"shard=0 must be at least 1"):
        fitted.save(tmp_path / "none", shard=0)


def test_a_half_deleted_atlas_says_what_is_gone_and_is_made_whole(store, fitted, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(store.folder, folder)
    whole = contents(folder)
    next((folder / "shards").glob("000005-*.parquet")).unlink()
    (folder / "units.parquet").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 2 files \(first: units.parquet\): it is unfinished, or somebody"
    ):
        open_atlas(folder)
    fitted.save(folder, shard=5)
    assert contents(folder) == whole
    (folder / "sheets" / f"{UNIT}.webp").unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks 1 files \(first: sheets/{UNIT}.webp\)"):
        open_atlas(folder)
    fitted.save(folder, shard=5)
    assert contents(folder) == whole
    (folder / "atlas.json").write_text('{"kind": ')
    with pytest.raises(ValueError, match=r"atlas.json' is damaged \(JSONDecodeError"):
        open_atlas(folder)
    (folder / "atlas.json").write_text(json.dumps({**store.manifest, "format": 99, "shards": []}))
    with pytest.raises(ValueError, match=r"of format 99; expected a vislens_interp atlas of format 2 at most. Upgrade"):
        open_atlas(folder)


def test_a_poisoned_unit_is_recorded_and_the_others_are_made(fitted, tmp_path):
    directions = fitted.fit_.directions
    column = fitted.fit_.column_of[UNIT]
    kept = directions[column].clone()
    directions[column] = torch.nan
    try:
        store = fitted.save(tmp_path / "poisoned", units=[UNIT, UNIT + 1], site=False)
    finally:
        directions[column] = kept
    poisoned, well = store.table().to_pylist()
    assert poisoned["error"] == f"ValueError: unit {UNIT}: its read-out is not finite"
    assert poisoned["increase"] is None
    assert well["error"] is None
    assert len(well["increase"]) == 2
    assert "1 failed" in store.describe()


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (torch.zeros(9, dtype=torch.uint8), "which is no picture (cannot identify image file"),
        (encode_jpeg(torch.rand(1, 3, 40, 64))[0], "of another size than "),
    ],
)
def test_a_damaged_photograph_is_named(fitted, tmp_path, damaged, reason):
    fit = fitted.fit_
    row = int(fit.input_rows[UNIT, 1])
    others = [unit for unit in fit.column_of if row not in fit.input_rows[unit]]
    whole, fit.inputs[row] = fit.inputs[row], damaged
    try:
        units = sorted([UNIT, others[0]])
        store = fitted.save(tmp_path / "damaged", units=units, site=False)
    finally:
        fit.inputs[row] = whole
    rows = {one["unit"]: one for one in store.table().to_pylist()}
    assert rows[UNIT]["error"].startswith(f"ValueError: inputs holds {fit.input_names[row]!r}")
    assert reason in rows[UNIT]["error"]
    assert rows[others[0]]["error"] is None


def test_a_backend_without_a_closed_loop_makes_an_atlas_without_pictures(network, tmp_path):
    atlas = Atlas(network, "layer", clouds(220, side=32), backend="cifar10")
    for inputs in (2, clouds(2, side=32)):
        with pytest.raises(ValueError, match=r"backend 'cifar10' cannot change pictures in a closed loop"):
            atlas.fit(inputs=inputs)
    atlas = Atlas(network, "layer", clouds(220, side=32), backend="cifar10").fit(inputs=0)
    rows = atlas.save(tmp_path / "atlas").table().to_pylist()
    assert rows[UNIT]["increase"] is None
    assert rows[UNIT]["sheet"] == f"sheets/{UNIT}.webp"


class Refusing:
    """An executor whose workers all die."""

    def submit(self, work, *arguments):
        future = Future()
        future.set_exception(OSError("the node went away"))
        return future


def test_an_executor_needs_a_model_by_name(fitted, tmp_path):
    with pytest.raises(ValueError, match=r"executor= needs a model, layer and backend by name"):
        fitted.save(tmp_path / "atlas", executor=Refusing())


def test_another_layer_s_atlas_is_compared(store, network, backend, images, tmp_path):
    before = Atlas(network, "convolution", images, backend=backend).fit(inputs=0)
    linear = before.save(tmp_path / "linear", site=False)
    pairs = store.most_alike(linear)
    assert {row["unit"] for row in pairs} == set(range(UNITS)) - {DEAD, CONSTANT}
    assert sum(row["unit"] == row["other"] or {row["unit"], row["other"]} == {ORIGINAL, TWIN} for row in pairs) >= 5
    assert pairs == sorted(pairs, key=lambda row: (-row["correlation"], row["unit"]))
    others = Atlas(network, "layer", clouds(210, seed=8), backend=backend).fit(inputs=0)
    with pytest.raises(ValueError, match=r"was made from other reference images than"):
        store.most_alike(others.save(tmp_path / "others", units=[0], site=False))


def test_a_missing_extra_says_how_it_is_installed(fitted, tmp_path, monkeypatch):
    for module in ("pyarrow", "sklearn.manifold"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"kept by pyarrow, which is not installed; .* 'vislens_interp\[atlas\]'"):
        fitted.save(tmp_path / "atlas")
    with pytest.raises(ImportError, match=r"needs scikit-learn, which is not installed; .* 'vislens_interp\[atlas\]'"):
        layer_map(torch.randn(30, 12))


def test_a_store_in_a_notebook_escapes_what_it_shows(store):
    hostile = dataclasses.replace(
        store,
        manifest={**store.manifest, "fit": {**store.manifest["fit"], "target": {"name": "<script>", "layer": "x"}}},
    )
    html = hostile._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;, layer x" in html
    assert html.count("<tr>") == 1 + min(10, sum(store.table(["passes"])["passes"].to_pylist()))


def test_a_store_is_a_data_frame(store):
    assert store.to_pandas()["unit"].tolist() == store.table(["unit"])["unit"].to_pylist()
