"""Reference sets: read once, embedded once for a backend, shared by lenses."""

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vislens_interp import FeatureLens, Preprocess
from vislens_interp.config import Config
from vislens_interp.images import ImageFiles, image_keys, to_pil
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.reference import ReferenceSet, content_key, embed

SIZE, COUNT = 8, 220


class Counting:
    """x is the colours of a picture on a grid; encodings are counted, image by image."""

    name, size, shape, device, differentiable = "counting", SIZE, (48,), torch.device("cpu"), True
    defaults = Config.of(epochs=1, shuffles=1, block_dim=1, w_kld=0.03)

    def __init__(self):
        self.encoded = []

    def encode(self, images):
        self.encoded += image_keys(images)
        return nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) - 0.5

    def render(self, x):
        return nn.functional.interpolate(x.unflatten(1, (3, 4, 4)) + 0.5, size=SIZE).clamp(0, 1)

    def decode(self, x, *, init_image, strength, seeds):
        return self.render(x)

    def reference_images(self):
        return None

    def vae(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return EmbeddingVAE(48, latent_dim=6)

    def feature_extractor(self):
        return lambda x: x


def pictures(count, seed=0):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=SIZE, mode="bilinear").clamp(0, 1)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh())
    model.__dict__["preprocess"] = Preprocess(SIZE, [0.5], [0.5])  # carried, no layer of the Sequential
    return model.eval()


def times(backend, images):
    """How often each of these pictures was encoded."""
    return [backend.encoded.count(key) for key in image_keys(images)]


@pytest.mark.parametrize("goal", ["mean", "surrogate_ascent"])
@pytest.mark.parametrize("method", ["edit", "optimize"])
def test_inputs_are_encoded_once(network, goal, method):
    backend, inputs = Counting(), pictures(5, seed=1)
    lens = FeatureLens(network, "0", 2, backend=backend).fit(pictures(COUNT), goal=goal, optimize={"steps": 2})
    lens.visualize(inputs, method=method, alphas=[0.5] if method == "edit" else ())
    assert max(times(backend, inputs)) == 1


@pytest.mark.parametrize("source", ["tensor", "files", "reference set"])
def test_a_reference_set_is_embedded_once_for_all_lenses_on_a_backend(network, source, tmp_path):
    backend, reference = Counting(), pictures(COUNT)
    given = reference
    if source == "files":
        for row, picture in enumerate(to_pil(reference)):
            picture.save(tmp_path / f"{row:03d}.png")
        given, reference = tmp_path, ImageFiles(tmp_path, SIZE)[:]
    first = FeatureLens(network, "0", 2, backend=backend).fit(given)
    if source == "reference set":
        given = first.reference_set
    lenses = [FeatureLens(network, "0", unit, backend=backend).fit(given) for unit in (1, 4)]
    lenses[0].visualize(pictures(2, seed=1), method="ridge_pattern")
    assert times(backend, reference) == [1] * COUNT
    lenses[0].fit(given, epochs=2)
    lenses[1].contact_sheet([0, 3], count=1)
    # The prototype of each unit is encoded once more, as an input; the set is not.
    assert sum(times(backend, reference)) <= COUNT + 2
    responses = [lens.landscape_.responses for lens in (first, *lenses)]
    assert not torch.equal(responses[0], responses[1])  # of its own unit each


def test_a_sheet_of_many_units_leaves_the_reference_set_in_memory(network, monkeypatch):
    monkeypatch.setattr("vislens_interp.reference.REMEMBERED", 2)
    backend, given = Counting(), pictures(COUNT)
    lens = FeatureLens(network, "0", 2, backend=backend)
    lens.contact_sheet([0, 1, 3, 4], reference_set=given, count=1)
    lens.fit(given)
    assert sum(times(backend, given)) == COUNT + 4


def test_prototypes_look_at_the_reference_set_once(network, monkeypatch, tmp_path):
    monkeypatch.setattr("vislens_interp.reference.REMEMBERED", 2)
    monkeypatch.setattr("vislens_interp.evaluation.stream.AT_ONCE", 2)
    backend, given, seen = Counting(), pictures(COUNT), []
    backend.feature_extractor = lambda: lambda x: (seen.append(len(x)), x)[1]
    lens = FeatureLens(network, "0", 2, backend=backend).fit(given, w_consistency=0, epochs=2)
    for row, picture in enumerate(to_pil(pictures(7, seed=1))):
        picture.save(tmp_path / f"{row}.png")
    lens.visualize(tmp_path, out=tmp_path / "out")  # in four parts, of which the memory keeps two
    assert times(backend, given) == [1] * COUNT
    seen.clear()
    assert lens.visualize().background.galleries["prototypes_increase"].names
    assert seen.count(COUNT) == 1


def test_other_images_are_embedded_and_seldom_used_ones_forgotten():
    backend = Counting()
    sets = [pictures(3, seed=seed) for seed in range(12)]
    for images in sets:
        assert torch.equal(embed(backend, images), embed(backend, images.clone()))
    assert len(backend.encoded) == 36
    embed(backend, sets[-1])
    assert len(backend.encoded) == 36
    embed(backend, sets[0])
    assert len(backend.encoded) == 39


def test_content_is_what_counts():
    images = pictures(3)
    assert content_key(images) == content_key(images.clone())
    assert content_key(images) != content_key(images.flip(0))
    assert content_key(images[:2]) != content_key(images)


def test_what_is_held_out_and_learned():
    reference = ReferenceSet(pictures(6), responses=torch.arange(6.0)[:, None], held_out=[4, 1])
    images, names = reference.held_out()
    assert torch.equal(images, pictures(6)[[4, 1]])
    assert names == ["image_00004", "image_00001"]
    learned = reference.learned()
    assert learned.responses[:, 0].tolist() == [0.0, 2.0, 3.0, 5.0]
    assert reference.learned_count(pictures(6)[:3]) == 2
    backend = Counting()
    assert torch.equal(learned.embeddings(backend), reference.embeddings(backend)[[0, 2, 3, 5]])
    assert len(backend.encoded) == 6


def test_photographs_that_are_held_out_come_before_their_further_crops():
    images = pictures(6)[[0, 0, 1, 0, 2, 2, 3]]
    reference = ReferenceSet(images, held_out=[0, 1, 2, 4, 5])
    assert reference.held_out(3)[1] == ["image_00000", "image_00002", "image_00004"]
    assert reference.held_out(4)[1] == ["image_00000", "image_00001", "image_00002", "image_00004"]
    assert len(reference.held_out(9)[1]) == 5
    assert reference.held_out(0)[0].shape == (0, *images.shape[1:])
    with pytest.raises(ValueError, match="count=-1; expected a whole number of at least 0"):
        reference.held_out(-1)


def test_keys_are_read_once_for_all_lenses_on_a_set(tmp_path, monkeypatch):
    for row, picture in enumerate(to_pil(pictures(10))):
        picture.save(tmp_path / f"{row:03d}.png")
    reference = ReferenceSet(ImageFiles(tmp_path, SIZE))
    images, read = reference.images[:], []
    plain = ImageFiles.__getitem__
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda self, rows: read.append(rows) or plain(self, rows))
    for held_out in ([0, 3], [1], []):  # each lens has its own
        lens = reference.with_responses(torch.arange(10.0)).with_held_out(held_out)
        assert lens.learned_keys == {key for row, key in enumerate(image_keys(images)) if row not in held_out}
        assert lens.learned_count(images) == 10 - len(held_out)
    assert reference.at([7, 2]).keys == [image_keys(images)[row] for row in (7, 2)]
    assert len(read) == 1


def test_kinds_and_what_a_loaded_lens_knows():
    reference = ReferenceSet(pictures(3), origin="synthetic")
    assert (reference.kind, reference.names[0]) == ("synthetic reference", "synthetic-0000")
    assert reference.with_responses([1, 2, 3], measured=True).kind == "synthetic reference, measured responses"
    assert repr(reference) == "ReferenceSet(3 images, synthetic reference)"
    known = ReferenceSet.without_images(image_keys(pictures(2)), measured=False, origin="given")
    assert known.learned_count(pictures(3)) == 2
    assert not known.has_images
    with pytest.raises(ValueError, match="a loaded lens holds no reference images; pass images, or call fit first"):
        known.held_out()


def test_ranking_a_folder_reads_a_part_at_a_time(network, tmp_path, monkeypatch):
    for row, picture in enumerate(to_pil(pictures(150))):
        picture.save(tmp_path / f"{row:03d}.png")
    most = []
    read = ImageFiles.__getitem__
    monkeypatch.setattr(
        ImageFiles, "__getitem__", lambda self, rows: most.append(len(read(self, rows))) or read(self, rows)
    )
    lens = FeatureLens(network, "0", 2, backend=Counting())
    top = lens.top_images(3, tmp_path)
    assert max(most) == 64
    expected = lens.target.responses(ImageFiles(tmp_path, SIZE)[:])[:, 0].sort(descending=True).values[:3]
    torch.testing.assert_close(top.responses, expected)


def test_lenses_on_a_backend_by_name_share_it(network):
    one, other = (FeatureLens(network, "0", unit, backend="cifar10") for unit in (1, 2))
    assert one.backend is other.backend


def test_a_layer_is_read_once_for_all_its_channels(monkeypatch):
    from vislens_interp.targets import LayerTarget

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh()).eval()
    reference = ReferenceSet(pictures(40))
    read = []
    plain = LayerTarget.responses

    def counted(self, images, **options):
        read.append(len(images))
        return plain(self, images, **options)

    monkeypatch.setattr(LayerTarget, "responses", counted)
    for unit in (1, [4, 0], 3):
        target = LayerTarget(model, "1", unit, preprocess=Preprocess(8, [0.5], [0.5]), pool="max")
        found = reference.with_responses([0.0] * 40).without_responses().read_by(target)
        torch.testing.assert_close(found, plain(target, reference.images))
    assert read == [40]
    other = LayerTarget(model, "1", 1, preprocess=Preprocess(8, [0.5], [0.5]))  # another pool
    torch.testing.assert_close(reference.read_by(other), plain(other, reference.images))
    assert read == [40, 40]
    with torch.no_grad():
        model[0].weight.mul_(2)
    torch.testing.assert_close(reference.read_by(other), plain(other, reference.images))  # the weights are others
    assert read == [40, 40, 40]


def test_a_loader_in_random_order_has_no_order_for_responses():
    images = torch.rand(COUNT, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.zeros(COUNT))
    with pytest.raises(ValueError, match="images is a DataLoader with a RandomSampler.*Pass shuffle=False"):
        ReferenceSet.for_fit(Counting(), DataLoader(data, 32, shuffle=True), torch.rand(COUNT))
    reference = ReferenceSet.for_fit(Counting(), DataLoader(data, 32), torch.arange(COUNT))
    assert torch.equal(reference.images, images)
    assert reference.responses.flatten().tolist() == list(range(COUNT))
    assert len(ReferenceSet.for_fit(Counting(), DataLoader(data, 32, shuffle=True))) == COUNT


def test_files_of_a_whole_folder_are_in_an_order_that_nobody_chose(tmp_path):
    for number in range(11):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    files = ImageFiles(tmp_path, 8)
    for source in (tmp_path, files):
        opened = ReferenceSet.open(source, 8, stream=True)
        with pytest.warns(UserWarning, match="'10.png' is number 2, where counting would have '2.png'. If"):
            opened.with_responses(list(range(11)), measured=True)
    assert not files.at(range(11)).sorted_by_name
