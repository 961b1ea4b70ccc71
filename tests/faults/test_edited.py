"""Files that somebody changed: read as they are, or refused by a ValueError that names the file. Nothing else."""

import copy
import json
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from vislens_interp.backends.reference_photographs import ReferencePhotographs, write_reference
from vislens_interp.config import FitConfig
from vislens_interp.files import load_state, save_state
from vislens_interp.landscape.fit import fit_landscape
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.whole_layer import open_table, read_layer
from vislens_interp.training.loop import train

VALUES = [
    None,
    True,
    -1,
    2**70,
    0.5,
    float("inf"),
    "x",
    "",
    [],
    [[]],
    {},
    {"a": 1},
    torch.zeros(0),
    torch.full((3,), torch.nan),
]
PLAIN = [value for value in VALUES if not isinstance(value, torch.Tensor)]
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def places(value, at=()):
    """Paths to everything in nested dictionaries and lists, at most the first three of each list."""
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*at, key))
    return found


def changed(value, at, other):
    """A copy with another value at this place; without the place, for ``del``."""
    made = copy.deepcopy(value)
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    if isinstance(other, str) and other == "del":
        del inner[at[-1]]
    else:
        inner[at[-1]] = other
    return made


def read_or_refused(read, path):
    """Whether it was read; anything but a ValueError that names the file is an error of the test."""
    try:
        read()
    except ValueError as error:
        assert str(path) in str(error), error  # noqa: PT017 (both outcomes are right)
        return False
    return True


def fitted(checkpoint=None):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(220, 6, generator=draw)
    torch.manual_seed(0)
    return fit_landscape(
        EmbeddingVAE(6, 4),
        x,
        x[:, :1],
        ActivationPrior(4, [(0, 2)]),
        FitConfig(epochs=2, batch_size=110),
        checkpoint=checkpoint,
    )


@pytest.fixture(scope="module")
def landscape():
    return fitted().state()


@QUICK
@given(data=st.data())
def test_landscapes(landscape, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("edited") / "landscape"
    at = data.draw(st.sampled_from(places(landscape)))
    save_state(path, "landscape", changed(landscape, at, data.draw(st.sampled_from([*VALUES, "del"]))))
    read_or_refused(lambda: Landscape.load(path), path)


@pytest.fixture(scope="module")
def fit_checkpoint(tmp_path_factory):
    """What a fit that was interrupted after its first epoch left."""
    import vislens_interp.landscape.fit as module

    path = tmp_path_factory.mktemp("fit") / "checkpoint"
    save = module.save_state
    try:

        def killed(*arguments):
            save(*arguments)
            raise KeyboardInterrupt

        module.save_state = killed
        with pytest.raises(KeyboardInterrupt):
            fitted(path)
    finally:
        module.save_state = save
    return load_state(path, "fit checkpoint")


@QUICK
@given(data=st.data())
def test_checkpoints_of_fits(fit_checkpoint, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("edited") / "checkpoint"
    at = data.draw(st.sampled_from([at for at in places(fit_checkpoint) if at[0] != "history"]))
    save_state(path, "fit checkpoint", changed(fit_checkpoint, at, data.draw(st.sampled_from([*PLAIN, "del"]))))
    read_or_refused(lambda: fitted(path), path)


def run(out):
    torch.manual_seed(0)
    model, rows = nn.Linear(3, 1), torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    return train(
        model, lambda step, draw: (model(rows) - 1).square().mean(), out=out, steps=2, lr=0.01, seed=0, data=[rows]
    )


@pytest.fixture(scope="module")
def training_checkpoint(tmp_path_factory):
    out = tmp_path_factory.mktemp("training")
    run(out)
    return load_state(out / "checkpoint.safetensors", "checkpoint")


@QUICK
@given(data=st.data())
def test_checkpoints_of_training(training_checkpoint, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("edited") / "checkpoint.safetensors"
    at = data.draw(st.sampled_from(places(training_checkpoint)))
    save_state(path, "checkpoint", changed(training_checkpoint, at, data.draw(st.sampled_from([*PLAIN, "del"]))))
    read_or_refused(lambda: run(path.parent), path)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "layer.safetensors"
    torch.manual_seed(0)
    read_layer(nn.Sequential(nn.Conv2d(3, 4, 3)), "0", torch.rand(5, 3, 8, 8), path, preprocess=Preprocess(8, [0], [1]))
    return path.read_bytes()


@QUICK
@given(data=st.data())
def test_tables_of_layers(table, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("edited") / "table"
    length = int.from_bytes(table[:8], "little")
    header = json.loads(table[8 : 8 + length])
    said = json.loads(header["__metadata__"]["vislens_interp"])
    other = data.draw(st.sampled_from([*PLAIN, "del"]))
    if data.draw(st.booleans()):
        said = changed(said, data.draw(st.sampled_from(places(said))), other)
        header["__metadata__"]["vislens_interp"] = json.dumps(said)
    else:
        header = changed(header, data.draw(st.sampled_from(places(header))), other)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + table[8 + length :])
    read_or_refused(lambda: open_table(path).responses.sum(), path)


class Means(nn.Module):
    dim = 3

    def forward(self, images):
        return images.mean((2, 3))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("reference")
    Image.new("RGB", (40, 30), (9, 99, 199)).save(folder / "a.png")
    path = write_reference(folder / "reference.zip", [folder / "a.png"], "file,licence\n", Means(), size=16)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@QUICK
@given(data=st.data())
def test_reference_sets(reference, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("edited") / "reference.zip"
    entries = dict(reference)
    (name,) = (name for name in entries if name.endswith(".json"))
    about = json.loads(entries[name])
    about = changed(about, data.draw(st.sampled_from(places(about))), data.draw(st.sampled_from([*PLAIN, "del"])))
    entries[name] = json.dumps(about).encode()
    if data.draw(st.booleans()):
        del entries[data.draw(st.sampled_from(sorted(entries)))]
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)

    def read():
        found = ReferencePhotographs(path, 16, Means())
        return found[:2], found.embeddings(), found.terms()

    read_or_refused(read, path)
