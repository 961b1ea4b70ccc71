import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from vislens_interp.files import load_state, save_state
from vislens_interp.images import load_images, to_pil
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import LayerTarget
from vislens_interp.targets.ranking import top_units
from vislens_interp.targets.whole_layer import all_units, open_table, read_layer, read_responses
from vislens_interp.zoo.convnet import ConvNet

PREPROCESS = Preprocess(32, [0.5], [0.5])
IMAGES = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ConvNet().eval()


class Stops(nn.Module):
    """A preprocessing that fails after some batches, as a power cut would."""

    size = 32

    def __init__(self, after):
        super().__init__()
        self.left = after
        self.images = self.calls = 0

    def forward(self, images):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.images += len(images)
        self.calls += 1
        return PREPROCESS(images)

    def describe(self):
        return "the same"


def test_every_unit_as_it_is_read_alone(model, tmp_path):
    table = read_layer(model, "conv2", IMAGES, tmp_path / "conv2.safetensors", preprocess=PREPROCESS, batch_size=4)
    assert table.responses.shape == (10, table.n_units) == (10, 64)
    for unit in (0, 17, 63):
        alone = LayerTarget(model, "conv2", unit, preprocess=PREPROCESS).responses(IMAGES)[:, 0]
        assert torch.allclose(table.responses[:, unit], alone, atol=1e-6)
    assert table.target["layer"] == "conv2"
    in_memory = read_layer(model, "conv2", IMAGES, preprocess=PREPROCESS, batch_size=4)
    assert in_memory.path is None
    assert torch.equal(in_memory.responses, table.responses)
    assert in_memory.target == table.target


def test_the_images_say_their_size_where_the_model_does_not():
    model = ConvNet().eval()
    model.preprocess = Preprocess(None, [0.5], [0.5])  # of any size
    assert torch.equal(read_layer(model, "conv2", IMAGES).responses[:, 17], read_responses(model, "conv2", 17, IMAGES))


def test_images_of_any_source(model, tmp_path):
    for place, picture in enumerate(to_pil(torch.rand(20, 3, 40, 48, generator=torch.Generator().manual_seed(1)))):
        picture.save(tmp_path / f"{place:02}.png")
    reading = {"preprocess": PREPROCESS}
    tensors = load_images(tmp_path, size=32)[0]
    expected = read_layer(model, "conv2", tensors, **reading).responses
    paths = sorted(tmp_path.iterdir())
    for source in (str(tmp_path), paths):
        assert torch.equal(read_layer(model, "conv2", source, **reading).responses, expected)
        assert torch.equal(read_responses(model, "conv2", 17, source, **reading), expected[:, 17])
        assert torch.equal(top_units(model, "conv2", source, **reading).table.responses, expected)
    with pytest.raises(ValueError, match="images: 4 came; expected at least 20"):
        top_units(model, "conv2", paths[:4], **reading)
    with pytest.raises(FileNotFoundError, match="source='photos': nothing is there"):
        top_units(model, "conv2", "photos", **reading)


def test_the_file_is_mapped_and_safe(model, tmp_path):
    path = tmp_path / "made" / "fc1.safetensors"
    table = read_layer(model, "fc1", IMAGES, path, preprocess=PREPROCESS, batch_size=4)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    first = table.responses.clone()
    table.responses.zero_()  # in memory alone
    assert torch.equal(open_table(path).responses, first)
    with safe_open(path, framework="pt") as file:  # others can read it
        assert torch.equal(file.get_tensor("responses"), first)
    state = load_state(path, "layer table")
    assert torch.equal(state["responses"], first)
    assert json.loads(state["target"]) == open_table(path).target


def probes(model):
    """Passes of the construction of a target on the whole layer."""
    counts = Stops(-1)
    all_units(model, "conv1", preprocess=counts)
    return counts


def test_an_interrupted_pass_goes_on(model, tmp_path):
    path, before = tmp_path / "conv1.safetensors", probes(model)
    with pytest.raises(KeyboardInterrupt):
        read_layer(model, "conv1", IMAGES, path, preprocess=Stops(before.calls + 2), batch_size=3)
    assert not path.exists()
    rest = Stops(-1)
    table = read_layer(model, "conv1", IMAGES, path, preprocess=rest, batch_size=3)
    assert rest.images - before.images == 4  # ten less two batches of three
    whole = read_layer(model, "conv1", IMAGES, preprocess=PREPROCESS, batch_size=3)
    assert torch.equal(table.responses, whole.responses)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_another_runs_rows_are_not_taken(model, tmp_path):
    path = tmp_path / "conv1.safetensors"
    with pytest.raises(KeyboardInterrupt):
        read_layer(model, "conv1", IMAGES, path, preprocess=Stops(probes(model).calls + 2), batch_size=3)
    others = IMAGES.flip(0)
    table = read_layer(model, "conv1", others, path, preprocess=Stops(-1), batch_size=3)
    assert torch.equal(
        table.responses, read_layer(model, "conv1", others, preprocess=PREPROCESS, batch_size=3).responses
    )


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images, factor):
        return self.conv(images) * factor


def brighter(by):
    def preprocess(images):
        return images * by

    return preprocess


def test_a_table_of_other_arguments_is_not_taken(tmp_path):
    network, path = Scaled(), tmp_path / "table.safetensors"
    for factor in (torch.tensor(1.0), torch.tensor(3.0), lambda images: images.mean() * 0 + 5, 7.0):
        given = {"preprocess": PREPROCESS, "forward_args": {"factor": factor}}
        table = read_layer(network, None, IMAGES, path, **given)
        assert torch.equal(table.responses, read_layer(network, None, IMAGES, **given).responses)
    before = path.stat().st_mtime_ns
    read_layer(network, None, IMAGES, path, **given)
    assert path.stat().st_mtime_ns == before
    for by in (1.0, 5.0):  # two functions of one name
        table = read_layer(network.conv, None, IMAGES, path, preprocess=brighter(by))
        assert torch.equal(table.responses, read_layer(network.conv, None, IMAGES, preprocess=brighter(by)).responses)


def test_damaged_and_foreign_files_are_refused(model, tmp_path):
    path = tmp_path / "conv1.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file; expected a layer table"):
        open_table(path)
    read_layer(model, "conv1", IMAGES, path, preprocess=PREPROCESS)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="bytes; expected .* for 10 images and 32 units. It is truncated"):
        open_table(path)
    path.write_bytes(b"something else altogether")
    with pytest.raises(ValueError, match="is not a layer table of vislens_interp"):
        open_table(path)
    save_state(path, "lens", {"responses": torch.zeros(2, 2), "target": "{}"})
    with pytest.raises(ValueError, match="holds a lens of format version 1; expected a layer table"):
        open_table(path)


def test_unit_is_left_out(model):
    with pytest.raises(ValueError, match="unit=3, but all units are read; leave it out"):
        read_layer(model, "conv1", IMAGES, preprocess=PREPROCESS, unit=3)
