"""Whether the response went the wanted way, how far, and what that cost along the way."""

import torch
from torch import Tensor

from vislens_interp.landscape.prior import DIRECTIONS, Direction


def signed_change(change: Tensor, direction: Direction) -> Tensor:
    """A response change with its sign turned so that positive is the wanted way.

    Args:
        change: Response change Δr, any shape and unit.
        direction: What was asked for.

    Returns:
        The same shape.

    Raises:
        ValueError: The direction is neither ``"increase"`` nor ``"decrease"``.

    >>> signed_change(torch.tensor([-2.0, 1.0]), "decrease").tolist()
    [2.0, -1.0]
    """
    if direction not in DIRECTIONS:
        raise ValueError(
            f"direction={direction!r} is unknown; expected one of {list(DIRECTIONS)}. A custom direction has a sign "
            "for each of its units: ask for one unit at a time."
        )
    return change if direction == "increase" else -change


def share_right_way(signed: Tensor, control: Tensor | float = 0.0) -> float:
    """Share of signed changes that are better than a control's; a tie is no success.

    Args:
        signed: Signed changes, any shape: see :func:`signed_change`.
        control: The same measure of a control (a shuffled landscape, say) or a number: 0 asks for the right sign.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: There is nothing to count, or a change is NaN.

    >>> share_right_way(torch.tensor([2.0, -1.0, 0.5, 0.0]))
    0.5
    """
    if signed.numel() == 0:
        raise ValueError("signed is empty; expected at least one change. Generate images before counting.")
    better = signed - control
    if torch.isnan(better).any():
        raise ValueError(
            f"signed or control is NaN in {int(torch.isnan(better).sum())} places; expected numbers. Leave those out, "
            "and say how many there were."
        )
    return (better > 0).double().mean().item()


def percentile_among(responses: Tensor, natural: Tensor) -> Tensor:
    """Where responses would stand among those to natural images that nothing was fitted on: 0 below all, 1 above all.

    Args:
        responses: To generated images, any shape.
        natural: (M,) to held-out natural images, in the same unit.

    Returns:
        The same shape, float64: the share of natural responses below, and half of those that are equal.

    Raises:
        ValueError: There is no natural response, or a value is NaN.

    >>> percentile_among(torch.tensor([0.5, 3.0, 9.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist()
    [0.0, 0.625, 1.0]
    """
    if natural.ndim != 1 or natural.numel() == 0:
        raise ValueError(
            f"natural has shape {tuple(natural.shape)}; expected (M,) responses to held-out images. Pass one unit's."
        )
    for name, values in (("responses", responses), ("natural", natural)):
        if torch.isnan(values).any():
            raise ValueError(f"{name} holds NaN; expected numbers. Leave those images out.")
    ordered = natural.double().sort().values
    wanted = responses.double().contiguous()
    below = torch.searchsorted(ordered, wanted) + torch.searchsorted(ordered, wanted, right=True)
    return below.double() / (2 * len(ordered))


def monotonicity(responses: Tensor) -> Tensor:
    """Whether responses rise with the edit weight: Kendall's τ of each image's dose-response curve.

    Args:
        responses: (A, ...) at A edit weights in ascending order, A at least 2.

    Returns:
        (...) from -1 (falls at every pair of weights) to 1 (rises at every pair); ties count as neither. float64.

    Raises:
        ValueError: There are fewer than two weights, or a response is NaN.

    Source: Kendall 1938, τ_a.

    >>> monotonicity(torch.tensor([[0.0, 2.0], [1.0, 1.0], [3.0, 1.0]])).tolist()
    [1.0, -0.6666666666666666]
    """
    if responses.ndim == 0 or len(responses) < 2:
        raise ValueError(
            f"responses has shape {tuple(responses.shape)}; expected (A, ...) at two or more edit weights. Generate at "
            "more weights."
        )
    if torch.isnan(responses).any():
        raise ValueError("responses holds NaN; expected numbers. Leave those images out.")
    first, second = torch.triu_indices(len(responses), len(responses), 1)
    return torch.sign(responses[second].double() - responses[first].double()).mean(0)


def interpolate_at(curve_x: Tensor, curve_y: Tensor, x: Tensor | float) -> Tensor:
    """Read y where a trajectory first reaches x: methods compared at matched similarity, or at matched change.

    The trajectory is taken as the straight lines between its steps, and left at its first crossing of the level x,
    coming from either side. That is what stopping at x would have given: no later, luckier step counts. Equivalently, x
    is replaced by its running extreme, so that the curve is monotone however the optimiser wobbles.

    Args:
        curve_x: (..., T), in the order of the steps.
        curve_y: The same shape.
        x: A level, or (Q,) levels.

    Returns:
        (...) for one level, (..., Q) for several, float64; NaN where a trajectory never reaches the level, for
        nothing is extrapolated.

    Raises:
        ValueError: The shapes differ, a curve is not finite, or ``x`` has more than one axis.

    >>> similarity, change = torch.tensor([1.0, 0.8, 0.9, 0.6]), torch.tensor([0.0, 1.0, 1.5, 4.0])
    >>> interpolate_at(similarity, change, torch.tensor([0.9, 0.7, 0.5]))
    tensor([0.5000, 3.1667,    nan], dtype=torch.float64)
    """
    if curve_x.shape != curve_y.shape or curve_x.ndim == 0 or curve_x.shape[-1] == 0:
        raise ValueError(
            f"curve_x has shape {tuple(curve_x.shape)} and curve_y {tuple(curve_y.shape)}; expected the same (..., T) "
            "twice, one value a step. Record both at the same steps."
        )
    for name, curve in (("curve_x", curve_x), ("curve_y", curve_y)):
        if not torch.isfinite(curve).all():
            raise ValueError(
                f"{name} holds values that are NaN or infinite; expected finite ones. Cut the curve before them."
            )
    levels = torch.as_tensor(x).double().to(curve_x.device)
    if levels.ndim > 1:
        raise ValueError(f"x has shape {tuple(levels.shape)}; expected a number or (Q,). Flatten the levels.")
    along, read = curve_x.double().unsqueeze(-2), curve_y.double().unsqueeze(-2)  # (..., 1, T)
    wanted = levels.reshape(-1, 1)  # (Q, 1)
    below = along[..., :1] < wanted
    reached = torch.where(below, along >= wanted, along <= wanted)  # (..., Q, T)
    after = reached.int().argmax(-1, keepdim=True)  # the first True
    before = (after - 1).clamp_min(0)
    shape = reached.shape[:-1]

    def at(curve: Tensor, step: Tensor) -> Tensor:
        return curve.expand(reached.shape).gather(-1, step).reshape(shape)

    x_0, x_1, y_0, y_1 = at(along, before), at(along, after), at(read, before), at(read, after)
    # At the very start nothing has been crossed yet: y is that of the first step.
    run = torch.where(x_1 == x_0, torch.ones_like(x_1), x_1 - x_0)
    value = torch.where(x_1 == x_0, y_1, y_0 + (wanted[:, 0] - x_0) / run * (y_1 - y_0))
    value = torch.where(reached.any(-1), value, torch.nan)
    return value if levels.ndim else value[..., 0]
