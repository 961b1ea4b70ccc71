import json

import pytest
import torch
from torch import nn

from benchmarks.common.script import RESULTS
from benchmarks.unit_coverage import report as unit_coverage_report
from benchmarks.unit_coverage import run as unit_coverage
from benchmarks.unit_coverage.layouts import ARCHITECTURES, LAYOUTS, Architecture
from benchmarks.unit_coverage.readers import ROWS, VislensReader
from benchmarks.unit_coverage.report import report, tally
from benchmarks.unit_coverage.run import by_hand, cover, own_parameters, pick_layout

SMALL = Architecture("ConvNet", "vislens_interp.zoo.convnet:ConvNet", LAYOUTS["MAPS"], size=32)


class Planted:
    """A reader of one's own choosing."""

    changes = True
    note = ""

    def __init__(self, read):
        self.read = read

    def version(self):
        return "planted"

    def open(self, model, size):
        self.model = model

    def prepare(self, layer, units, **told):
        module = self.model.get_submodule(layer)

        def read(images):
            outputs = []
            hook = module.register_forward_hook(lambda module, args, output: outputs.append(output))
            with torch.no_grad():
                self.model((images - 0.5) / 0.5)
            hook.remove()
            return self.read(outputs[0], units)

        return read

    def close(self):
        pass


def pooled(output, units):
    return (output.flatten(2).mean(2) if output.ndim > 2 else output)[:, units]


def words(record):
    return {outcome for cell in record["cells"] if not cell["missing"] for outcome in cell["outcomes"]}


def test_the_library_is_right():
    record = cover(SMALL, VislensReader(), 0)
    assert words(record) == {"right"}
    assert len(record["cells"]) == 22
    cells = {cell["layer"]: cell for cell in record["cells"]}
    assert len(cells["conv1"]["units"]) == 2
    assert cells["conv1"]["shape"] == (ROWS, 32, 16, 16)
    assert cells["conv1.0"]["parameters"] == "proven"
    assert not any(cell["parameters"] == "contradicted" for cell in record["cells"])


def test_wrong_readers_are_found():
    assert words(cover(SMALL, Planted(pooled), 0)) == {"right"}
    neighbours = Planted(lambda output, units: pooled(output, [(unit + 1) % output.shape[1] for unit in units]))
    found = words(cover(SMALL, neighbours, 0))
    assert "wrong: another value" in found
    assert all(word.startswith("wrong") for word in found)
    blurred = Planted(lambda output, units: pooled(output, units) + 1e-2 * output.abs().flatten(1).mean(1)[:, None])
    assert all(word.startswith("wrong") for word in words(cover(SMALL, blurred, 0)))
    rows = words(cover(SMALL, Planted(lambda output, units: pooled(output, units)[:2]), 0))
    assert rows == {f"wrong: gives shape (2, 2) for {ROWS} images"}

    def refuse(output, units):
        raise ValueError("no")

    assert words(cover(SMALL, Planted(refuse), 0)) == {"refused"}


def test_a_value_that_does_not_follow_the_output_is_wrong():
    """The right numbers from somewhere else: the perturbation finds them out."""
    reader = Planted(pooled)
    reader.prepare = lambda layer, units, **told: lambda images: kept[layer][:, units]
    torch.manual_seed(0)
    model = SMALL.build()
    kept = {}
    pair = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def keep(name):
        return lambda module, args, output: kept.update({name: pooled(output, slice(None)).clone()})

    for name, module in model.named_modules():
        module.register_forward_hook(keep(name))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
        model((pair[[0, 0, 0, 1]] - 0.5) / 0.5)
    assert words(cover(SMALL, reader, 0)) == {"wrong: moves with another unit"}


def test_hand_values():
    tensor = torch.arange(24.0).view(2, 3, 4)
    assert by_hand(tensor, 2, [1], rows=2).tolist() == [[5.0], [17.0]]
    assert by_hand(tensor, 1, [0, 2], rows=2).tolist() == [[1.5, 9.5], [13.5, 21.5]]
    assert by_hand(tensor.view(4, 2, 3), 2, [0], rows=2).tolist() == [[4.5], [16.5]]  # two windows an image


def test_declarations():
    assert pick_layout("NC NLC NHWC", 3) == (["NLC"], "")
    assert pick_layout("folded NLC", 3) == (["NLC"], "folded")
    assert pick_layout("open NCL NLC", 3) == (["NCL", "NLC"], "open")
    assert pick_layout("none", 3) == ([], "none")
    with pytest.raises(ValueError, match="declares 'NC NCHW', which has no layout of 3 axes"):
        pick_layout("NC NCHW", 3)


def test_a_wrong_declaration_is_found_by_the_layers_own_parameters():
    conv, linear = nn.Conv2d(3, 8, 1), nn.Linear(8, 8)
    images, tokens = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8)
    assert own_parameters(conv, (images,), conv(images), 1) == "proven"
    assert own_parameters(conv, (images,), conv(images), 3) == "contradicted"
    assert own_parameters(linear, (tokens,), linear(tokens), 2) == "proven"
    assert own_parameters(linear, (tokens,), linear(tokens), 1) == "contradicted"
    assert own_parameters(nn.ReLU(), (tokens,), tokens, 1) == ""
    kept = conv.weight.clone()
    own_parameters(conv, (images,), conv(images), 1)
    assert torch.equal(conv.weight, kept)
    with pytest.raises(ValueError, match="layer 'flatten' of shape .* the table declares 'NCHW'"):
        cover(Architecture("x", SMALL.name, (("", "NCHW"),), size=32), Planted(pooled), 0)


def test_the_list():
    assert len(ARCHITECTURES) >= 80
    assert len({one.key for one in ARCHITECTURES}) == len(ARCHITECTURES)
    families = {one.family for one in ARCHITECTURES}
    wanted = (
        "ResNet RegNet ConvNeXt EfficientNet MobileNet DenseNet VGG Inception SqueezeNet ViT DeiT BEiT EVA Swin SwinV2"
        " MaxViT CaiT XCiT VOLO MViTv2 Twins HRNet Mixer PVT CoaT NFNet GhostNet FastViT Hiera"
    )
    assert set(wanted.split()) <= families
    assert "register tokens" in families
    vit = Architecture("ViT", "test_vit", LAYOUTS["TOKENS"])
    assert vit.declared("patch_embed.proj") == "NCHW"
    assert vit.declared("blocks.3.mlp.fc1") == "NC NLC NHWC"
    assert vit.declared("blocks.3.attn.attn_drop") == "heads NHQK"


def test_what_was_not_run_again_is_as_published(tmp_path):
    """Also what is said of the declarations, whichever reader was run."""
    assert report(tmp_path) == (RESULTS / "unit_coverage.md").read_text(encoding="utf-8")


def test_the_table_goes_on_and_counts(tmp_path, monkeypatch, capsys):
    for module in (unit_coverage, unit_coverage_report):
        monkeypatch.setattr(module, "ARCHITECTURES", [SMALL])
    monkeypatch.setattr("sys.argv", ["unit_coverage.py", "--out", str(tmp_path)])
    unit_coverage.main()
    path = tmp_path / "cells" / "vislens_interp" / f"{SMALL.key}.json"
    first = path.read_bytes()
    unit_coverage.main()
    assert path.read_bytes() == first  # with its CPU seconds: not done again
    counts = tally([json.loads(first)])
    assert counts["unit right"] == counts["cells"] - counts["no unit refused"]
    assert counts["wrong"] == counts["unit refused"] == 0
    text = report(tmp_path)
    assert "**100.0 % right**" in text
    assert text in capsys.readouterr().out
    summary = json.loads((tmp_path / "unit_coverage.json").read_text(encoding="utf-8"))
    assert summary["vislens_interp"]["total"]["layers"] == 22
    kept = json.loads((RESULTS / "unit_coverage.json").read_text(encoding="utf-8"))["lucent"]
    assert summary["lucent"] == kept  # as published, for it was not run here
    assert f"## lucent {kept['version']}\n" in text
