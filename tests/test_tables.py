"""Names of pictures and tables: what is shown, what a spreadsheet may read, and what comes back."""

import csv
import io
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislens_interp.tables import Dialect, cell, csv_text, display_name, display_text, from_cell, read_csv, shortened

names = st.one_of(st.text(), st.text(st.characters(), min_size=1), st.binary(min_size=1).map(os.fsdecode))


@given(names)
def test_a_cell_is_one_line_that_no_spreadsheet_runs_and_comes_back(text):
    written = cell(text)
    assert from_cell(written) == text
    assert written.lstrip()[:1] not in set("=+-@＝＋－＠")
    assert re.search("[\x00-\x1f\x7f\u2028\ud800-\udfff]", written) is None
    written.encode("utf-8")


@given(names)
def test_what_is_shown_can_be_encoded_and_holds_no_control_characters(name):
    for shown in (display_text(name), display_name(name), shortened(name, 20)):
        shown.encode("utf-8")
        assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown) is None
    assert "\n" not in display_name(name)
    assert len(display_name(name)) <= 28


@given(st.lists(st.tuples(names, st.floats(allow_nan=False), st.none() | st.integers())))
def test_a_table_comes_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text(csv_text(("name", "value", "seed"), rows), encoding="utf-8", newline="")
    read = read_csv(path, ("name", "value", "seed"))
    assert [row["name"] for row in read] == [name for name, _, _ in rows]
    assert [float(row["value"]) for row in read] == [value for _, value, _ in rows]
    assert [row["seed"] for row in read] == ["" if seed is None else str(seed) for *_, seed in rows]
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(lines) == len(rows) + 2  # one line a row: a line break is never inside a cell


def test_numbers_are_written_with_so_many_digits():
    text = csv_text(("name", "a", "b"), [("=x", -1 / 3, None)], digits=3)
    assert list(csv.reader(io.StringIO(text), Dialect)) == [["name", "a", "b"], ["'=x", "-0.333", ""]]


@pytest.mark.parametrize(
    "content", [b"name,other\na,1\n", b"name,value\na\n", b"name,value\n\xff,1\n", b'name,value\n"a\n', b""]
)
def test_another_table_is_refused(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"table.csv' (holds .* in line|is no table in UTF-8).*Restore a copy"):
        read_csv(path, ("name", "value"))


def test_an_old_table_is_read_as_it_is(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("name,value\n'a\\u000a,1\n", encoding="utf-8")
    assert read_csv(path, ("name", "value"), escaped=False)[0]["name"] == "'a\\u000a"
    assert read_csv(path, ("name", "value"))[0]["name"] == "a\n"
