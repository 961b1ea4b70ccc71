"""Read-outs: from all layers of a frozen network to responses, by ridge regression or by the paper's transformers."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from vislens_interp.brain.backbone import Features
from vislens_interp.copies import held_out_mask, renumbered
from vislens_interp.files import fingerprint, load_state_if_there, rebuilding, save_state
from vislens_interp.progress import tqdm
from vislens_interp.schema import check_finite, check_schema, check_tensors, restore_optimizer
from vislens_interp.validation import check_whole

PENALTIES = np.logspace(-3, 6, 19)
"""λ of the ridge, for features whose mean squared length over images is 1 times their number of layers."""
FOLDS = 5
_FLOOR = 1e-2
"""Of a feature's SD, as a share of the layer's mean SD: what hardly varies is not blown up."""


class RidgeReadout(nn.Module):
    """Linear in all layers: every feature standardised, every layer with the same weight, a penalty for each target.

    Source: ridge regression with a penalty for each target by cross-validation over images (himalaya, Dupré la Tour et
    al. 2022); the paper's L2 penalty without its transformers.
    """

    penalties: Tensor

    def __init__(self, shapes: list[tuple[int, int]], targets: int) -> None:
        super().__init__()
        self.shapes = shapes
        for number, (tokens, channels) in enumerate(shapes):
            self.register_buffer(f"mean{number}", torch.zeros(tokens * channels))
            self.register_buffer(f"weight{number}", torch.zeros(tokens * channels, targets))
        self.register_buffer("bias", torch.zeros(targets))
        self.register_buffer("penalties", torch.zeros(targets))

    def forward(self, layers: list[Tensor]) -> Tensor:
        """Tokens of each layer, (N, tokens, channels), to (N, K) responses."""
        total = self.get_buffer("bias")
        for number, tokens in enumerate(layers):
            total = total + (tokens.flatten(1) - self.get_buffer(f"mean{number}")) @ self.get_buffer(f"weight{number}")
        return total

    def fit(
        self,
        features: Features,
        responses: Tensor,
        rows: Tensor,
        *,
        seed: int,
        progress: bool,
        checkpoint: Path | None,
        pictures: Tensor | None = None,
    ) -> Self:
        """Solve for the weights.

        Args:
            features: Of all images; ``rows`` are those to learn from.
            responses: (N, K), standardised, NaN where none was recorded.
            progress, checkpoint: Not used; it takes seconds.
            pictures: (N,) number of the picture that each image is: copies of one are never in two folds of the
                cross-validation, where each would give away the other's noise. None: all differ.
        """
        kernel = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        scales = []
        for number in range(len(self.shapes)):  # layer by layer: all of them at once would fill the memory twice
            x = features.layer(number, rows).flatten(1)
            mean, spread = x.mean(0), x.std(0)
            scale = 1 / (spread + _FLOOR * spread.mean() + 1e-12)
            x = (x - mean) * scale
            length = (x**2).sum(1).mean().sqrt().clamp_min(1e-12)
            x, scale = x / length, scale / length
            kernel += (x @ x.T).double()
            self.get_buffer(f"mean{number}").copy_(mean)
            scales.append(scale)
        own = rows if pictures is None else pictures[rows]
        dual, penalties, bias = _solve(kernel, responses[rows], own, seed)
        self.get_buffer("bias").copy_(bias)
        self.get_buffer("penalties").copy_(penalties)
        for number, scale in enumerate(scales):
            x = (features.layer(number, rows).flatten(1) - self.get_buffer(f"mean{number}")) * scale
            self.get_buffer(f"weight{number}").copy_(scale[:, None] * (x.T @ dual.float()))
        return self


def _solve(kernel: Tensor, responses: Tensor, pictures: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dual coefficients (n, K), penalties and biases (K,); targets that miss the same images are solved together.

    ``kernel`` (n, n) is of features less their mean over all n images; ``pictures`` (n,) are the numbers of these.
    """
    from himalaya.backend import get_backend, set_backend
    from himalaya.kernel_ridge import KernelRidgeCV

    dual = torch.zeros(len(kernel), responses.shape[1], dtype=torch.float64)
    penalties, bias = (torch.zeros(responses.shape[1], dtype=torch.float64) for _ in range(2))
    patterns: dict[bytes, list[int]] = {}
    for column, there in enumerate(responses.isfinite().T):
        patterns.setdefault(there.numpy().tobytes(), []).append(column)
    before = get_backend().name
    try:
        set_backend("numpy")
        for columns in patterns.values():
            there = responses[:, columns[0]].isfinite().nonzero()[:, 0]
            mean = responses[there][:, columns].double().mean(0)
            inside, level = kernel[there][:, there], torch.zeros(len(there), dtype=torch.float64)
            if len(there) < len(kernel):  # the mean over the images that these targets have is another one
                level = inside.mean(0)
                inside = inside - level - level[:, None] + level.mean()
            folds = _folds(pictures[there], seed)
            ridge = KernelRidgeCV(alphas=PENALTIES, kernel="precomputed", cv=folds, warn=False)  # pyright: ignore
            ridge.fit(inside.numpy(), (responses[there][:, columns].double() - mean).numpy())
            found = torch.from_numpy(np.asarray(ridge.dual_coef_, dtype=float))
            if len(there) < len(kernel):  # the same weights, as a sum over features less their mean over all images
                found = found - found.mean(0)
            dual[there[:, None], torch.tensor(columns)] = found
            penalties[columns] = torch.from_numpy(np.asarray(ridge.best_alphas_, dtype=float))
            bias[columns] = mean - level @ found
    finally:
        set_backend(before)
    return dual, penalties, bias


def _folds(pictures: Tensor, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and to test on, for each fold; all copies of a picture (n,) are on one side."""
    from sklearn.model_selection import KFold

    number = renumbered(pictures).numpy()
    count = int(number.max()) + 1
    parts = KFold(min(FOLDS, count), shuffle=True, random_state=seed).split(np.arange(count))
    return [(np.flatnonzero(np.isin(number, one)), np.flatnonzero(np.isin(number, other))) for one, other in parts]


class TransformerReadout(nn.Module):
    """The paper's read-out: a single-layer transformer for each layer, averaged with learned weights of each target.

    In each, one learned query a target attends to the layer's tokens; what it gathers passes a feed-forward part and
    becomes one number.

    Args:
        width, heads: Features of a token inside, and attention heads.
        dropout, lr, weight_decay: Of the training by AdamW; the last is the L2 penalty.
        epochs: At most so many; less after ``patience`` of them without a better loss on held-out training images.
        validation: Share of the training images held out for that.
        batch_size: Images a step.

    Source: Sec. 4.2 and App. D, after BrainACTIV. Not given there, and chosen here: the width, heads, dropout, learning
    rate, penalty and patience; queries attend to tokens, as in Adeli et al. 2023.
    """

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        targets: int,
        *,
        width: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        epochs: int = 60,
        patience: int = 6,
        validation: float = 0.1,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        check_whole(1, width=width, heads=heads, epochs=epochs, batch_size=batch_size)
        check_whole(0, patience=patience)
        if not 0 < validation < 1:
            raise ValueError(f"validation={validation} must lie between 0 and 1: of the images, how many are held out.")
        if width % heads:
            raise ValueError(f"width={width} must be a multiple of heads={heads}.")
        self.settings = {"lr": lr, "weight_decay": weight_decay, "epochs": epochs, "patience": patience}
        self.settings |= {"validation": validation, "batch_size": batch_size}
        self.settings |= {"width": width, "heads": heads, "dropout": dropout}
        self.parts = nn.ModuleList([_LayerTransformer(*shape, targets, width, heads, dropout) for shape in shapes])
        self.shares = nn.Parameter(torch.zeros(len(shapes), targets))
        self.bias = nn.Parameter(torch.zeros(targets))

    def forward(self, layers: list[Tensor]) -> Tensor:
        """Tokens of each layer, (N, tokens, channels), to (N, K) responses."""
        shares = self.shares.softmax(0)
        read = [share * part(tokens) for share, part, tokens in zip(shares, self.parts, layers, strict=True)]
        return torch.stack(read).sum(0) + self.bias

    def fit(
        self,
        features: Features,
        responses: Tensor,
        rows: Tensor,
        *,
        seed: int,
        progress: bool,
        checkpoint: Path | None,
        pictures: Tensor | None = None,
    ) -> Self:
        """Train, stop early, and keep the best epoch; arguments as :meth:`RidgeReadout.fit`.

        ``checkpoint`` is a file that an interrupted training goes on from, with the weights that an uninterrupted one
        would have had; from that of a finished one nothing is trained again.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._begin(features, rows)
            return self._train(features, responses, rows, seed, progress, checkpoint, pictures)

    def _begin(self, features: Features, rows: Tensor) -> None:
        """Fresh weights from the seed, and the scale of each layer's channels."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
        for number, part in enumerate(self.parts):
            assert isinstance(part, _LayerTransformer)
            part.settle(features.layer(number, rows))

    def _train(
        self,
        features: Features,
        responses: Tensor,
        rows: Tensor,
        seed: int,
        progress: bool,
        checkpoint: Path | None,
        pictures: Tensor | None,
    ) -> Self:
        said: dict[str, Any] = self.settings
        order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
        count = max(1, round(said["validation"] * len(rows)))
        own = order if pictures is None else pictures[order]
        inside = held_out_mask(own, torch.arange(len(own)), count)
        held_out, training = order[inside], order[~inside]
        decayed = [p for p in self.parameters() if p.ndim > 1 and p is not self.shares]
        rest = [p for p in self.parameters() if not any(p is other for other in decayed)]
        groups = [{"params": decayed, "weight_decay": said["weight_decay"]}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=said["lr"])
        history: list[dict[str, float]] = []
        best: dict[str, Tensor] = {}
        data = fingerprint(
            {"responses": responses, "rows": rows, "features": features.rows[:: max(1, len(rows) // 64)]}
        )
        saved = None if checkpoint is None else load_state_if_there(checkpoint, "readout checkpoint")
        if checkpoint is not None and saved is not None:
            with rebuilding(checkpoint, "settings or data"):  # what is compared may be anything
                same = saved.get("settings") == said | {"seed": seed} and saved.get("data") == data
            if not same:
                raise ValueError(
                    f"checkpoint={str(checkpoint)!r} belongs to a fit with other settings, images or responses; "
                    "expected those of this fit. Delete it, or use those."
                )
            where = f"path={str(checkpoint)!r}"
            check_schema(saved, {"history": [{"validation": float}], "weights": dict, "best": dict}, where)
            for name in ("weights", "best"):
                check_tensors(saved[name], self.state_dict(), where, name)
            check_finite(saved, where)
            self.load_state_dict(saved["weights"])
            restore_optimizer(optimizer, saved.get("optimizer"), where)
            history, best = saved["history"], saved["best"]
        device = self.bias.device
        bar = tqdm(range(len(history), said["epochs"]), desc="read-out", disable=not progress)
        for epoch in bar:
            if history and len(history) - 1 - _best(history) >= said["patience"]:
                break
            # One seed an epoch, so that a resumed training draws what an uninterrupted one would; dropout too.
            torch.manual_seed(seed * 100_003 + epoch + 1)
            self.train()
            losses = []
            for batch in training[torch.randperm(len(training))].split(said["batch_size"]):
                loss = _loss(self([tokens.to(device) for tokens in features[batch]]), responses[batch].to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            self.eval()
            with torch.no_grad():
                read = [self([t.to(device) for t in features[part]]).cpu() for part in held_out.split(64)]
            value = _loss(torch.cat(read), responses[held_out]).item()
            history.append({"epoch": epoch + 1, "loss": sum(losses) / len(losses), "validation": value})
            bar.set_postfix(validation=f"{value:.3f}")
            if _best(history) == len(history) - 1:
                best = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
            if checkpoint is not None:
                state = {"weights": self.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
                state |= {"best": best, "settings": said | {"seed": seed}, "data": data}
                save_state(checkpoint, "readout checkpoint", state)
        self.load_state_dict(best)
        return self.eval()


class _LayerTransformer(nn.Module):
    """One layer's tokens (N, tokens, channels) to (N, K): queries that attend to them."""

    mean: Tensor
    std: Tensor

    def __init__(self, tokens: int, channels: int, targets: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.project = nn.Linear(channels, width)
        self.place = nn.Embedding(tokens, width)
        self.query = nn.Embedding(targets, width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.read = nn.Embedding(targets, width)

    def settle(self, tokens: Tensor) -> None:
        """Take the channels' mean and SD over images and positions; start places and queries small."""
        self.mean.copy_(tokens.mean((0, 1)))
        spread = tokens.std((0, 1))
        self.std.copy_(spread + _FLOOR * spread.mean() + 1e-12)
        for weights in (self.place, self.query, self.read):
            nn.init.normal_(weights.weight, std=self.read.embedding_dim**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.project((tokens - self.mean) / self.std) + self.place.weight
        query = self.query.weight.expand(len(x), -1, -1)
        gathered, _ = self.attention(query, x, x, need_weights=False)
        h = self.norm(query + self.dropout(gathered))
        h = self.norm2(h + self.dropout(self.feed(h)))
        return (h * self.read.weight).sum(2)


def _loss(read: Tensor, responses: Tensor) -> Tensor:
    """Mean squared error over what was recorded."""
    there = responses.isfinite()
    return ((read - torch.where(there, responses, read.detach())) ** 2).sum() / there.sum().clamp_min(1)


def _best(history: list[dict[str, float]]) -> int:
    losses = [row["validation"] for row in history]
    return min(range(len(losses)), key=losses.__getitem__)
