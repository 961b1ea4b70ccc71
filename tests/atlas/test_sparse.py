"""Latents of a dictionary as units: computed as written down, read from files, wrong ones refused."""

import json

import pytest
import torch
from safetensors.torch import save_file
from small_layer import UNITS, clouds

from vislens_interp.atlas import Atlas, SparseFeatures

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


def test_latents_are_units_of_an_atlas(weights, network, backend, images):
    features = SparseFeatures(weights["W_enc"], weights["b_enc"], kind="topk", k=4, centre=weights["b_dec"])
    target = features.target(network, "layer")
    some = clouds(2, seed=3)
    with torch.no_grad():
        maps = network(network.preprocess(some)).movedim(1, -1)
    assert torch.allclose(target.responses(some), features.encode(maps).flatten(1, 2).mean(1), atol=1e-5)
    strongest = features.target(network, "layer", pool="max").responses(some)
    assert torch.allclose(strongest, features.encode(maps).flatten(1, 2).amax(1), atol=1e-5)
    fit = Atlas(target, images=images, backend=backend).fit(inputs=0).fit_
    assert fit.responses.shape == (len(images), LATENTS)
    assert fit.about["target"]["dictionary"]["kind"] == "topk"
    assert (fit.readouts.correlation > 0.5).any()


def test_what_does_not_fit_is_refused(weights, network, tmp_path):
    encoder, bias = weights["W_enc"], weights["b_enc"]
    with pytest.raises(ValueError, match=r"kind='gated' is unknown; expected one of 'standard', 'topk', 'jumprelu'"):
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
