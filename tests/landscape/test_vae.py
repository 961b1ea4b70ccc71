import pytest
import torch
from torch import nn

from vislens_interp.landscape.prior import kl_divergence
from vislens_interp.landscape.vae import BottleneckCVAE, EmbeddingVAE, build, restore, sample_posterior, state


def small_vaes():
    torch.manual_seed(0)
    return [
        (BottleneckCVAE(12, image_size=8, width=4), torch.rand(9, 3, 8, 8)),
        (EmbeddingVAE(10, 6), torch.randn(9, 10)),
    ]


def test_bottleneck_is_the_papers():
    vae = BottleneckCVAE()
    shapes = [
        tuple(module.weight.shape)
        for module in vae.modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    ]
    assert shapes == [
        (16, 3, 3, 3),
        (32, 16, 3, 3),
        (64, 32, 3, 3),
        (192, 4096),
        (192, 4096),
        (192, 192),
        (192, 192),
        (4096, 192),
        (64, 32, 3, 3),
        (32, 16, 3, 3),
        (16, 3, 3, 3),
    ]
    mean, log_variance = vae.encode(torch.rand(2, 3, 32, 32))
    assert mean.shape == log_variance.shape == (2, 192)
    decoded = vae.decode(100 * torch.randn(2, 192))
    assert decoded.shape == (2, 3, 32, 32)
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_embedding_vae_is_the_papers():
    vae = EmbeddingVAE(1024)
    assert [tuple(p.shape) for p in vae.parameters()] == [(2048, 1024), (2048,), (1024, 1024), (1024,)]
    mean, log_variance = vae.encode(torch.randn(2, 1024))
    assert mean.shape == log_variance.shape == vae.decode(mean).shape == (2, 1024)


def test_sample_posterior():
    z = sample_posterior(torch.tensor([1.0]), torch.tensor([4.0]).log(), torch.tensor([-3.0]))
    torch.testing.assert_close(z, torch.tensor([-5.0]))


@pytest.mark.parametrize(("vae", "x"), small_vaes(), ids=["cvae", "embedding"])
def test_change_of_basis(vae, x):
    before, _ = vae.encode(x)
    decoded = vae.decode(before)
    columns = torch.linalg.qr(torch.randn(vae.latent_dim, vae.latent_dim)).Q * torch.rand(vae.latent_dim).add(0.5)
    centre, variance = torch.randn(vae.latent_dim), torch.rand(vae.latent_dim) + 0.1
    state_before = torch.get_rng_state()
    vae.change_basis(columns, centre, variance)
    assert torch.equal(torch.get_rng_state(), state_before)
    after, log_variance = vae.encode(x)
    torch.testing.assert_close(after @ columns.T + centre, before, atol=1e-4, rtol=0)
    torch.testing.assert_close(vae.decode(after), decoded, atol=1e-4, rtol=0)
    precision = columns.T @ torch.diag(1 / variance) @ columns
    torch.testing.assert_close(log_variance[0].exp(), 1 / precision.diagonal(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_state_keeps_the_layout_of_memory(layout):
    vae = BottleneckCVAE(12, image_size=8, width=4).to(memory_format=layout)
    again = restore(state(vae))
    for one, two in zip(vae.parameters(), again.parameters(), strict=True):
        assert one.stride() == two.stride()


@pytest.mark.parametrize(("vae", "x"), small_vaes(), ids=["cvae", "embedding"])
def test_state_makes_the_same_network_and_leaves_the_generator(vae, x):
    before = torch.get_rng_state()
    again = restore(state(vae))
    assert torch.equal(torch.get_rng_state(), before)
    assert type(again) is type(vae)
    assert torch.equal(again.decode(again.encode(x)[0]), vae.decode(vae.encode(x)[0]))


def test_errors():
    with pytest.raises(ValueError, match="image_size=30 must be a multiple of 4"):
        BottleneckCVAE(image_size=30)
    with pytest.raises(ValueError, match=r"kind='VQVAE' .*'BottleneckCVAE' or 'EmbeddingVAE'"):
        build("VQVAE", {})


@pytest.mark.parametrize("latent_dim", [6, 3])
def test_the_principal_start_is_where_the_loss_is_flat(latent_dim):
    """Eq. 4 under N(0, 1), its posterior noise integrated out, has no slope at the closed form's weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.5, 1.0, 0.7, 0.05])
    x = x @ torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q + 1
    w_kld = 0.4
    before = torch.get_rng_state()
    vae = EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), latent_dim, w_kld / 2).double()
    assert torch.equal(torch.get_rng_state(), before)

    def loss():
        mean, log_variance = vae.encode(x)
        noise = (log_variance.exp() * vae.fc_decode.weight.square().sum(0)).sum(1)
        kld = kl_divergence(mean, log_variance, torch.zeros(1).double(), torch.ones(1).double())
        return ((vae.decode(mean) - x).square().sum(1) + noise + w_kld * kld).mean()

    best = loss()
    slopes = torch.autograd.grad(best, list(vae.parameters()))
    assert max(slope.abs().max() for slope in slopes) < 1e-5
    with torch.no_grad():
        for weight in vae.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
        assert loss() > best


def test_a_principal_start_out_of_range():
    with pytest.raises(ValueError, match="latent_dim=7 must lie from 1 to 6, the dimensions of an embedding"):
        EmbeddingVAE.principal(torch.zeros(6), torch.eye(6), 7, 0.1)
    with pytest.raises(ValueError, match="noise=0 must be greater than 0: a variance in each direction"):
        EmbeddingVAE.principal(torch.zeros(6), torch.eye(6), 6, 0)
