"""What a loaded file has to hold: each message names the file and the field."""

import math
import re

import pytest

from vislens_interp.schema import check_inside, check_schema

SPEC = {
    "unit": str,
    "scale": float,
    "seeds": [int],
    "images": {str: [str]},
    "kind": frozenset({"a", "b"}),
    "evidence": ({"p": float, "copies?": int}, None),
    "free?": object,
}
GOOD = {"unit": "16", "scale": 1, "seeds": [1], "images": {"inputs": ["x.png"]}, "kind": "a", "evidence": {"p": 0.5}}


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("good", [{}, {"evidence": None}, {"more": 3}, {"evidence": {"p": 0, "copies": 2}}])
def test_what_fits(good):
    check_schema({**GOOD, **good}, SPEC, "'file'")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"unit": 16}, "unit is 16; expected text"),
        ({"scale": "1"}, "scale is '1'; expected a finite number"),
        ({"scale": math.nan}, "scale is nan; expected a finite number"),
        ({"scale": True}, "scale is True; expected a finite number"),
        ({"seeds": [1, 2.5]}, r"seeds\[1\] is 2.5; expected a whole number"),
        ({"seeds": {"a": 1}}, "seeds is a dict; expected a list"),
        ({"images": {"inputs": [None]}}, r"images\['inputs'\]\[0\] is None; expected text"),
        ({"images": []}, "images is a list; expected a dictionary"),
        ({"kind": "c"}, r"kind is 'c'; expected one of \['a', 'b'\]"),
        ({"evidence": "x" * 100}, "evidence is 'xxx.*; expected a dictionary or null"),
        ({"evidence": {}}, "evidence.p is missing; expected a finite number"),
        ({"evidence": {"p": 1, "copies": None}}, "evidence.copies is None; expected a whole number"),
        ({"free": nested(100)}, "free is nested more than 40 levels deep"),
    ],
)
def test_what_does_not_fit_is_named(bad, message):
    with pytest.raises(ValueError, match=rf"'file': {message}.*Restore a copy"):
        check_schema({**GOOD, **bad}, SPEC, "'file'")


def test_the_whole_may_be_wrong():
    with pytest.raises(ValueError, match="'file': the whole is a list; expected a dictionary"):
        check_schema([], SPEC, "'file'")
    with pytest.raises(ValueError, match="'file': unit is missing; expected text"):
        check_schema({}, SPEC, "'file'")


@pytest.mark.parametrize(
    "file", ["", "/etc/passwd", "../x.png", "a/../../x.png", "C:\\x.png", "a\\..\\..\\x", "x\0.png"]
)
def test_a_path_outside_is_refused(tmp_path, file):
    with pytest.raises(ValueError, match=f"'file': images names {re.escape(repr(file))}, outside the folder"):
        check_inside(tmp_path, file, "'file'", "images")


def test_a_link_to_the_outside_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="outside the folder"):
        check_inside(tmp_path / "in", "link/secret.png", "'file'", "images")
    assert check_inside(tmp_path / "in", "images/a.png", "'file'", "images") == tmp_path / "in" / "images" / "a.png"
