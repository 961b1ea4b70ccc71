"""Lenses and results that 0.1.0 saved: they load, and give the pictures that they gave then."""

from pathlib import Path

import pytest
import torch

from vislens_interp import FeatureLens, LensResult, zoo
from vislens_interp.config import Config
from vislens_interp.images import load_images, resize
from vislens_interp.landscape.vae import EmbeddingVAE

OLD = Path(__file__).parent / "old_files"


def gradients(count, seed=0):
    """Smooth pictures whose colours vary from one to the next, as when the files were written."""
    coarse = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=8, mode="bilinear")


class SmallPixels:
    """Pixels of 8-pixel images as one long x, without refinement."""

    name, size, shape, device, differentiable = "small", 8, (192,), torch.device("cpu"), True
    defaults = Config.of(
        epochs=2,
        lr=1e-4,
        w_kld=0.01,
        block_dim=1,
        shuffles=1,
        optimize={"steps": 15, "lr": 0.05, "move": "all", "chunk": 4},
    )

    def encode(self, images):
        return resize(images, 8).flatten(1)

    def render(self, x):
        return x.unflatten(1, (3, 8, 8)).clamp(0, 1)

    def decode(self, x, *, init_image, strength, seeds):
        return self.render(x)

    def reference_images(self):
        return None

    def vae(self):
        return EmbeddingVAE(192, 12)

    def feature_extractor(self):
        return None


def loaded(name):
    return FeatureLens.load(OLD / f"{name}.safetensors", zoo.load("cifar10_convnet"), backend=SmallPixels())


@pytest.mark.parametrize("name", ["mean", "uphill"])
def test_an_old_lens_gives_the_old_pictures(name):
    """Version 0.1.0 did not save a surrogate; what is trained for it today has another penalty, and edits alike."""
    lens, before = loaded(name), LensResult.load(OLD / f"{name}_result")
    after = lens.visualize(gradients(2, seed=1), "increase")
    for key, images in before.images.items():
        if (name, key) == ("uphill", "increase"):
            old, new = ((made.images[key] - made.images["unedited"]).flatten(1) for made in (before, after))
            assert torch.cosine_similarity(old, new).min() > 0.95
        else:
            torch.testing.assert_close(after.images[key], images, atol=1 / 255, rtol=0)
    for unit in ("16", "3"):
        assert after.of_unit(unit).evidence == lens.evidence_[unit]
    for key, responses in before.responses.items():
        torch.testing.assert_close(after.responses[key], responses, atol=1e-4, rtol=1e-4)
    assert lens.reference_set.kind == before.settings["reference_set"] == "given images"


def test_an_old_lens_optimises_as_it_did():
    before, _ = load_images(OLD / "optimized")
    after = loaded("mean").visualize(gradients(2, seed=1), {16: "increase"}, method="optimize")
    torch.testing.assert_close(after.images["custom"], before, atol=1 / 255, rtol=0)


def test_old_settings_have_todays_names():
    config = loaded("mean").fitted_method.config
    assert (config.prior.axis_scale_sd, config.prior.cross_talk_penalty) == (3.0, 2.0)
    assert (config.edit.cross_talk_steps, config.edit.top_activating_power, config.edit.alpha) == (2, 1.5, 0.75)
    assert (config.optimize.steps, config.optimize.prior_mean_scale, config.optimize.lr) == (3, 2.0, 0.05)
    assert loaded("uphill").fitted_method.config.edit.goal == "surrogate_ascent"
    for name in ("mean", "uphill"):
        settings = LensResult.load(OLD / f"{name}_result").settings["settings"]
        config = loaded(name).fitted_method.config.to_dict()
        for section, values in settings.items():
            assert values.items() <= config[section].items()


def test_a_surrogate_is_saved_with_its_lens(tmp_path):
    lens = loaded("uphill")
    first = lens.visualize(gradients(2, seed=1), "increase")
    again = FeatureLens.load(lens.save(tmp_path / "lens"), zoo.load("cifar10_convnet"), backend=SmallPixels())
    assert again.fitted_method.surrogate_ is not None  # nothing is trained again
    second = again.visualize(gradients(2, seed=1), "increase")
    assert torch.equal(first.images["increase"], second.images["increase"])


def test_a_lens_of_other_embeddings_is_refused():
    class Other(SmallPixels):
        shape = (784,)

    with pytest.raises(ValueError, match=r"has x of shape \(784,\), .* has to be fitted again on today's"):
        FeatureLens.load(OLD / "mean.safetensors", zoo.load("cifar10_convnet"), backend=Other())
