"""The in-silico encoder on planted truths: linear in a tiny network's features, with and without noise."""

import pytest
import torch
from torch import nn

from vislens_interp.backends.retrieval import NetworkEmbedder, RetrievalBackend
from vislens_interp.brain.backbone import Backbone, Features
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.encoder import InSilicoEncoder, split_images
from vislens_interp.brain.predictivity import predictivity
from vislens_interp.brain.readouts import RidgeReadout
from vislens_interp.lens import FeatureLens
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.selectors import MeanOf
from vislens_interp.targets.target import LayerTarget

SIZE, COUNT = 16, 400
GREY = Preprocess(SIZE, [0.5], [0.5])


def pictures(count=COUNT, seed=0):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()
        )


def recordings(noise=0.3):
    """Redness, the upper half's greenness less the lower's, and pure noise; three repetitions."""
    images = pictures()
    truth = torch.stack(
        [
            images[:, 0].mean((1, 2)),
            images[:, 1, :8].mean((1, 2)) - images[:, 1, 8:].mean((1, 2)),
            torch.zeros(len(images)),
        ],
        1,
    )
    truth = truth / truth.std(0).clamp_min(1e-9) * 2 + 5
    generator = torch.Generator().manual_seed(1)
    trials = truth[:, None] + torch.randn(len(images), 3, 3, generator=generator) * noise * 2
    return BrainDataset.from_arrays(images, trials, targets=["red", "upper", "noise"])


@pytest.fixture(scope="module")
def dataset():
    return recordings()


@pytest.fixture(scope="module")
def backbone():
    return Backbone(network(), preprocess=GREY, grid=4)


FAST = {"ridge": {}, "transformer": {"width": 16, "heads": 2, "epochs": 20, "lr": 5e-3, "dropout": 0.0}}


@pytest.fixture(scope="module", params=list(FAST))
def encoder(request, backbone, dataset):
    before = torch.get_rng_state()
    fitted = InSilicoEncoder(backbone, request.param, **FAST[request.param]).fit(dataset)
    assert torch.equal(torch.get_rng_state(), before)
    return fitted


def test_planted_targets_are_predicted_and_noise_is_doubted(encoder):
    red, upper, noise = encoder.predictivity_
    assert red.r > 0.85
    assert upper.r > 0.85
    assert red.images == 80
    assert red.r2 > 0.7
    assert red.ceiling == pytest.approx((1 / (1 + 0.3**2 / 3)) ** 0.5, abs=0.02)  # SD 2 of signal, 0.6 of noise
    assert red.r > red.ceiling - 0.1
    assert abs(noise.r) < 0.25
    assert list(encoder.doubts) == ["noise"]
    assert "NOT ABOVE CHANCE" in encoder.summary().splitlines()[-1]


def test_predictions_are_in_the_recordings_units(encoder, dataset):
    read = encoder(pictures(100, seed=5))
    assert read.shape == (100, 3)
    assert read[:, 0].mean().item() == pytest.approx(dataset.mean_responses()[:, 0].mean().item(), abs=0.6)
    assert read[:, 0].std().item() == pytest.approx(2, abs=0.6)


def test_gradients_say_what_the_target_looks_at(encoder):
    images = pictures(4, seed=6).requires_grad_()
    encoder(images)[:, 0].sum().backward()
    per_colour = images.grad.sum((0, 2, 3))
    assert per_colour[0] > 2 * per_colour[1:].abs().max()
    assert all(not p.requires_grad for p in encoder.parameters())


def test_an_image_does_not_depend_on_its_batch(encoder):
    images = pictures(5, seed=7)
    torch.testing.assert_close(encoder(images)[3:4], encoder(images[3:4]), atol=1e-4, rtol=1e-4)


def test_what_is_saved_is_what_is_loaded(encoder, tmp_path):
    path = encoder.save(tmp_path / "encoder.safetensors")
    again = InSilicoEncoder.load(path, network(), preprocess=GREY)
    images = pictures(3, seed=8)
    assert torch.equal(encoder(images), again(images))
    assert again.card == encoder.card
    assert again.doubts == encoder.doubts
    assert again.targets == ["red", "upper", "noise"]
    with pytest.raises(ValueError, match="backbone Sequential is not the one that .* was fitted on"):
        InSilicoEncoder.load(path, network(seed=1), preprocess=GREY)


def test_a_region_is_a_unit(encoder):
    target = LayerTarget(encoder, None, ["red", "upper"])
    images = pictures(6, seed=9)
    torch.testing.assert_close(target(images), encoder(images)[:, :2])
    assert target.names == ["red", "upper"]
    assert target.differentiable
    both = LayerTarget(encoder, None, MeanOf([0, 1]))
    torch.testing.assert_close(both(images)[:, 0], encoder(images)[:, :2].mean(1))
    with pytest.raises(KeyError, match="'rod' is none of the 3 labels; .*red"):
        LayerTarget(encoder, None, "rod")


def test_an_unpredictable_target_is_refused_unless_forced(encoder, dataset, backbone):
    for unit in ("noise", 2):  # by name, and by its number
        with pytest.raises(
            ValueError, match="unit='noise' of InSilicoEncoder: its encoder does not predict it above chance"
        ):
            FeatureLens(encoder, unit=unit)
    forced = InSilicoEncoder(backbone, "ridge", force=True).fit(dataset)
    embedder = NetworkEmbedder(network(3), GREY)
    lens = FeatureLens(forced, unit="noise", backend=RetrievalBackend(embedder, pictures(60, seed=3)))
    lens.fit(dataset.images, shuffles=1)
    result = lens.visualize(pictures(4, seed=4))
    assert result.evidence.weak
    assert "does not predict it above chance" in result.summary()


def test_without_himalaya_the_install_line_comes_before_hours_of_features(dataset, backbone, monkeypatch):
    monkeypatch.setattr("vislens_interp.brain.readers.trials.find_spec", lambda name: None)
    monkeypatch.setattr(Backbone, "read", lambda *a, **k: pytest.fail("features were read"))
    with pytest.raises(ImportError, match=r"readout='ridge' needs the package himalaya.*vislens_interp\[brain\]"):
        InSilicoEncoder(backbone).fit(dataset)
    with pytest.raises(ImportError, match="readout='ridge' needs the package himalaya"):
        InSilicoEncoder.fit_pair(backbone, dataset)


def test_wrong_settings_of_a_pair_come_before_hours_of_features(dataset, backbone, monkeypatch):
    monkeypatch.setattr(Backbone, "read", lambda *a, **k: pytest.fail("features were read"))
    with pytest.raises(ValueError, match="readout='linear' is unknown"):
        InSilicoEncoder.fit_pair(backbone, dataset, "linear")
    with pytest.raises(ValueError, match="width=10 must be a multiple of heads=4"):
        InSilicoEncoder.fit_pair(backbone, dataset, "transformer", width=10, heads=4)


def test_a_network_of_the_zoo_is_a_backbone_by_name():
    assert Backbone("zoo:cifar10_convnet").source == "zoo:cifar10_convnet"
    with pytest.raises(ValueError, match="backbone='cifar10_convnet' is unknown; .* Closest: zoo:cifar10_convnet."):
        InSilicoEncoder("cifar10_convnet")
    with pytest.raises(ValueError, match="backbone='resnet18x' is unknown; expected timm's name.* Closest: resnet18"):
        Backbone("resnet18x")


def test_a_lens_without_a_unit_names_the_targets():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.labels = ["OFA", "PPA", "V4"]
    with pytest.raises(ValueError, match="unit=None, but .*say which unit. It has 'OFA', 'PPA', 'V4'."):
        FeatureLens(model, backend="cifar10", preprocess=GREY)


def test_a_lens_on_an_unfitted_encoder(backbone):
    with pytest.raises(ValueError, match="this encoder is not fitted; call fit"):
        FeatureLens(InSilicoEncoder(backbone), unit="FFA-1")


def test_maker_and_judge(dataset, backbone):
    maker, judge = InSilicoEncoder.fit_pair(backbone, dataset)
    assert maker.card["learnt_from"] == judge.card["held_out"] == 200
    assert not set(maker.card["held_out_rows"]) & set(judge.card["held_out_rows"])
    backend = RetrievalBackend(NetworkEmbedder(network(3), GREY), pictures(300, seed=3))
    lens = FeatureLens(maker, unit="red", backend=backend)
    lens.fit(dataset.images, dataset.mean_responses()[:, 0], shuffles=1)
    images = pictures(20, seed=4)
    own = lens.visualize(images)
    assert "judged by InSilicoEncoder itself; responses that were given guided them" in own.summary()
    by_maker = lens.visualize(images, judge=LayerTarget(maker, None, "red"))
    assert "judged by red of InSilicoEncoder (maker), the network that guided them" in by_maker.summary()
    other = lens.visualize(images, judge=LayerTarget(judge, None, "red"))
    assert "judged by red of InSilicoEncoder (judge)\n" in other.summary() + "\n"
    assert other.response_change["increase"].mean() > 0.3
    assert other.response_change["decrease"].mean() < -0.3


def test_an_ensemble_says_how_sure_it_is(dataset, backbone):
    several = InSilicoEncoder(backbone, "ridge", seeds=3).fit(dataset)
    images = pictures(30, seed=5)
    spread = several.spread(images)
    assert spread.shape == (30, 3)
    assert (spread > 0).all()
    each = torch.stack([member(several.backbone(images)) for member in several.members]) * several.scale + several.shift
    torch.testing.assert_close(spread, each.std(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(several(images), each.mean(0))
    alone = InSilicoEncoder(backbone, "ridge").fit(dataset)
    with pytest.raises(ValueError, match="one member has no spread"):
        alone.spread(images)


class KilledError(Exception):
    pass


def test_an_interrupted_training_goes_on(dataset, backbone, tmp_path, monkeypatch):
    from vislens_interp.brain import readouts

    settings = {**FAST["transformer"], "epochs": 4, "dropout": 0.2}
    whole = InSilicoEncoder(backbone, "transformer", seeds=2, **settings).fit(dataset)
    written = 0

    def kill(*arguments):
        nonlocal written
        path = save(*arguments)
        written += 1
        if written == 2:
            raise KilledError
        return path

    save = readouts.save_state
    monkeypatch.setattr(readouts, "save_state", kill)
    again = InSilicoEncoder(backbone, "transformer", seeds=2, **settings)
    with pytest.raises(KilledError):
        again.fit(dataset, checkpoint=tmp_path)
    monkeypatch.undo()
    again.fit(dataset, checkpoint=tmp_path)
    images = pictures(4, seed=5)
    torch.testing.assert_close(again(images), whole(images), atol=0, rtol=0)
    assert not list(tmp_path.iterdir())


def test_a_finished_member_is_kept_and_that_of_another_fit_refused(dataset, backbone, tmp_path, monkeypatch):
    from vislens_interp.brain import readouts

    begun = []

    def kill(self, *arguments):
        begun.append(arguments)
        if len(begun) == 2:
            raise KilledError
        return train(self, *arguments)

    def fit(seed=0):
        settings = {**FAST["transformer"], "epochs": 4}
        encoder = InSilicoEncoder(backbone, "transformer", seeds=2, seed=seed, **settings)
        return encoder.fit(dataset, held_out=torch.arange(20), checkpoint=tmp_path)

    train = readouts.TransformerReadout._train
    monkeypatch.setattr(readouts.TransformerReadout, "_train", kill)
    with pytest.raises(KilledError):  # where the second member would begin
        fit()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="belongs to a fit with other settings, images or responses"):
        fit(seed=1)
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *given: steps.append(1) or step(self, *given))
    fit()
    resumed = len(steps)
    assert not list(tmp_path.iterdir())
    fit()
    assert len(steps) == 3 * resumed  # of two members the first was finished
    assert not list(tmp_path.iterdir())


def test_features_are_kept_on_disk(dataset, backbone, tmp_path, monkeypatch):
    first = InSilicoEncoder(backbone).fit(dataset, cache=tmp_path)
    monkeypatch.setattr(Backbone, "_rows", lambda self, images: pytest.fail("computed again"))
    second = InSilicoEncoder(backbone).fit(dataset, cache=tmp_path)
    assert first.card["predictivity"] == second.card["predictivity"]


class Brighter(nn.Module):
    size = SIZE

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, images):
        return images * self.by


def test_features_of_another_preprocessing_of_one_name_are_not_taken(tmp_path):
    for by in (1.0, 3.0):
        backbone = Backbone(network(), preprocess=Brighter(by))
        kept = backbone.read(pictures(4), cache=tmp_path).rows
        torch.testing.assert_close(kept, backbone.read(pictures(4)).rows)


def test_files_are_read_where_they_are_needed(backbone, dataset, tmp_path):
    from vislens_interp.images import ImageFiles, to_pil

    (tmp_path / "pictures").mkdir()
    for row, picture in enumerate(to_pil(dataset.images[:120])):
        picture.save(tmp_path / "pictures" / f"{row:03d}.png")
    files = ImageFiles(tmp_path / "pictures", SIZE)
    some = BrainDataset.from_arrays(files, dataset.responses[:120], targets=dataset.targets)
    whole = backbone.read(some.images)
    kept = backbone.read(some.images, cache=tmp_path / "cache")
    assert torch.equal(whole.rows, kept.rows)
    assert InSilicoEncoder(backbone).fit(some, features=kept).predictivity_[0].r > 0.6


def test_missing_responses(backbone):
    images = pictures()
    red = images[:, 0].mean((1, 2))
    responses = torch.stack([red, red, torch.where(torch.arange(COUNT) % 3 > 0, red, torch.nan)], 1)
    fitted = InSilicoEncoder(backbone).fit(BrainDataset.from_arrays(images, responses, targets=["a", "b", "c"]))
    a, b, c = fitted.predictivity_
    assert a == type(a)("a", b.r, b.r2, b.p_value, b.images, b.ceiling)
    assert c.images < a.images
    assert c.r > 0.9


def shared_features(rows, missing=()):
    """Responses to features of which one is larger in every second row; (n,) NaN in ``missing``; and what is true."""
    x = torch.randn(rows + 500, 30, generator=torch.Generator().manual_seed(0))
    x[:, 0] += 3 * (torch.arange(len(x)) % 2)
    truth = x @ torch.linspace(2, -1, 30)[:, None] / 10
    given = truth[:rows] + 0.1 * torch.randn(rows, 1, generator=torch.Generator().manual_seed(1))
    given[list(missing)] = torch.nan
    return x, truth, given


def test_a_target_that_few_images_have_is_learnt_as_if_there_were_no_others():
    x, truth, given = shared_features(200, missing=range(0, 200, 2))
    errors = []
    for rows in (torch.arange(200), torch.arange(1, 200, 2)):  # features have other means and SDs over these
        ridge = RidgeReadout([(1, 30)], 1)
        ridge.fit(Features(x.half(), [(1, 30)]), given, rows, seed=0, progress=False, checkpoint=None)
        errors.append((ridge([x[201::2, None]]) - truth[201::2]).square().mean().item())
    assert errors[0] < 2 * errors[1]


def test_copies_of_a_picture_do_not_choose_the_penalty(backbone):
    x, _, given = shared_features(60)
    noisy = given + 2 * torch.randn(60, 1, generator=torch.Generator().manual_seed(2))
    penalties = []
    for copies in (1, 5):  # one picture, one answer: a copy in another fold knows it
        rows = torch.arange(60).repeat_interleave(copies)
        ridge = RidgeReadout([(1, 30)], 1)
        features = Features(x[rows].half(), [(1, 30)])
        each = {"seed": 0, "progress": False, "checkpoint": None, "pictures": rows}
        ridge.fit(features, noisy[rows], torch.arange(len(rows)), **each)
        penalties.append(ridge.penalties.item() / copies)
    assert penalties[1] > penalties[0] / 4
    images, seen = pictures(20)[torch.arange(20).repeat(2)], []
    data = BrainDataset.from_arrays(images, torch.rand(40, 1), targets=["a"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RidgeReadout, "fit", lambda self, *given, pictures, **said: seen.append(pictures) or self)
        InSilicoEncoder(backbone).fit(data)
    assert torch.equal(seen[0], torch.arange(20).repeat(2))


def test_training_stops_by_pictures_that_it_does_not_see(backbone, monkeypatch):
    images = pictures(20)[torch.arange(20).repeat(3)]
    data = BrainDataset.from_arrays(images, torch.rand(60, 1), targets=["a"])
    asked = []
    take = Features.__getitem__
    monkeypatch.setattr(Features, "__getitem__", lambda self, rows: asked.append(rows) or take(self, rows))
    InSilicoEncoder(backbone, "transformer", epochs=1, width=8, batch_size=64).fit(data)
    held_out, training = asked[1] % 20, asked[0] % 20  # all of them, then those by which it stops
    assert set(held_out.tolist()).isdisjoint(training.tolist())


def test_himalayas_backend_is_left_as_it_was(dataset, backbone):
    from himalaya.backend import get_backend, set_backend

    before = get_backend().name
    try:
        set_backend("torch")
        InSilicoEncoder(backbone).fit(dataset)
        assert get_backend().name == "torch"
    finally:
        set_backend(before)


def test_copies_of_a_picture_stay_together():
    images = pictures(20)[torch.arange(20).repeat(2)]
    data = BrainDataset.from_arrays(images, torch.rand(40, 1), targets=["a"])
    drawn, rest = split_images(data, 0.25, seed=3)
    assert len(drawn) == 10
    assert {row % 20 for row in drawn.tolist()}.isdisjoint(row % 20 for row in rest.tolist())
    again, _ = split_images(data, 0.25, seed=3)
    assert torch.equal(drawn, again)
    inside, _ = split_images(data, 0.5, rows=torch.arange(10))
    assert len(inside) == 5
    assert inside.max() < 10
    for rows in (slice(10), torch.arange(40) < 10, range(-40, -30)):
        assert torch.equal(split_images(data, 0.5, rows=rows)[0], inside)
    with pytest.raises(ValueError, match="share=1 must lie between 0 and 1"):
        split_images(data, 1)


def test_rows_of_a_fit_are_those_of_take(dataset, backbone):
    encoder = InSilicoEncoder(backbone)
    mask = torch.arange(COUNT) < 300
    encoder.fit(dataset, rows=mask, held_out=range(-100, 0))
    assert encoder.card["learnt_from"] == 300
    assert encoder.card["held_out_rows"] == list(range(300, 400))


def test_nothing_is_explained_of_what_never_varies():
    assert predictivity(torch.randn(9, 1), torch.full((9, 1), 0.1), ["silent"])[0].r2 == 0.0


def test_chance():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(200, 2000, generator=generator), torch.randn(200, 2000, generator=generator)
    found = predictivity(a, b, [str(k) for k in range(2000)])
    assert sum(item.doubt is None for item in found) / 2000 == pytest.approx(0.05, abs=0.015)
    with pytest.raises(ValueError, match="predicted has shape .* expected"):
        predictivity(a, b[:, :5], ["x"] * 5)
    with pytest.raises(ValueError, match="recorded holds 2 responses of target 'x'"):
        predictivity(a[:2, :1], b[:2, :1], ["x"])


def test_layers_are_found():
    import timm

    vit = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=32, patch_size=4, depth=3, embed_dim=24, num_heads=2
    )
    read = Backbone(vit, preprocess=Preprocess(32, [0.5], [0.5]), grid=4)
    assert read.layers == ["blocks.0", "blocks.1", "blocks.2"]
    assert read.shapes == [(17, 24)] * 3  # the class token, and 4 x 4 positions
    resnet = timm.create_model("resnet18", pretrained=False)
    read = Backbone(resnet, preprocess=Preprocess(64, [0.5], [0.5]), grid=4)
    assert read.layers == [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert read.shapes[0] == (16, 64)
    assert read.shapes[-1] == (4, 512)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    known = resnet.eval().layer2(resnet.layer1(resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(images * 2 - 1))))))
    tokens = read(images)[3].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(tokens, nn.functional.adaptive_avg_pool2d(known, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"readout": "linear"}, "readout='linear' is unknown; expected 'ridge' or 'transformer'"),
        ({"seeds": 0}, "seeds=0; expected a whole number of at least 1"),
        ({"grid": 0}, "grid=0 must be at least 1"),
        ({"layers": ["9"]}, "layers: '9' of Sequential is not there; expected layers such as"),
        ({"readout": "transformer", "width": 10, "heads": 4}, "width=10 must be a multiple of heads=4"),
        ({"readout": "transformer", "heads": 0}, "heads=0; expected a whole number of at least 1"),
        ({"readout": "transformer", "epochs": 0}, "epochs=0; expected a whole number of at least 1"),
        ({"readout": "transformer", "validation": 1.0}, "validation=1.0 must lie between 0 and 1"),
        ({"preprocess": Preprocess(None, [0.5], [0.5])}, "preprocess of Sequential does not say a size"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        InSilicoEncoder(network(), **{"preprocess": GREY, **arguments})


def test_wrong_data(backbone, dataset, tmp_path):
    encoder = InSilicoEncoder(backbone)
    with pytest.raises(ValueError, match="this encoder is not fitted; call fit"):
        encoder(pictures(2))
    with pytest.raises(ValueError, match="this encoder is not fitted; call fit"):
        encoder.save(tmp_path / "x")
    with pytest.raises(ValueError, match="this encoder is not fitted; call fit"):
        encoder.summary()
    with pytest.raises(ValueError, match="rows and held_out share 10 pictures"):
        encoder.fit(dataset, rows=torch.arange(50), held_out=torch.arange(40, 60))
    with pytest.raises(ValueError, match="held_out holds 1 rows for 400 images; expected at least 3"):
        encoder.fit(dataset, rows=torch.arange(50), held_out=torch.tensor([60]))
    for rows in ({"rows": torch.arange(390, 410)}, {"held_out": [400]}):
        with pytest.raises(ValueError, match=f"{next(iter(rows))} holds 400; expected rows of 400 images, 0 to 399"):
            encoder.fit(dataset, **rows)
    with pytest.raises(TypeError, match=r"held_out=0.2; expected positions \(whole numbers\), a slice, or a mask"):
        encoder.fit(dataset, held_out=0.2)
    absent = torch.rand(COUNT, 2)
    absent[300:, 1] = torch.nan
    late = BrainDataset.from_arrays(pictures(), absent, targets=["a", "b"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "read", lambda self, *given, **said: pytest.fail("read before the check"))
        with pytest.raises(ValueError, match="held_out: target 'b' has less than 3 responses among these 100 images"):
            encoder.fit(late, held_out=range(300, 400))
    large = network()
    with torch.no_grad():
        large[0].weight.mul_(1e7)
    with pytest.raises(ValueError, match="layers: '0' of Sequential give NaN or more than 65,504"):
        Backbone(nn.Sequential(large[0], nn.Tanh()), preprocess=GREY).read(pictures(3))
    still = BrainDataset.from_arrays(pictures(), torch.ones(COUNT, 1), targets=["still"])
    with pytest.raises(ValueError, match="target 'still' never varies"):
        encoder.fit(still)
