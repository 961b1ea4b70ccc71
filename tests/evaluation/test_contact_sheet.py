"""Many units of a layer on one sheet, through the lens."""

import numpy as np
import pytest
import torch
from page_reader import GOOD, WEAK, Page, loads_nothing
from torch import nn

from vislens_interp import FeatureLens, LayerTarget, Preprocess
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.methods.prototypes import likeness, prototype_rows
from vislens_interp.reference import ReferenceSet
from vislens_interp.report.contact_sheet import ContactRow, ContactSheet
from vislens_interp.results.background import TopImages
from vislens_interp.targets.target import Target

QUICK = {"epochs": 1, "shuffles": 1, "w_consistency": 0.0}


class Counting(PixelBackend):
    """The pixel backend, which counts the images that it encodes and has no reference set."""

    name = "counting"

    def __init__(self):
        super().__init__()
        self.encoded = []

    def encode(self, images):
        self.encoded.append(len(images))
        return super().encode(images)

    def reference_images(self):
        return None


class OneDead(nn.Module):
    """Six channels; the fourth is silent whatever it sees."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 5, stride=3)
        with torch.no_grad():
            self.conv.weight[3], self.conv.bias[3] = 0, -1
        self.act = nn.ReLU()
        self.preprocess = Preprocess(32, [0.5], [0.5])
        self.passes = []

    def forward(self, x):
        self.passes.append(len(x))
        return self.act(self.conv(x))


class Colours(Target):
    """Mean red, green, blue, without gradients."""

    names = ("red", "green", "blue")
    differentiable = False

    def __call__(self, images):
        return images.mean((2, 3))


def pictures(count, seed=0):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=32, mode="bicubic", align_corners=False).clamp(0, 1)


@pytest.fixture(scope="module")
def made():
    model, backend = OneDead(), Counting()
    lens = FeatureLens(model, "act", 0, backend=backend)
    before = model.passes.count(220)
    sheet = lens.contact_sheet([2, 0, 3, 99, 2, 5], reference_set=pictures(220), count=2, top=3, strength=0, **QUICK)
    return sheet, model.passes[before:], backend.encoded, lens


def test_a_row_for_each_unit_and_a_reason_for_the_others(made):
    sheet, _, _, _ = made
    assert [row.unit for row in sheet.rows] == ["2", "0", "5"]
    assert sheet.title == "OneDead, layer act"
    assert list(sheet.left_out) == ["99", "3"]
    assert "out of range" in sheet.left_out["99"]
    assert "never varies" in sheet.left_out["3"]
    assert repr(sheet) == "ContactSheet('OneDead, layer act', 3 units, 2 left out)"


def test_one_pass_over_the_reference_set(made):
    _, passes, encoded, _ = made
    assert passes.count(220) == 1
    assert encoded.count(220) == 1
    assert max(count for count in encoded if count != 220) == 2


def test_numbers_are_those_of_the_network(made):
    sheet, _, _, lens = made
    reference = LayerTarget(lens.target.model, "act", [2, 0, 5]).responses(pictures(220))
    mean, std = reference.mean(0), reference.std(0)
    for column, row in enumerate(sheet.rows):
        best = (reference[:, column] - mean[column]).div(std[column]).topk(3).values
        torch.testing.assert_close(row.top.responses, best, atol=1e-4, rtol=1e-4)
        target = LayerTarget(lens.target.model, "act", int(row.unit))
        start = target.responses(row.unedited)[:, 0]
        for key, images in (("inputs", row.inputs), ("unedited", row.unedited)):
            read = (target.responses(images)[:, 0] - mean[column]) / std[column]
            torch.testing.assert_close(row.responses[key], read, atol=1e-4, rtol=1e-3)
        for key in ("increase", "decrease"):
            change = (target.responses(row.images[key])[:, 0] - start) / std[column]
            torch.testing.assert_close(row.response_change[key], change, atol=1e-4, rtol=1e-3)
    up = torch.cat([row.response_change["increase"] for row in sheet.rows])
    down = torch.cat([row.response_change["decrease"] for row in sheet.rows])
    assert up.mean() > down.mean()


def test_each_unit_has_its_own_prototypes(made):
    sheet, _, _, lens = made
    reference = ReferenceSet(pictures(220))
    like, responses = likeness(lens.backend, reference), LayerTarget(lens.target.model, "act", [2, 0, 5])
    for row, read in zip(sheet.rows, responses.responses(reference.images).T, strict=True):
        driving, others = (one.item() for one in prototype_rows(like, read, reference.groups, 1))
        assert row.names == [f"image_{driving:05d}", f"image_{others:05d}"]
        assert torch.equal(row.inputs, pictures(220)[[driving, others]])
        assert row.responses["inputs"][0] > row.responses["inputs"][1]
    assert not sheet.shared
    assert sheet.settings["inputs"]["chosen"] == "prototypes"
    assert 0 < sheet.settings["inputs"]["learned"] <= 6
    assert "the inputs are prototypes" in sheet.legend
    assert f"learned from {sheet.settings['inputs']['learned']} of the 6 inputs" in sheet.legend


def test_of_an_odd_number_of_prototypes_one_more_drives_the_unit():
    lens = FeatureLens(Colours(), backend=Counting())
    (row,) = lens.contact_sheet(["red"], reference_set=pictures(220), count=3, strength=0, **QUICK).rows
    reference, red = ReferenceSet(pictures(220)), pictures(220).mean((2, 3))[:, 0]
    driving, others = prototype_rows(likeness(lens.backend, reference), red, reference.groups, 2)
    assert torch.equal(row.inputs, pictures(220)[[*driving.tolist(), others[0].item()]])


def test_units_of_a_target_by_name():
    lens = FeatureLens(Colours(), backend=Counting())
    sheet = lens.contact_sheet(
        ["blue", "ultraviolet"], pictures(3, seed=1), reference_set=pictures(220), count=2, strength=0, **QUICK
    )
    assert [row.unit for row in sheet.rows] == ["blue"]
    assert sheet.left_out == {"ultraviolet": "unit 'ultraviolet' is not in this target; it has red, green, blue."}
    assert torch.equal(sheet.rows[0].inputs, pictures(3, seed=1)[:2])


def test_given_images_are_every_units_inputs_and_shown_once():
    lens, given = FeatureLens(Colours(), backend=Counting()), pictures(3, seed=1)
    sheet = lens.contact_sheet(["blue", "red"], given, reference_set=pictures(220), count=2, strength=0, **QUICK)
    assert sheet.shared
    assert sheet.settings["inputs"] == {"chosen": "given", "learned": 0}
    assert all(torch.equal(row.inputs, given[:2]) for row in sheet.rows)
    assert torch.equal(sheet.rows[0].unedited, sheet.rows[1].unedited)
    alts = [values["alt"] for values in Page(sheet.html()).of("img")]
    assert [alt for alt in alts if alt.startswith("inputs")] == ["inputs 1: image_00000", "inputs 2: image_00001"]
    assert "no images were given" not in sheet.legend


def test_units_by_their_labels():
    lens = FeatureLens(OneDead(), "act", "c", labels=[*"abcdef"], backend=Counting())
    sheet = lens.contact_sheet(["f", "ultraviolet", 0], reference_set=pictures(220), count=1, strength=0, **QUICK)
    assert [row.unit for row in sheet.rows] == ["f", "0"]
    assert sheet.left_out == {
        "ultraviolet": "unit='ultraviolet' is none of the 6 labels; expected one of them: 'a', 'b', 'c', 'd', 'e', 'f'."
    }
    by_number = LayerTarget(lens.target.model, "act", [5, 0]).responses(pictures(220))
    assert sheet.rows[0].top.images.equal(pictures(220)[by_number[:, 0].argsort(descending=True, stable=True)[:4]])


def test_what_cannot_be_shown_is_refused():
    lens = FeatureLens(OneDead(), "act", 0, backend=Counting())
    with pytest.raises(ValueError, match="units: none of 2 can be shown. unit=77 is out of range.*never varies"):
        lens.contact_sheet([3, 77], reference_set=pictures(220))
    with pytest.raises(ValueError, match="reference_set=None, this lens is not fitted.*pass at least 200 images"):
        lens.contact_sheet([0])
    with pytest.raises(ValueError, match="units is empty; expected at least one unit"):
        lens.contact_sheet([], reference_set=pictures(220))
    with pytest.raises(ValueError, match="units: none of 1 can be shown. unit=77 is out of range"):
        lens.contact_sheet([77])  # before it asks for a reference set
    with pytest.raises(ValueError, match="units: none of 1 can be shown. unit 'ultraviolet' is not in this target"):
        FeatureLens(Colours(), backend=Counting()).contact_sheet(["ultraviolet"])
    for one in (3, "3"):
        with pytest.raises(TypeError, match=f"units={one!r} is a .*; expected a sequence. Pass .{one!r}"):
            lens.contact_sheet(one)
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        lens.contact_sheet([0], count=0)


def test_wrong_arguments_are_refused_before_a_fit(tmp_path):
    (tmp_path / "cat.png").write_bytes(b"no picture")
    lens = FeatureLens(OneDead(), "act", 0, backend=Counting())
    for arguments, error, message in (
        ({"strength": 2}, ValueError, r"strength=2 must lie in \[0, 1\]"),
        ({"seed": -1}, ValueError, "seed=-1; expected a whole number from 0"),
        ({"images": tmp_path}, ValueError, r"1 of 1 images in source cannot be read: cat.png"),
        ({"epoch": 3}, TypeError, "epoch= is no setting of the landscape. Closest: epochs."),
    ):
        with pytest.raises(error, match=message):
            lens.contact_sheet([0], **{"reference_set": pictures(220), **arguments})
    assert (lens.backend.encoded, 220 in lens.target.model.passes) == ([], False)


# How it is shown


def drawn(units=3, evidence=GOOD, *, chosen="given", reconstructed=True):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(2, 3, 8, 8, generator=generator)
    rows = []
    for unit in range(units):
        own = torch.rand(2, 3, 8, 8, generator=generator) if chosen == "prototypes" else inputs
        top = torch.rand(4, 3, 8, 8, generator=generator), torch.tensor([4.0, 3.0, 2.0, 1.0])
        row = ContactRow(
            unit=f"{unit}",
            evidence=evidence,
            top=TopImages(*top, list("abcd")),
            inputs=own,
            unedited=own.flip(0) if reconstructed else own,
            names=["a & b.png", "c.png"],
            responses={"inputs": torch.tensor([2.5, -0.75]), "unedited": torch.tensor([2.25, -0.5])},
            images={key: torch.rand(2, 3, 8, 8, generator=generator) for key in ("increase", "decrease")},
            response_change={"increase": torch.tensor([1.5, -0.5]), "decrease": torch.tensor([-1.5, 0.5])},
        )
        rows.append(row)
    return ContactSheet(
        title="Net, layer <conv>",
        rows=rows,
        left_out={"99": "unit=99 is out of range"},
        settings={
            "reference_set": "synthetic reference",
            "alpha": 1.0,
            "inputs": {"chosen": chosen, "learned": 2 if chosen == "prototypes" else 0},
        },
    )


def test_a_row_is_printed_without_its_pictures():
    assert "unit='0', evidence=" in repr(drawn().rows[0])
    assert "tensor" not in repr(drawn().rows[0])


def test_page():
    page = Page(drawn().html())
    loads_nothing(page)
    assert "Net, layer <conv>" in page.text
    assert "3 units, 0 of them with weak evidence; 1 left out" in page.text
    assert "pictures that a generator made, no photographs" in page.text
    assert "99 unit=99 is out of range" in page.text
    assert page.text.count("Δr +1.50") == 3
    assert page.text.count("Δr −0.50 ✗") == page.text.count("Δr +0.50 ✗") == 3
    alts = [values["alt"] for values in page.of("img")]
    assert len(alts) == 2 * 2 + 3 * (4 + 2 + 2)
    assert "suppressed 1: Δr −1.50" in alts
    assert "inputs 1: a & b.png" in alts


@pytest.mark.parametrize(("reconstructed", "strips"), [(True, 5), (False, 4)])
def test_page_of_prototypes(reconstructed, strips):
    sheet = drawn(chosen="prototypes", reconstructed=reconstructed)
    page = Page(sheet.html())
    assert "Prototypes that drive the unit come first." in page.text
    assert "learned from 2 of the 6 inputs" in page.text
    alts = [values["alt"] for values in page.of("img")]
    assert len(alts) == 3 * (4 + 2 * (strips - 1))
    assert alts.count("prototypes 1: +2.50 SD") == 3
    assert alts.count("α = 0 2: −0.50 SD") == 3 * reconstructed
    assert not any(alt.startswith("inputs") for alt in alts)


def test_weak_units_are_flagged():
    weak: Evidence = WEAK
    page = Page(drawn(evidence=weak).html())
    assert page.text.count("weak evidence held-out correlation 0.05 is below 0.1") == 3
    assert "weak evidence</span>" not in drawn().html()
    written = [text.get_text() for text in drawn(evidence=weak).figure().texts]
    assert sum(text.startswith("WEAK: held-out") for text in written) == 3


@pytest.mark.parametrize("reconstructed", [True, False])
@pytest.mark.parametrize("chosen", ["given", "prototypes"])
def test_figure(chosen, reconstructed):
    sheet = drawn(chosen=chosen, reconstructed=reconstructed)
    figure = sheet.figure()
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    before = 2 * 2 if chosen == "given" else 0
    own = 0 if chosen == "given" else 2 + 2 * reconstructed
    assert len(shown) == before + 3 * (8 + own)
    assert np.array_equal(shown[before], sheet.rows[0].top.images[0].permute(1, 2, 0).numpy())
    written = [text.get_text() for text in figure.texts]
    assert "Left out, 99: unit=99 is out of range" in written
    assert {"unit 0", "unit 1", "unit 2", "preferred", "suppressed"} <= set(written)
    assert ("prototypes" in written) == (chosen == "prototypes")
    assert "SDs. ✗: not the wanted way." in " ".join(written)
    width, height = figure.canvas.get_width_height()
    renderer = figure.canvas.get_renderer()
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text


def test_saved(tmp_path):
    sheet = drawn()
    path = sheet.save(tmp_path / "new" / "sheet.html")
    assert path.read_text(encoding="utf-8") == sheet.html()
    with pytest.raises(ValueError, match=r"path='sheet.png' does not end in .html.*figure\(\).savefig"):
        sheet.save("sheet.png")
