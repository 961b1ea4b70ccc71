"""Names of files that are no text, no line or no tag: read, cached, said and kept as they are."""

import json
import os
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vislens_interp.backends.cache import RowCache
from vislens_interp.cli import _one_line
from vislens_interp.files import load_state, locked, save_state, write_folder, write_text
from vislens_interp.images import ImageFiles, load_images
from vislens_interp.streams import usable_streams
from vislens_interp.training.data import read_images

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of files are any bytes on Linux")
# Any bytes but a slash and an end, of a length that leaves room for a suffix; no hidden name.
RAW = st.binary(min_size=1, max_size=60).map(os.fsdecode) | st.text(min_size=1, max_size=40)
NAMES = RAW.map(lambda name: name.replace("/", "-").replace("\0", "0")).filter(lambda name: name[0] != ".")
HOSTILE = ["<script>alert(1)<svg onload=x>", "=cmd|calc!A0", "a\nb", "a\rb\t", "\udcff\udc80", "\u202egnp", "--out"]
HOSTILE += ["%s%n", "a" * 200, "'\"`"]


def is_encodable(name):
    try:
        return len(os.fsencode(name)) < 200 or name in HOSTILE
    except UnicodeEncodeError:
        return False


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES | st.sampled_from(HOSTILE), min_size=1, max_size=3, unique=True))
def test_pictures_of_any_name(names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    names = [name for name in names if is_encodable(name)]
    (folder / "class").mkdir()
    for row, name in enumerate(names):
        with open(folder / "class" / f"{name}.png", "wb") as file:
            Image.new("RGB", (4, 4), (row, 0, 0)).save(file, "PNG")
    if not names:
        return
    expected = {f"class/{name}.png" for name in names}
    images, found = load_images(folder)
    assert set(found) == expected
    assert set(ImageFiles(folder, 4).names) == expected
    assert len(list(ImageFiles(folder, 4).identity())) == len(names)
    cached = RowCache(folder / ".cache", "rows", "f").rows(folder, lambda part: part.flatten(1))
    assert set(cached.names) == expected
    assert torch.equal(cached.tensor(), images.flatten(1))
    assert len(read_images(folder, 4)[0]) == len(names)
    state = load_state(save_state(folder / ".state", "names", {"names": found}), "names")
    assert state["names"] == found
    assert json.loads(write_text(folder / ".json", json.dumps(found, ensure_ascii=False)).read_text("utf-8")) == found
    for name in names:
        with locked(folder / "class" / name):
            pass
        made = write_folder(folder / "made" / name, lambda place: (place / "a").write_text("x"))
        assert made.name == name
        text = _one_line(ValueError(f"source={name!r}: {name}"))
        assert "\n" not in text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_are_printed_in_any_encoding(encoding, tmp_path, monkeypatch):
    with open(tmp_path / "out", "w", encoding=encoding) as file:
        monkeypatch.setattr(sys, "stdout", file)
        with usable_streams():
            for name in HOSTILE:
                print(name)
    assert len((tmp_path / "out").read_bytes()) > 100
