"""Guidance raises a linear unit above the same noise without it, whatever the model predicts."""

import pytest
import torch
from torch import nn

from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.methods.guided_diffusion import GuidedDiffusion


class Pooled:
    """Embeds a picture as its colours on a grid of 2 x 2, twice."""

    dim, size, device = 24, 8, torch.device("cpu")

    def __call__(self, images):
        return (nn.functional.adaptive_avg_pool2d(images, 2) - 0.5).flatten(1).repeat(1, 2)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction", "sample"])
def backend(request, tmp_path_factory):
    from checkpoints import SCHEDULER, ZERO_SNR, adapter_state, write_stable_diffusion

    from vislens_interp.backends.diffusion.generator import StableDiffusionGenerator

    kind = request.param
    schedule = ZERO_SNR if kind == "v_prediction" else SCHEDULER | {"prediction_type": kind}
    folder = tmp_path_factory.mktemp(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapter = adapter_state(write_stable_diffusion(folder, scheduler=schedule, text=False), Pooled.dim)
    generator = StableDiffusionGenerator.load(
        folder, adapter, prompt=None, guidance_scale=1.0, num_inference_steps=4, size=16, batch_size=4
    )
    return EmbeddingBackend(Pooled(), generator, name=kind)


@pytest.fixture(scope="module")
def target(linear_unit):
    """Prefers bright left halves."""
    return linear_unit(torch.linspace(1, -1, 16).expand(3, 16, 16).contiguous() / 100)


def test_guidance_moves_a_linear_unit_from_the_same_noise(backend, target, pictures):
    images, seeds = pictures(4, 16, seed=1), [1, 2, 3, 4]
    method = GuidedDiffusion(scale=2.0, steps=4).fit(target, backend, pictures(60, 16))
    made = {name: method.generate(images, moves, seeds=seeds).images for name, moves in MOVES.items()}
    read = {name: target.responses(value)[:, 0] for name, value in made.items()}
    assert (read["increase"] > read["none"]).all()
    assert (read["decrease"] < read["none"]).all()
    still = GuidedDiffusion(scale=0.0, steps=4).fit(target, backend, pictures(60, 16))
    torch.testing.assert_close(still.generate(images, MOVES["increase"], seeds=seeds).images, made["none"])


MOVES = {"none": {}, "increase": {0: "increase"}, "decrease": {0: "decrease"}}


def test_without_guidance_it_is_the_generators_own_sample(backend, target, pictures):
    images, seeds = pictures(2, 16, seed=1), [1, 2]
    method = GuidedDiffusion(condition="image", steps=None).fit(target, backend, pictures(60, 16))
    own = backend.decode(backend.encode(images), init_image=None, strength=1.0, seeds=seeds)
    torch.testing.assert_close(method.generate(images, {}, seeds=seeds).images, own, atol=1e-4, rtol=0)
    free = GuidedDiffusion(steps=None).fit(target, backend, pictures(60, 16))
    drawn = free.generate(images, {}, seeds=seeds)
    assert torch.equal(drawn.images, free.generate(images.flip(0), {}, seeds=seeds).images)
    assert drawn.cost.forward == 0


def test_the_pull_is_the_published_one(backend, target, pictures):
    """The noise in a prediction moves by -√(1-ᾱ) s ∇ f, whatever the model predicts."""
    method = GuidedDiffusion(scale=3.0).fit(target, backend, pictures(60, 16))
    generator = backend.generator
    scheduler = generator.text_to_image.scheduler
    kind, time = scheduler.config.prediction_type, torch.tensor(500)
    share = scheduler.alphas_cumprod[time].item()
    signal, noise = share**0.5, (1 - share) ** 0.5
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    predicted = generator.predict_noise(latents, torch.zeros(2, 1, Pooled.dim), time)
    pull = method._pull(generator, latents, predicted, {0: "increase"}, share, kind)

    def parts(prediction):
        if kind == "epsilon":
            return (latents - noise * prediction) / signal, prediction
        if kind == "v_prediction":
            return signal * latents - noise * prediction, signal * prediction + noise * latents
        return prediction, (latents - signal * prediction) / noise

    predicted = generator.predict_noise(latents, torch.zeros(2, 1, Pooled.dim), time)  # its graph was used up
    clean, before = parts(predicted)
    _, after = parts(predicted + pull)
    picture = generator.decode_latents(noise * clean + (1 - noise) * latents)
    response = method.scaler_.standardise(target(picture)).sum()
    (gradient,) = torch.autograd.grad(response, latents)
    torch.testing.assert_close(after - before, -noise * 3.0 * gradient, atol=1e-4, rtol=1e-3)


def test_a_backend_without_a_diffusion_model_is_refused(pixels, target, pictures):
    with pytest.raises(ValueError, match=r"backend 'pixels' has none; expected Stable Diffusion. Use backend='sd15'"):
        GuidedDiffusion().fit(target, pixels(16), pictures(60, 16))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": -1.0}, "scale=-1.0 must not be negative"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"condition": "text"}, "condition='text' is unknown; expected 'none' or 'image'"),
    ],
    ids=str,
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        GuidedDiffusion(**settings)
