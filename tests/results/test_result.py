import csv
import json
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image

from vislens_interp.landscape.evidence import Evidence
from vislens_interp.results.result import LensResult
from vislens_interp.results.storage import COLUMNS, check_folder
from vislens_interp.results.words import Word, Words

GOOD = Evidence("16", 0.6, 0.001, 2, 0.8, 300, 1000, 100)
WEAK = Evidence("16", 0.05, 0.3, 2, 0.8, 12, 1000, 100, ["held-out correlation 0.05 is below 0.1"])


def make_result(count=3, directions=("increase", "decrease"), **changes):
    generator = torch.Generator().manual_seed(count)
    keys = ["inputs", "unedited", *directions]
    arguments = {
        "unit": "16",
        "layer": "conv3",
        "model": "ConvNet",
        "images": {key: torch.rand(count, 3, 8, 8, generator=generator) for key in keys},
        "responses": {key: torch.randn(count, generator=generator) for key in keys},
        "response_mean": 0.25,
        "response_std": 0.5,
        "similarity": {key: torch.rand(count, generator=generator) for key in keys[1:]},
        "evidence": GOOD,
        "names": [f"animals/cat {index}.jpg" for index in range(count)],
        "settings": {"method": "edit", "alpha": 0.5, "strength": 0.3, "seeds": 42},
    }
    return LensResult(**(arguments | changes))


KNOWN = {
    "inputs": torch.tensor([1.0, 2.0]),
    "unedited": torch.tensor([2.0, 2.0]),
    "increase": torch.tensor([4.0, 1.0]),
    "decrease": torch.tensor([1.0, 1.0]),
}


def test_known_changes():
    result = make_result(2, responses=KNOWN)
    assert result.directions == ["increase", "decrease"]
    assert result.standardised["inputs"].tolist() == [1.5, 3.5]
    assert {key: value.tolist() for key, value in result.response_change_raw.items()} == {
        "increase": [2.0, -1.0],
        "decrease": [-1.0, -1.0],
    }
    assert {key: value.tolist() for key, value in result.response_change.items()} == {
        "increase": [4.0, -2.0],
        "decrease": [-2.0, -2.0],
    }
    assert {key: value.tolist() for key, value in result.response_change_from_input.items()} == {
        "unedited": [2.0, 0.0],
        "increase": [6.0, -2.0],
        "decrease": [0.0, -2.0],
    }
    assert result.share_right_way == {"increase": 0.5, "decrease": 1.0}
    spread = result.statistics()["increase"]["response_change"]
    assert spread == {"mean": 1.0, "sd": pytest.approx(np.std([4, -2], ddof=1))}


def test_summary_says_what_matters():
    text = make_result(2, responses=KNOWN).summary()
    assert text.splitlines()[0] == "ConvNet, layer conv3, unit 16"
    assert "1 SD = 0.5" in text
    assert "good evidence (held-out r = 0.60" in text
    assert "increase: response +1.00 ± 4.24 SD against α = 0, 1 of 2 images the right way (50%)" in text
    assert "decrease: response -2.00 ± 0.00 SD against α = 0, 2 of 2 images the right way (100%)" in text
    assert re.search(
        r"α = 0, the pipeline alone: response \+1\.00 ± 1\.41 SD against the input, similarity 0\.\d\d", text
    )
    assert "judged by ConvNet itself" in text
    assert "WEAK" not in text


@pytest.mark.parametrize("evidence", [WEAK, None])
def test_summary_flags_weak_evidence(evidence):
    assert "WEAK EVIDENCE" in make_result(evidence=evidence).summary()


def test_summary_of_one_image_has_no_spread():
    text = make_result(1).summary()
    assert "over 1 image;" in text
    assert "of 1 image the right way" in text
    assert "±" not in text.split("1 SD", 1)[1]
    assert "nan" not in text


def test_judges_are_named():
    text = make_result(settings={"judge": "a held-out subject", "similarity_network": "ResNet-20"}).summary()
    assert "responses judged by a held-out subject" in text
    assert "similarity judged by ResNet-20" in text


def test_custom_direction_of_several_units():
    keys = ("custom",)
    assert make_result(directions=keys).share_right_way == {}
    responses = {key: torch.tensor([value]) for key, value in {"inputs": 0.0, "unedited": 1.0, "custom": 0.5}.items()}
    settings = {"direction": {16: "decrease", 42: "increase"}}
    result = make_result(1, keys, responses=responses, settings=settings)
    assert result.share_right_way == {"custom": 1.0}
    assert "custom: response -1.00 SD against α = 0, 1 of 1 image the right way" in result.summary()


def test_round_trip(tmp_path):
    result = make_result()
    assert result.save(tmp_path / "new" / "unit16") == tmp_path / "new" / "unit16"
    assert os.listdir(tmp_path / "new") == ["unit16"]
    loaded = LensResult.load(tmp_path / "new" / "unit16")
    for key in result.images:
        assert (loaded.images[key] - result.images[key]).abs().max() <= 0.5 / 255 + 1e-6
        assert torch.equal(loaded.responses[key], result.responses[key])
    assert list(loaded.images) == list(result.images)
    assert all(torch.equal(loaded.similarity[key], value) for key, value in result.similarity.items())
    for name in ("unit", "layer", "model", "response_mean", "response_std", "evidence", "names", "settings"):
        assert getattr(loaded, name) == getattr(result, name)
    assert loaded.summary() == result.summary()


def test_importance_is_kept_as_opacity(tmp_path):
    importance = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    result = make_result(importance={"increase": importance})
    shown = result.transparent("increase")
    assert shown.shape == (3, 4, 8, 8)
    assert torch.equal(shown[:, :3], result.images["increase"])
    torch.testing.assert_close(shown[:, 3], importance, atol=0.5 / 255 + 1e-6, rtol=0)
    loaded = LensResult.load(result.save(tmp_path / "unit16"))
    assert torch.equal(loaded.importance["increase"], result.importance["increase"])
    with pytest.raises(KeyError, match=r"no importance of 'decrease'; expected one of \['increase'\]. Ascents have it"):
        loaded.transparent("decrease")


def test_saved_again_from_its_folder_it_is_the_same(tmp_path):
    first = LensResult.load(make_result().save(tmp_path / "a"))
    again = LensResult.load(first.save(tmp_path / "a"))
    assert all(torch.equal(again.images[key], first.images[key]) for key in first.images)
    assert (tmp_path / "a" / "result.json").read_bytes() == (first.save(tmp_path / "b") / "result.json").read_bytes()


def test_what_is_in_the_folder(tmp_path):
    result = make_result(2, names=["../../odd ☂ name.jpg", "c" * 300], responses=KNOWN)
    folder = result.save(tmp_path / "out")
    content = json.loads((folder / "result.json").read_text())
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert on_disk == set(content["files"])
    with Image.open(folder / "figure.png") as figure:
        assert figure.size[0] > 500
    assert content["images"]["increase"][0] == "images/increase/00000_odd_name.png"
    assert set(content["settings"]["versions"]) == {"vislens_interp", "torch", "diffusers", "numpy", "python"}
    assert content["settings"]["versions"]["torch"] == str(torch.__version__)
    assert content["evidence"]["correlation"] == 0.6
    assert content["statistics"]["increase"]["response_change"]["mean"] == 1.0

    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["name"], row["key"]) for row in rows[:4]] == [("../../odd ☂ name.jpg", key) for key in KNOWN]
    assert rows[0] | {"file": "", "name": ""} == {
        "file": "",
        "name": "",
        "key": "inputs",
        "response": "1",
        "response_sd": "1.5",
        "response_change": "",
        "response_change_from_input": "",
        "similarity": "",
        "seed": "",
    }
    increase = rows[2]
    assert (increase["response_change"], increase["response_change_from_input"], increase["seed"]) == ("4", "6", "42")
    assert float(increase["similarity"]) == pytest.approx(result.similarity["increase"][0].item(), rel=1e-6)
    assert all((folder / row["file"]).is_file() for row in rows)


def test_one_seed_an_image(tmp_path):
    folder = make_result(2, settings={"seeds": [5, 6]}).save(tmp_path / "out")
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        seeds = [row["seed"] for row in csv.DictReader(file) if row["key"] == "increase"]
    assert seeds == ["5", "6"]


def test_png_is_lossless_on_8_bit_images(tmp_path):
    pixels = torch.arange(256).repeat(3).reshape(1, 3, 16, 16) / 255
    images = dict.fromkeys(["inputs", "unedited", "increase"], pixels)
    responses = {key: torch.zeros(1) for key in images}
    result = make_result(1, images=images, responses=responses, similarity={})
    loaded = LensResult.load(result.save(tmp_path / "out"))
    assert torch.equal(loaded.images["increase"], pixels)


def test_an_earlier_result_is_replaced_whole(tmp_path):
    make_result(5).save(tmp_path / "out")
    (tmp_path / "out" / ".DS_Store").touch()
    make_result(2, directions=("increase",)).save(tmp_path / "out")
    assert len(LensResult.load(tmp_path / "out")) == 2
    assert not (tmp_path / "out" / "images" / "decrease").exists()
    assert os.listdir(tmp_path) == ["out"]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    make_result().save(tmp_path / "out")
    assert len(LensResult.load(tmp_path / "out")) == 3


@pytest.mark.parametrize("earlier", [False, True])
def test_a_folder_with_other_files_is_refused(tmp_path, earlier):
    if earlier:
        make_result().save(tmp_path / "out")
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "thesis.tex").write_text("all of it")
    with pytest.raises(
        ValueError, match="holds 'thesis.tex', not written by an earlier result; expected a new or empty"
    ):
        make_result().save(tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "all of it"


def test_a_link_in_the_folder_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data").symlink_to(tmp_path / "data")
    with pytest.raises(ValueError, match="holds 'data'"):
        check_folder(tmp_path / "out")


def test_a_file_and_the_current_folder_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; expected a folder"):
        make_result().save(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="folder='.' is the current folder.*Name one inside it"):
        make_result().save(".")


def test_a_full_disk_leaves_the_earlier_result(tmp_path, monkeypatch):
    make_result(3).save(tmp_path / "out")
    save, saved = Image.Image.save, []

    def save_until_full(self, path, *args, **kwargs):
        if len(saved) == 5:
            raise OSError(28, "No space left on device")
        saved.append(path)
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", save_until_full)
    with pytest.raises(OSError, match="the disk is full"):
        make_result(2).save(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert len(LensResult.load(tmp_path / "out")) == 3


def test_a_kill_leaves_the_earlier_result(tmp_path):
    folder = make_result(3).save(tmp_path / "out")
    script = f"""
        import os
        from PIL import Image
        from vislens_interp.results.result import LensResult
        result = LensResult.load({str(folder)!r})
        Image.Image.save = lambda self, path, *args, **kwargs: os._exit(9) if "increase" in str(path) else None
        result.save({str(folder)!r})
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == 9
    assert len(LensResult.load(folder)) == 3
    make_result(2).save(folder)
    assert len(LensResult.load(folder)) == 2


def test_a_response_that_is_no_number_survives(tmp_path):
    responses = {**KNOWN, "increase": torch.tensor([torch.nan, 1.0])}
    loaded = LensResult.load(make_result(2, responses=responses).save(tmp_path / "out"))
    assert loaded.responses["increase"].isnan().tolist() == [True, False]


def test_load_refuses_what_is_no_result(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no result.json; expected a folder of LensResult.save"):
        LensResult.load(tmp_path)
    (tmp_path / "result.json").write_text('{"kind": "weather"}')
    with pytest.raises(ValueError, match="was not written by vislens_interp"):
        LensResult.load(tmp_path)


def test_load_refuses_a_truncated_or_newer_file(tmp_path):
    path = make_result().save(tmp_path / "out") / "result.json"
    content = path.read_text()
    path.write_text(content[:200])
    with pytest.raises(ValueError, match="truncated or no JSON"):
        LensResult.load(tmp_path / "out")
    path.write_text(content.replace('"format_version": 3', '"format_version": 4'))
    with pytest.raises(ValueError, match="format version 4, newer than this library reads.*Upgrade"):
        LensResult.load(tmp_path / "out")
    assert LensResult.load(make_result().save(tmp_path / "out")).unit == make_result().unit  # it is ours to replace


def test_load_names_a_missing_picture(tmp_path):
    folder = make_result().save(tmp_path / "out")
    (folder / "images" / "increase" / "00001_animals_cat_1.png").unlink()
    with pytest.raises((FileNotFoundError, ValueError), match="00001_animals_cat_1.png"):
        LensResult.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {"inputs": torch.rand(3, 3, 8, 8)}}, "images has the keys .*expected 'inputs', 'unedited'"),
        ({"images": dict.fromkeys(["inputs", "unedited", "up"], torch.rand(3, 3, 8, 8))}, "'up'.*any of"),
        ({"images": dict.fromkeys(["inputs", "unedited"], torch.full((3, 3, 8, 8), 2.0))}, "expected \\[0, 1\\]"),
        (
            {"images": {"inputs": torch.rand(3, 3, 8, 8), "unedited": torch.rand(2, 3, 8, 8)}},
            "images\\['unedited'\\] holds 2 images; expected 3",
        ),
        ({"responses": {"inputs": torch.zeros(3)}}, "responses has the keys \\['inputs'\\]; expected those of"),
        ({"similarity": {"up": torch.zeros(3)}}, "similarity has the keys \\['up'\\]; expected some of"),
        (
            {"similarity": {"increase": torch.zeros(2)}},
            "similarity\\['increase'\\] has shape \\(2,\\); expected \\(3,\\)",
        ),
        ({"importance": {"up": torch.zeros(3, 8, 8)}}, "importance\\['up'\\] has shape .*; expected a value for each"),
        ({"names": ["a"]}, "names has 1 entries for 3 images"),
        ({"response_std": 0.0}, "response_std=0.0 must be above 0"),
        ({"settings": {"seeds": [1, 2]}}, "settings\\['seeds'\\] has 2 entries for 3 images"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make_result(3, **changes)


def test_settings_are_json_values():
    with pytest.raises(TypeError, match="settings\\['fit'\\]\\['x'\\] is a Tensor; expected JSON values"):
        make_result(settings={"fit": {"x": torch.zeros(1)}})
    given = {"loss": float("inf"), "shape": (1, 2)}
    result = make_result(settings=given)
    assert result.settings["loss"] is None
    assert result.settings["shape"] == [1, 2]
    assert "versions" not in given


def test_versions_are_those_of_the_making(tmp_path):
    result = make_result(settings={"versions": {"torch": "1.0"}})
    assert LensResult.load(result.save(tmp_path / "out")).settings["versions"] == {"torch": "1.0"}


def test_repr_is_short():
    expected = "LensResult(model='ConvNet', layer='conv3', unit='16', 3 images, directions=['increase', 'decrease'])"
    assert repr(make_result()) == expected


WORDS = {
    "increase": Words([Word("fox", 1, 0.5, 0.25)], [Word("ship, boat", 1, -0.375, 0.125)], "a read-out"),
    "decrease": Words(source="a read-out", reason="none is stronger than in shuffled landscapes"),
}


def test_words_are_said_saved_and_loaded(tmp_path):
    result = make_result(words=WORDS)
    assert "increase, in words: rises: fox +0.50; falls: ship, boat -0.38" in result.summary()
    assert "decrease, in words: no words (none is stronger than in shuffled landscapes)" in result.summary()
    folder = result.save(tmp_path / "result")
    assert LensResult.load(folder).words == WORDS
    with (folder / "words.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["key"], row["word"], float(row["score"])) for row in rows] == [
        ("increase", "fox", 0.5),
        ("increase", "ship, boat", -0.375),
    ]
    assert make_result().save(folder) == folder  # an earlier result's words.csv is ours, and is replaced
    assert not (folder / "words.csv").exists()
    with pytest.raises(ValueError, match=r"words has the keys \['custom'\]; expected some of images' directions"):
        make_result(words={"custom": WORDS["increase"]})


def test_words_that_were_changed_in_the_file_are_named(tmp_path):
    folder = make_result(words=WORDS).save(tmp_path / "result")
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    content["words"]["increase"]["rising"][0]["rank"] = "first"
    (folder / "result.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"words\['increase'\].rising\[0\].rank is 'first'; expected a whole"):
        LensResult.load(folder)
