"""Many single-unit landscapes of the same images, fitted side by side in one batched program."""

import copy
import time
from dataclasses import asdict

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from vislens_interp.config import FitConfig
from vislens_interp.copies import row_groups
from vislens_interp.landscape.fit import MIN_IMAGES, fit_landscape, split_rows, stale
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.modes import assign_modes
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler, kl_divergence
from vislens_interp.landscape.vae import VAE, sample_posterior


def fit_many(
    vae: VAE,
    x: Tensor,
    responses: Tensor,
    prior: ActivationPrior,
    settings: FitConfig,
    *,
    names: list[str] | None = None,
    progress: bool = False,
) -> list[Landscape]:
    """Fit a landscape of its own to each unit: what ``fit_landscape`` gives one after another.

    With ``solver="adam"`` the weights of all VAEs are stacked, and one step trains them all on the same batch of x with
    the same noise, which is what single fits with this seed see too; the two differ by rounding. On a GPU a step of one
    small VAE leaves most of the chip idle. Weights, gradients, Adam's two moments and the best weights of one unit take
    63 MB for 1,024 dimensions. ``solver="alternating"`` has no small steps to batch, and fits one unit after another.

    Args:
        vae: Where every fit starts; copied, not changed.
        x: (N, ...) what the VAEs encode.
        responses: (N, K) raw responses, one column a unit.
        prior: The activation prior of each unit, with one block.
        settings: The recipe, without consistency.
        names: Name of each unit.
        progress: Show a bar.

    Returns:
        K landscapes, in the order of the columns.

    Raises:
        ValueError: As for a single fit, or the settings ask for what depends on one target.
    """
    names = names or [str(unit) for unit in range(responses.shape[1])]
    if len(prior.blocks) != 1:
        raise ValueError(
            f"prior has {len(prior.blocks)} blocks; fit_many fits units apart, each under a prior with one block. Use "
            "fit_landscape for several units in one latent."
        )
    if settings.w_consistency > 0 or settings.bf16:
        raise ValueError(
            f"w_consistency={settings.w_consistency}, bf16={settings.bf16}: fit_many has neither. Pass 0 and False, or "
            "use fit_landscape."
        )
    if responses.ndim != 2 or len(x) != len(responses) or len(names) != responses.shape[1]:
        raise ValueError(
            f"responses has shape {tuple(responses.shape)} for {len(x)} images and {len(names)} names; expected "
            "(images, units)."
        )
    if settings.solver == "alternating":
        return [
            fit_landscape(vae, x, responses[:, [unit]], prior, settings, names=[name])
            for unit, name in enumerate(tqdm(names, desc="units", disable=not progress))
        ]
    if len(x) < MIN_IMAGES:
        raise ValueError(
            f"images holds {len(x)} images; a landscape needs at least {MIN_IMAGES} to be more than noise. Give more "
            "reference images."
        )
    scalers = [ResponseScaler.fit(responses[:, [unit]], [name]) for unit, name in enumerate(names)]
    standard = [scaler.for_prior(responses[:, [unit]].float()) for unit, scaler in enumerate(scalers)]
    training, held_out = split_rows(len(x), settings, row_groups(x))
    modes = torch.stack([assign_modes(vae, x, column, prior, seed=settings.seed) for column in standard]).to(x.device)
    columns = torch.stack(standard).to(x.device)
    count = len(names)
    skeleton = copy.deepcopy(vae).requires_grad_(True).train()
    weights, buffers = stack_module_state([skeleton] * count)  # type: ignore[arg-type]
    encode, decode = _Encode(skeleton), _Decode(skeleton)
    best = {name: value.detach().clone() for name, value in weights.items()}

    def parts(rows: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Reconstruction and KLD of every unit's VAE on these rows, (K,) each."""
        part = x[rows]
        mean, sigma = (
            value.unflatten(0, (count, len(rows)))
            for value in prior.parameters(columns[:, rows].flatten(0, 1), modes[:, rows].flatten(0, 1))
        )

        def one(
            own: dict[str, Tensor], own_buffers: dict[str, Tensor], mean: Tensor, sigma: Tensor
        ) -> tuple[Tensor, Tensor]:
            code, log_variance = functional_call(encode, _under(own, own_buffers), (part,))
            z = code if noise is None else sample_posterior(code, log_variance, noise.to(code))
            decoded = functional_call(decode, _under(own, own_buffers), (z,))
            recon = ((decoded - part) ** 2).flatten(1).sum(1).mean()
            return recon, kl_divergence(code, log_variance, mean, sigma).mean()

        return vmap(one, in_dims=(0, 0, 0, 0))(weights, buffers, mean, sigma)

    def weigh(recon: Tensor, kld: Tensor) -> Tensor:
        return settings.w_recon * recon + settings.w_kld * kld

    optimizer = torch.optim.Adam(weights.values(), lr=settings.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, settings.lr_step, settings.lr_gamma)
    histories: list[list[dict[str, float]]] = [[] for _ in names]
    running = [True] * count
    started = time.monotonic()
    for epoch in tqdm(range(settings.epochs), desc=f"fit of {count}", disable=not progress):
        draw = torch.Generator().manual_seed(settings.seed * 100_003 + epoch + 1)  # as in a single fit
        batches = training[torch.randperm(len(training), generator=draw)].split(settings.batch_size)
        sums = x.new_zeros(2, count, dtype=torch.float32)
        for rows in batches:
            recon, kld = parts(rows, torch.randn(len(rows), vae.latent_dim, generator=draw))
            optimizer.zero_grad(set_to_none=True)
            weigh(recon, kld).sum().backward()  # a unit's loss depends on its own weights alone
            _clip(weights, settings.clip)
            optimizer.step()
            sums += torch.stack([recon, kld]).detach() * len(rows)
        schedule.step()
        with torch.no_grad():
            checked = x.new_zeros(2, count, dtype=torch.float32)
            for rows in held_out.split(256):
                checked += torch.stack(parts(rows, None)) * len(rows) / len(held_out)
        seconds = time.monotonic() - started
        trained = sums / len(training)
        values = torch.stack([*trained, weigh(*trained), *checked, weigh(*checked)]).T.tolist()
        better = []
        for unit, (recon, kld, loss, held_recon, held_kld, held_loss) in enumerate(values):
            if running[unit]:
                histories[unit].append(
                    {
                        "epoch": epoch + 1,
                        "seconds": seconds,
                        "loss": loss,
                        "recon": recon,
                        "kld": kld,
                        "validation_loss": held_loss,
                        "validation_recon": held_recon,
                        "validation_kld": held_kld,
                    }
                )
                if held_loss <= min(row["validation_loss"] for row in histories[unit]):
                    better.append(unit)
                running[unit] = settings.patience is None or stale(histories[unit]) < settings.patience
        for name, value in weights.items():
            best[name][better] = value.detach()[better]
        if not any(running):
            break
    landscapes = []
    for unit, name in enumerate(names):
        own = copy.deepcopy(vae)
        own.load_state_dict({key: value[unit] for key, value in best.items()})
        landscapes.append(
            Landscape.describe(
                own,
                prior,
                scalers[unit],
                [name],
                x,
                responses[:, [unit]],
                held_out=held_out,
                history=histories[unit],
                settings=asdict(settings),
            )
        )
    return landscapes


class _Encode(torch.nn.Module):
    """A VAE's encoder as a forward pass, which is what ``functional_call`` calls."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.vae.encode(x)


class _Decode(_Encode):
    """Its decoder."""

    def forward(self, x: Tensor) -> Tensor:
        return self.vae.decode(x)


def _under(weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"vae.{name}": value for name, value in {**weights, **buffers}.items()}


def _clip(weights: dict[str, Tensor], largest: float) -> None:
    """What ``clip_grad_norm_`` does to one network, for each of the stacked ones."""
    gradients = [value.grad for value in weights.values() if value.grad is not None]
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    factor = (largest / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))
