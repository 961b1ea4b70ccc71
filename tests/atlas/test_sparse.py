"""Latents of a dictionary as units: computed as written down, read from files, wrong ones refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_layer import UNITS, clouds

from vislens_interp import ReferenceSet
from vislens_interp.atlas import Atlas, SparseFeatures, train_sparse_features
from vislens_interp.targets.subset import UnitsOf

LATENTS = 20


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(6)
    shapes = {"W_enc": (UNITS, LATENTS), "b_enc": (LATENTS,), "W_dec": (LATENTS, UNITS), "b_dec": (UNITS,)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def write(folder, weights, **config):
    folder.mkdir()
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": UNITS, "d_sae": LATENTS, **config}))
    return folder


def test_files_give_what_their_architecture_says(weights, tmp_path):
    x = torch.randn(7, 5, UNITS, generator=torch.Generator().manual_seed(7))
    before = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    standard = SparseFeatures.load(write(tmp_path / "standard", weights, architecture="standard"))
    assert torch.allclose(standard.encode(x), before.relu())
    top = SparseFeatures.load(write(tmp_path / "topk", weights, architecture="topk", k=3)).encode(x)
    third = before.topk(3).values[..., -1:]
    assert torch.allclose(top, torch.where(before >= third, before.relu(), 0.0))
    threshold = torch.full((LATENTS,), 0.7)
    written = write(tmp_path / "jump", weights | {"threshold": threshold}, architecture="jumprelu")
    assert torch.allclose(SparseFeatures.load(written).encode(x), torch.where(before > 0.7, before, 0.0))
    plain = write(tmp_path / "plain", weights, architecture="standard", apply_b_dec_to_input=False)
    assert torch.allclose(SparseFeatures.load(plain).encode(x), (x @ weights["W_enc"] + weights["b_enc"]).relu())
    scaled = write(tmp_path / "scaled", weights, architecture="topk", k=3, rescale_acts_by_decoder_norm=True)
    longer = before * weights["W_dec"].norm(dim=1)
    assert torch.allclose(SparseFeatures.load(scaled).encode(x).amax(-1), longer.amax(-1).relu())


WRITTEN = Path(__file__).parent / "dictionaries"
"""By SAELens and Overcomplete themselves, with what they made of five vectors (write.py there)."""


@pytest.mark.parametrize("name", ["standard", "topk", "topk_rescaled", "jumprelu", "batchtopk"])
def test_files_that_saelens_wrote_give_its_latents(name):
    features, expected = SparseFeatures.load(WRITTEN / name), load_file(WRITTEN / name / "expected.safetensors")
    latents = features.encode(expected["x"])
    assert (expected["latents"] != 0).any(0).sum() > 3
    assert torch.allclose(latents, expected["latents"], atol=1e-6)
    assert torch.allclose(features.decode(latents), expected["decoded"], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gated", r"architecture 'gated' with normalize_activations='none', reshape_activations='none'; exp"),
        ("layer_norm", r"architecture 'standard' with normalize_activations='layer_norm'"),
        ("hook_z", r"reshape_activations='hook_z'; expected standard, topk, jumprelu with 'none'. Pass weights"),
    ],
)
def test_files_of_saelens_that_are_not_computed_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        SparseFeatures.load(WRITTEN / name)


def test_a_dictionary_of_overcomplete_goes_in_by_its_weights():
    state = load_file(WRITTEN / "overcomplete" / "state.safetensors")
    expected = load_file(WRITTEN / "overcomplete" / "expected.safetensors")
    features = SparseFeatures(
        state["encoder.final_block.0.weight"].T,
        state["encoder.final_block.0.bias"],
        kind="topk",
        k=3,
        decoder=expected["dictionary"],
    )
    latents = features.encode(expected["x"])
    assert (expected["latents"] != 0).sum() > 10
    assert torch.allclose(latents, expected["latents"], atol=1e-6)
    assert torch.allclose(features.decode(latents), expected["decoded"], atol=1e-6)


def test_latents_are_units_of_an_atlas(weights, network, backend, images):
    features = SparseFeatures(weights["W_enc"], weights["b_enc"], kind="topk", k=4, centre=weights["b_dec"])
    target = features.target(network, "layer")
    some = clouds(2, seed=3)
    with torch.no_grad():
        maps = network(network.preprocess(some)).movedim(1, -1)
    assert torch.allclose(target.responses(some), features.encode(maps).flatten(1, 2).mean(1), atol=1e-5)
    strongest = features.target(network, "layer", pool="max").responses(some)
    assert torch.allclose(strongest, features.encode(maps).flatten(1, 2).amax(1), atol=1e-5)
    known = ReferenceSet(some)
    for pool in ("mean", "max"):
        pooled = features.target(network, "layer", pool=pool)
        assert torch.equal(known.read_by(UnitsOf.named(pooled, ["7", 3])), pooled.responses(some)[:, [7, 3]])
    fit = Atlas(target, images=images, backend=backend).fit(inputs=0).fit_
    assert fit.responses.shape == (len(images), LATENTS)
    assert fit.about["target"]["dictionary"]["kind"] == "topk"
    assert (fit.readouts.correlation > 0.5).any()


def test_a_dictionary_of_a_layer_is_trained_saved_and_loaded(network, images, tmp_path):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    options = {"latents": LATENTS, "k": 3, "positions": 8, "lr": 5e-3, "size": images.shape[-1]}
    short, features = (train_sparse_features(network, "layer", images, steps=steps, **options) for steps in (1, 400))
    assert features.about["explained_variance"] > max(0.6, short.about["explained_variance"] + 0.1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    again = train_sparse_features(network, "layer", images, steps=400, **options)
    assert torch.equal(again.encoder, features.encoder)

    with torch.no_grad():
        vectors = network(network.preprocess(clouds(9, seed=4))).movedim(1, -1).flatten(0, -2)
    codes = features.encode(vectors)
    assert (codes > 0).sum(-1).max() <= 3
    left = (vectors - features.decode(codes)).square().sum() / (vectors - vectors.mean(0)).square().sum()
    assert left < 0.5  # pictures that were neither learned from nor held out
    loaded = SparseFeatures.load(features.save(tmp_path / "dictionary"))
    assert torch.equal(loaded.encode(vectors), codes)
    assert torch.equal(loaded.decode(codes), features.decode(codes))
    assert (loaded.about, loaded.describe()) == (features.about, features.describe())
    features.save(tmp_path / "dictionary")  # its own folder
    (tmp_path / "dictionary" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="holds other files \\(mine.txt\\)"):
        features.save(tmp_path / "dictionary")
    with pytest.raises(ValueError, match="no decoder"):
        SparseFeatures(features.encoder, features.bias).save(tmp_path / "other")


def test_decoders_of_files_decode(weights, tmp_path):
    x = torch.randn(7, UNITS, generator=torch.Generator().manual_seed(7))
    scaled = SparseFeatures.load(
        write(tmp_path / "scaled", weights, architecture="topk", k=3, rescale_acts_by_decoder_norm=True)
    )
    before = ((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]) * weights["W_dec"].norm(dim=1)
    best = before.topk(3)
    codes = torch.zeros_like(before).scatter(1, best.indices, best.values.relu()) / weights["W_dec"].norm(dim=1)
    assert torch.allclose(scaled.decode(scaled.encode(x)), codes @ weights["W_dec"] + weights["b_dec"], atol=1e-5)
    shifted = write(tmp_path / "shifted", weights, architecture="standard", apply_b_dec_to_input=False)
    with pytest.raises(ValueError, match="no decoder"):  # what it would add differs from what it takes away
        SparseFeatures.load(shifted).decode(codes)


@pytest.mark.parametrize(
    ("options", "message"), [({"k": 30, "latents": 20}, "k=30 of latents=20"), ({"steps": 0}, "steps=0")]
)
def test_wrong_numbers_of_a_training_are_named(network, images, options, message):
    with pytest.raises(ValueError, match=message):
        train_sparse_features(network, "layer", images, **options)


def test_too_few_images_for_a_dictionary(network, images):
    with pytest.raises(ValueError, match="images holds 9; expected at least 10"):
        train_sparse_features(network, "layer", images[:9], size=images.shape[-1])


def test_what_does_not_fit_is_refused(weights, network, tmp_path):
    encoder, bias = weights["W_enc"], weights["b_enc"]
    with pytest.raises(ValueError, match=r"kind='gated' is unknown; expected 'standard', 'topk' or 'jumprelu'"):
        SparseFeatures(encoder, bias, kind="gated")
    with pytest.raises(ValueError, match=r"encoder has shape \(12, 20\) and bias \(3,\); expected \(D, M\) and \(M,\)"):
        SparseFeatures(encoder, bias[:3])
    with pytest.raises(ValueError, match=r"centre has shape \(20,\); expected \(12,\)"):
        SparseFeatures(encoder, bias, centre=bias)
    with pytest.raises(ValueError, match=r"kind='topk' and k=None; expected k from 1 to 20"):
        SparseFeatures(encoder, bias, kind="topk")
    with pytest.raises(ValueError, match=r"threshold of shape \(20,\) goes with 'jumprelu'"):
        SparseFeatures(encoder, bias, kind="jumprelu")
    with pytest.raises(ValueError, match=r"has 12 channels and the dictionary takes 5; expected the same"):
        SparseFeatures(encoder[:5], bias).target(network, "layer")
    with pytest.raises(ValueError, match=r"pool='center'; expected 'mean' or 'max'"):
        SparseFeatures(encoder, bias).target(network, "layer", pool="center")
    with pytest.raises(FileNotFoundError, match=r"lacks cfg.json; expected what SAELens' save_model wrote"):
        SparseFeatures.load(tmp_path)
    with pytest.raises(ValueError, match=r"architecture 'gated' with normalize_activations='none'"):
        SparseFeatures.load(write(tmp_path / "gated", weights, architecture="gated"))
    with pytest.raises(ValueError, match=r"damaged or in another layout \(KeyError: 'k'\)"):
        SparseFeatures.load(write(tmp_path / "nok", weights, architecture="topk"))
    (tmp_path / "nok" / "sae_weights.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match=r"damaged or in another layout \(SafetensorError"):
        SparseFeatures.load(tmp_path / "nok")
