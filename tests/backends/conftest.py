"""Tiny checkpoints in the published layouts, written once, and backends on them."""

import pytest
import torch


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folders of Stable Diffusion, IP-Adapter and open_clip; not to be changed."""
    from checkpoints import write_checkpoints

    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def embeddings():
    """Three, for the tiny checkpoints."""
    from checkpoints import DIM

    return 5 * torch.randn(3, DIM, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pictures():
    """Three at 32 px."""
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def sd15(tiny):
    """The paper's full path on the tiny checkpoints, four steps."""
    from vislens_interp.backends.embedding import sd15

    return sd15(model=tiny.model, adapter=tiny.adapter, clip=tiny.clip, num_inference_steps=4)


@pytest.fixture(scope="session")
def tiny_xl(tiny):
    """The same of Stable Diffusion XL, beside them; not to be changed."""
    from checkpoints import write_checkpoints_xl

    return write_checkpoints_xl(tiny.clip.parent)


@pytest.fixture(scope="session")
def sdxl(tiny_xl):
    """The path with Stable Diffusion XL on its tiny checkpoints, four steps."""
    from vislens_interp.backends.embedding import sdxl

    return sdxl(model=tiny_xl.model, vae=tiny_xl.vae, adapter=tiny_xl.adapter, clip=tiny_xl.clip, num_inference_steps=4)


@pytest.fixture(scope="session")
def textless(sd15, tmp_path_factory):
    """The same generator class on another kind of checkpoint.

    No text encoder, velocities, a schedule that ends in pure noise, an adapter given as tensors, other images.
    """
    from checkpoints import ZERO_SNR, adapter_state, write_stable_diffusion

    from vislens_interp.backends.diffusion.generator import StableDiffusionGenerator
    from vislens_interp.backends.embedding import EmbeddingBackend

    folder = tmp_path_factory.mktemp("textless")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        unet = write_stable_diffusion(folder, scheduler=ZERO_SNR, text=False)
        adapter = adapter_state(unet, sd15.embedder.dim)
    generator = StableDiffusionGenerator.load(
        folder, adapter, prompt=None, guidance_scale=2.0, num_inference_steps=5, size=16, batch_size=2
    )
    pictures = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    return EmbeddingBackend(sd15.embedder, generator, name="textless", reference=pictures)


@pytest.fixture(scope="session")
def small_embedded():
    """The embedded backend at 64 px, three steps."""
    from vislens_interp.backends.embedded import embedded

    return embedded(size=64, steps=3, draw_steps=3)


@pytest.fixture(scope="session")
def retrieval():
    """Natural images by a small network's features; two neighbours, which seeds tell apart."""
    from vislens_interp.backends.retrieval import NetworkEmbedder, RetrievalBackend
    from vislens_interp.preprocess import Preprocess

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        embedder = NetworkEmbedder(torch.nn.Conv2d(3, 6, 3), Preprocess(16, [0.5], [0.5]))
    pictures = torch.rand(420, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    return RetrievalBackend(embedder, pictures[200:], count=2, reference=pictures[:200])
