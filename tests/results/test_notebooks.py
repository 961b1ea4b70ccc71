"""What notebooks show of results, and results as data frames and Parquet files."""

import sys

import numpy as np
import pytest
import torch
from page_reader import Page, make_result
from test_hostile import OURS, TAG, hostile_result

from vislens_interp.brain import BrainDataset
from vislens_interp.evaluation.comparison import Comparison
from vislens_interp.report.contact_sheet import ContactRow, ContactSheet


def a_comparison(method="edit"):
    shape = (1, 2, 2)
    scores = {
        (method, "increase", "response_change_from_input"): np.full(shape, 1.5),
        (method, "decrease", "response_change_from_input"): np.full(shape, -0.5),
        (method, "increase", "similarity"): np.full(shape, 0.25),
    }
    return Comparison([method], ["17"], [0, 1], ["a", "b"], scores, notes=[f"of {method}"])


def a_sheet(text="17", settings=None):
    result = hostile_result()
    images = dict.fromkeys(("increase", "decrease"), result.images["inputs"])
    changes = {"increase": torch.full((3,), 2.0), "decrease": torch.full((3,), -1.0)}
    inputs, read = result.images["inputs"], dict.fromkeys(("inputs", "unedited"), torch.ones(3))
    top = result.background.galleries["top"]
    row = ContactRow(text, result.evidence, top, inputs, inputs, result.names, read, images, changes)
    return ContactSheet(text, [row], {text: "dead"}, settings or {})


def a_dataset(target="FFA", name="face.png"):
    responses = torch.tensor([[[1.0], [2.0]], [[3.0], [float("nan")]]])
    return BrainDataset(torch.rand(2, 3, 4, 4), responses, [target], names=[name, f"{name}2"], units="beta")


@pytest.mark.parametrize(
    "shown", [a_comparison(TAG), a_sheet(TAG), a_dataset(TAG, TAG)], ids=lambda value: type(value).__name__
)
def test_no_string_becomes_a_tag_in_a_notebook(shown):
    html = shown._repr_html_()
    cell = Page(html)
    assert {tag for tag, _ in cell.tags} <= OURS | {"pre"}
    assert not any(name.startswith("on") for _, values in cell.tags for name in values)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_comparison_shows_means_and_intervals():
    text = Page(a_comparison()._repr_html_()).text
    assert "edit, preferred" in text
    assert "1.50 1.50 to 1.50" in text
    assert "0.25 0.25 to 0.25" in text


def test_a_contact_sheet_shows_a_row_a_unit():
    cell = Page(a_sheet()._repr_html_())
    assert len(cell.of("img")) == 3
    assert "Δr +2.00" in cell.text
    assert "left out, dead" in cell.text
    prototypes = Page(a_sheet(settings={"inputs": {"chosen": "prototypes"}})._repr_html_())
    assert len(prototypes.of("img")) == 4
    assert "top image suppressed prototype preferred evidence" in prototypes.text


def test_a_dataset_shows_its_summary():
    assert "pairing: rows of responses are rows of images" in a_dataset()._repr_html_()


def test_a_figure_shows_itself_without_pyplot():
    figure = make_result().figure()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_result_is_a_table_with_a_row_a_picture(tmp_path):
    pandas = pytest.importorskip("pandas")
    result = make_result()
    frame = result.to_pandas()
    assert len(frame) == len(result.images) * len(result)
    chosen = frame[frame.picture == "increase"]
    assert chosen.response_change.tolist() == result.response_change["increase"].tolist()
    assert chosen.image.tolist() == result.names
    assert frame[frame.picture == "inputs"].response_change.isna().all()
    again = pandas.read_parquet(result.to_parquet(tmp_path / "result.parquet"))
    pandas.testing.assert_frame_equal(again, frame, check_dtype=False)


def test_a_comparison_is_its_table(tmp_path):
    pandas = pytest.importorskip("pandas")
    comparison = a_comparison()
    assert comparison.to_pandas().to_dict("records") == comparison.table()
    again = pandas.read_parquet(comparison.to_parquet(tmp_path / "scores.parquet"))
    assert again.to_dict("records") == comparison.table()


def test_a_dataset_has_a_row_for_each_repetition_that_there_is(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = a_dataset().to_pandas()
    assert frame.to_dict("list") == {
        "image": ["face.png", "face.png", "face.png2"],
        "repetition": [0, 1, 0],
        "FFA": [1.0, 2.0, 3.0],
    }
    again = pandas.read_parquet(a_dataset().to_parquet(tmp_path / "data.parquet"))
    assert again.to_dict("list") == frame.to_dict("list")


def test_a_target_named_as_a_column_is_refused():
    with pytest.raises(ValueError, match="targets holds 'image', a column of its own. Rename this target"):
        a_dataset("image").to_pandas()


@pytest.mark.parametrize(("method", "library"), [("to_pandas", "pandas"), ("to_parquet", "pyarrow")])
def test_a_missing_library_is_named_with_its_extra(method, library, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{method}\(\) needs {library}.*pip install 'vislens_interp\[tables\]'"):
        getattr(a_comparison(), method)(*([tmp_path / "x.parquet"] if method == "to_parquet" else []))


def test_a_parquet_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"x\.parquet"):
        a_comparison().to_parquet(tmp_path / "file" / "x.parquet")
