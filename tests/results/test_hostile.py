"""Hostile and damaged input: no string of a file becomes a tag, and what was edited is named or harmless."""

import copy
import csv
import json
import os
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_reader import Page, loads_nothing, make_background, make_result
from PIL import Image

from vislens_interp.landscape.evidence import Evidence
from vislens_interp.results.result import LensResult
from vislens_interp.tables import Dialect

TAG = "</style></svg></title><meta http-equiv=refresh><script>alert(1)</script>\"'><img src=x onerror=y>{{7*7}}{%"
OURS = {"html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "article", "figure"}
OURS |= {"figcaption", "p", "h1", "h2", "h3", "div", "span", "strong", "b", "br", "img", "code", "details", "summary"}
OURS |= {
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "svg",
    "rect",
    "line",
    "circle",
    "path",
    "polygon",
    "polyline",
    "text",
}


def hostile_result(**changes):
    background = make_background(modes=2)
    background.names[:] = [f"{TAG}{row}" for row in range(len(background.names))]
    for row in background.galleries.values():
        row.names[:] = [TAG] * len(row.names)
    arguments = {
        "unit": TAG,
        "layer": TAG,
        "model": TAG,
        "names": [f"{TAG}{row}" for row in range(3)],
        "evidence": Evidence(TAG, 0.1, 0.5, 1, 0.5, 3, 100, 10, [TAG]),
        "settings": {
            **dict.fromkeys(("method", "judge", "similarity_network", "reference_set", "backend"), TAG),
            "direction": {TAG: TAG},
            "settings": {"edit": {"goal": TAG}, TAG: [TAG, {TAG: TAG}]},
            "versions": {TAG: TAG},
        },
        "background": background,
    }
    return make_result(modes=2, **(arguments | changes))


def harmless(html):
    page = Page(html)
    loads_nothing(page)
    assert {tag for tag, _ in page.tags} <= OURS
    assert not any(name.startswith("on") for _, values in page.tags for name in values)
    assert len(page.of("meta")) == 4
    return page


def test_no_string_of_a_result_becomes_a_tag(tmp_path):
    result = hostile_result()
    assert TAG in harmless(result.html()).text
    folder = result.save(tmp_path / "out")
    harmless((folder / "report.html").read_text(encoding="utf-8"))
    loaded = LensResult.load(folder)
    harmless(loaded.html())
    assert loaded.names == result.names
    assert loaded.background.names == result.background.names
    harmless_part(result)


def harmless_part(result):
    cell = Page(result._repr_html_())
    assert {tag for tag, _ in cell.tags} <= OURS
    assert len(cell.of("img")) == 4 * 3
    assert "&lt;script&gt;" in result.evidence._repr_html_()


names = st.one_of(
    st.text(min_size=1, max_size=40),
    st.binary(min_size=1, max_size=40).map(os.fsdecode),
    st.sampled_from(
        ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "a\r\nb", "a\0b", "\u202egnp.exe", "cat\udcff.png"]
    ),
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(names, min_size=3, max_size=3))
def test_names_come_back_and_no_spreadsheet_runs_them(tmp_path_factory, given_names):
    background = make_background()
    background.names[:3] = given_names
    result = make_result(names=given_names, background=background)
    folder = result.save(tmp_path_factory.mktemp("names") / "out")
    loaded = LensResult.load(folder)
    assert loaded.names == given_names
    assert loaded.background.names == background.names
    Page((folder / "report.html").read_text(encoding="utf-8"))
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, Dialect))
    assert len(rows) == 1 + 4 * 3
    assert not any(row[1].lstrip().startswith(("=", "+", "-", "@")) for row in rows)
    with Image.open(folder / "figure.png") as figure:
        figure.load()


# Edited files


JUNK = [
    None,
    True,
    -1,
    0,
    1e308,
    10**400,
    "",
    "x",
    TAG,
    "../../etc/passwd",
    [],
    [[]],
    ["x"],
    {},
    {"x": "y"},
    [None] * 3,
]


def places(value, path=()):
    """Every place in nested JSON."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def edited(content, draw):
    changed = copy.deepcopy(content)
    path = draw.choice([path for path in places(content) if path[0] not in ("statistics", "kind", "files")])
    at = changed
    for key in path[:-1]:
        at = at[key]
    if draw.random() < 0.25:
        del at[path[-1]]
    else:
        at[path[-1]] = draw.choice(JUNK)
    return changed, path


def test_an_edited_result_loads_or_is_refused_in_a_line(tmp_path):
    folder = make_result(modes=2).save(tmp_path / "out")
    content, draw = json.loads((folder / "result.json").read_text(encoding="utf-8")), random.Random(0)
    refused = 0
    for _ in range(150):
        changed, path = edited(content, draw)
        (folder / "result.json").write_text(json.dumps(changed), encoding="utf-8")
        said = ""
        try:
            harmless(LensResult.load(folder).html(max_images=1))
        except (ValueError, FileNotFoundError) as error:
            refused, said = refused + 1, str(error)
        assert not said or str(folder) in said, (path, said)
    assert refused > 50


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("unit", 16, "unit is 16; expected text"),
        ("evidence", {"unit": "16"}, "evidence.correlation is missing"),
        ("images", {"inputs": ["../a.png"]}, r"images\['inputs'\] names '../a.png', outside the folder"),
        ("settings", {"direction": {"16": ["up"]}}, r"settings.direction\['16'\] is a list; expected text"),
        ("background", {"means": {}}, "background.moves is missing"),
    ],
)
def test_the_field_is_named(tmp_path, field, value, message):
    folder = make_result().save(tmp_path / "out")
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    (folder / "result.json").write_text(json.dumps({**content, field: value}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"result.json': {message}"):
        LensResult.load(folder)


def test_depth_is_bounded(tmp_path):
    folder = make_result().save(tmp_path / "out")
    content = (folder / "result.json").read_text(encoding="utf-8")
    for levels, message in ((200, "settings is nested more than 40 levels"), (100_000, "truncated or no JSON")):
        deep = content.replace('"settings": {', '"settings": {"deep": ' + "[" * levels + "]" * levels + ",", 1)
        (folder / "result.json").write_text(deep, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            LensResult.load(folder)


@pytest.mark.parametrize("line", ["a", "a,b,1,2,3", "a,1,1,x,0", "=1,nan"])
def test_an_edited_table_is_named(tmp_path, line):
    folder = make_result().save(tmp_path / "out")
    table = folder / "reference.csv"
    table.write_text(table.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="reference.csv"):
        LensResult.load(folder)


def test_parts_of_a_background_that_do_not_fit():
    whole = make_background()
    for part, value, message in (
        ("responses", torch.zeros(0), "background has 0 responses"),
        ("means", {"up": torch.zeros(1, 2)}, r"background has means of \['up'\]"),
        ("moves", {"increase": torch.zeros(1, 2)}, "background.moves differ in length.*'unedited' among them"),
        ("galleries", {"../top": whole.galleries["top"]}, r"background.galleries\['../top'\] has 10 images"),
        ("changes", torch.zeros(1, 3), r"background.changes has shape \(1, 3\) for alphas"),
    ):
        with pytest.raises(ValueError, match=message):
            type(whole)(**{**vars(whole), part: value})
