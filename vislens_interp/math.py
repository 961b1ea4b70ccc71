"""Linear algebra that several rooms need: ridge regressions, correlation, angles and unit vectors."""

import hashlib
import threading
from collections import OrderedDict

import torch
from torch import Tensor

_lock, _CACHE_SIZE = threading.Lock(), 6
_decompositions: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
_RELATIVE_EPS = 1e-7
"""Share of the largest singular value below which one is a rounding error."""
GCV_PENALTIES = torch.logspace(-3, 4, 15, dtype=torch.float64)
LOO_PENALTIES = torch.logspace(-1, 5, 13, dtype=torch.float64)
"""Those of BrainACTIV."""


def ridge_gcv(x: Tensor, y: Tensor) -> Tensor:
    """Ridge weights (D, K) for centred x (N, D) and y (N, K), one penalty a column of y by cross-validation (GCV).

    The singular vectors of the last few ``x`` are kept: the units of a layer share their reference images, and so do
    the controls of a unit.

    Source: Golub, Heath and Wahba 1979.
    """
    s, v = _singular(x)
    xy = v.T @ (x.T @ y)
    projected = torch.where(s[:, None] > _RELATIVE_EPS * s.max(), xy / s[:, None].clamp_min(1e-300), 0.0)
    shrink = s[:, None] ** 2 / (s[:, None] ** 2 + GCV_PENALTIES.to(s))
    total = (y**2).sum(0) - (projected**2).sum(0)
    residual = ((1 - shrink[:, :, None]) ** 2 * projected[:, None] ** 2).sum(0) + total
    left = len(x) - 1 - shrink.sum(0)  # degrees of freedom of the residual; centring takes one
    score = residual / left.clamp_min(1e-9)[:, None] ** 2
    best = score.argmin(0)
    return v @ (s[:, None] / (s[:, None] ** 2 + GCV_PENALTIES.to(s)[best]) * projected)


def ridge_path(x: Tensor, y: Tensor, penalties: Tensor) -> Tensor:
    """Ridge weights (P, D, K) for centred x (N, D) and y (N, K), float64, one set for each of penalties (P,)."""
    s, v = _singular(x)
    xy = v.T @ (x.T @ y)
    return torch.stack([v @ (xy / (s**2 + penalty).clamp_min(1e-300)[:, None]) for penalty in penalties.to(s)])


def _singular(x: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values (R,) and right singular vectors (D, R) of x (N, D), R = min(N, D), largest first."""
    content = x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    key = f"{hashlib.sha256(content).hexdigest()} {tuple(x.shape)} {x.dtype} {x.device}"
    with _lock:
        if key in _decompositions:
            _decompositions.move_to_end(key)
            return _decompositions[key]
    if len(x) < x.shape[1]:
        _, s, vt = torch.linalg.svd(x, full_matrices=False)
        found = s, vt.T
    else:  # a third of the time of an SVD, and exact to the square root of a rounding error, far below any penalty
        squares, v = torch.linalg.eigh(x.T @ x)
        found = squares.flip(0).clamp_min(0).sqrt(), v.flip(1)
    with _lock:
        _decompositions[key] = found
        while len(_decompositions) > _CACHE_SIZE:
            _decompositions.popitem(last=False)
    return found


def ridge_loo(
    x: Tensor, y: Tensor, penalties: Tensor = LOO_PENALTIES, *, relative: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression with a bias, the penalty of each column of y by its leave-one-out error.

    Args:
        x: (N, D), float64; ``y`` is (N, K) likewise.
        penalties: (P,) to choose from.
        relative: Whether they are shares of the largest squared singular value of the centred x.

    Returns:
        (D, K) weights, (K,) penalties, and (N, K) errors of the leave-one-out predictions: y less these.

    Source: what scikit-learn's ``RidgeCV(alphas=..., cv=None)`` computes for one target: left-out errors are residuals
    over 1 - leverage, exactly (Golub, Heath and Wahba 1979 and references there).
    """
    centred, targets = x - x.mean(0), y - y.mean(0)
    u, s, vt = torch.linalg.svd(centred, full_matrices=False)
    projected = u.T @ targets
    penalties = penalties.to(s) * (s[0] ** 2 if relative else 1)
    kept = s**2 / (s**2 + penalties[:, None])

    def left_out(share: Tensor) -> Tensor:
        """Errors (N, K) where this share (R, K), or (R, 1) for all, is kept of each principal axis."""
        leverage = u**2 @ share + 1 / len(x)  # the bias is a direction of its own, which no penalty touches
        return (targets - u @ (share * projected)) / (1 - leverage)

    best = torch.stack([left_out(share[:, None]).square().mean(0) for share in kept]).argmin(0)
    chosen = penalties[best]
    weights = vt.T @ (s[:, None] / (s[:, None] ** 2 + chosen) * projected)
    return weights, chosen.cpu(), left_out(kept[best].T)


def pearson(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """Correlation of two (N, ...) tensors over their first axis; 0 where either never varies.

    Args:
        weights: (N, ...) how much each value counts; None counts all alike.

    >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])).item()
    1.0
    """
    if weights is None:
        a, b = a - a.mean(0), b - b.mean(0)
    else:
        a, b = ((x - (x * weights).sum(0) / weights.sum(0)) * weights.sqrt() for x in (a, b))
    size = (a**2).sum(0).sqrt() * (b**2).sum(0).sqrt()  # the product of the sums would vanish for responses in tesla
    return torch.where(size > 0, (a * b).sum(0) / size.clamp_min(1e-300), torch.zeros_like(size)).clamp(-1, 1)


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Angle between the rows of two (N, ...) tensors, in degrees: (N,)."""
    a, b = unit_rows(a.flatten(1)), unit_rows(b.flatten(1))
    # atan2 of chord lengths keeps its precision near 0° and 180°, where acos of the dot product has none.
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)))


def unit_rows(x: Tensor) -> Tensor:
    """Rows of (N, D) with length 1; a row of zeros stays."""
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)


def full_chunks(count: int, size: int) -> list[tuple[Tensor, int]]:
    """Rows 0 to ``count`` - 1 in chunks of one size, and how many of each are its own: the last repeats its last row.

    With chunks of one size, an image's numerics do not depend on how many came with it.

    >>> [(rows.tolist(), own) for rows, own in full_chunks(3, 2)]
    [([0, 1], 2), ([2, 2], 1)]
    """
    chunks = torch.arange(count).split(size)
    return [(torch.cat([rows, rows[-1:].expand(size - len(rows))]), len(rows)) for rows in chunks if len(rows)]


def keep_norm(x: Tensor, reference: Tensor) -> Tensor:
    """``x`` (N, D) with the lengths of ``reference`` (N, D): an edit then changes an embedding's direction alone.

    A VAE's reconstructions are shorter than what it saw, and a generator reads the length too; a zero vector stays.

    Source: BrainACTIV scales an edited embedding by the reference's norm; the paper does not say.
    """
    return x * (reference.norm(dim=1, keepdim=True) / x.norm(dim=1, keepdim=True).clamp_min(1e-12))
