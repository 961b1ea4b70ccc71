"""Whether the response went the wanted way, how far, and what that cost along the way."""

import torch
from torch import Tensor

from vislens_interp.landscape.prior import SIGN, Sense
from vislens_interp.math import pearson
from vislens_interp.validation import check_finite, check_word, shapes


def signed_change(change: Tensor, direction: Sense) -> Tensor:
    """A response change, any shape, with its sign turned so that positive is the wanted way.

    >>> signed_change(torch.tensor([-2.0, 1.0]), "decrease").tolist()
    [2.0, -1.0]
    """
    remark = " A custom direction has a sign for each of its units: ask for one unit at a time."
    check_word("direction", direction, SIGN, remark)
    return SIGN[direction] * change


def share_right_way(signed: Tensor, control: Tensor | float = 0.0) -> float:
    """Share of signed changes, any shape, that are better than a control's; a tie is no success.

    Args:
        control: The same measure of a control (a shuffled landscape, say) or a number: 0 asks for the right sign.

    Raises:
        ValueError: There is nothing to count, the shapes do not fit, or a change is NaN.

    >>> share_right_way(torch.tensor([2.0, -1.0, 0.5, 0.0]))
    0.5
    """
    if signed.numel() == 0:
        raise ValueError("signed is empty; expected at least one change. Generate images before counting.")
    better = signed - control
    if better.shape != signed.shape and isinstance(control, Tensor):
        raise ValueError(
            f"{shapes(signed=signed, control=control)}; expected one control for each change, or one for all."
        )
    if torch.isnan(better).any():
        raise ValueError(
            f"signed or control is NaN in {int(torch.isnan(better).sum())} places; expected numbers. Leave those out, "
            "and say how many there were."
        )
    return (better > 0).double().mean().item()


def percentile_among(responses: Tensor, natural: Tensor) -> Tensor:
    """Share of natural responses that lie below each response, in percent: is a picture beyond what nature offers?

    Args:
        responses: Responses to generated pictures, any shape.
        natural: (M,) responses of the same unit to natural images that no fit has seen.

    Returns:
        The same shape, float64: 0 below all of them, 100 above all; a tie counts half, so that the median is 50 for a
        unit that is mostly silent, too. For a decrease read 100 minus it. A monotone change of both changes nothing.

    Raises:
        ValueError: There is nothing to compare with, or a value is NaN.

    >>> percentile_among(torch.tensor([0.0, 2.0, 9.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist()
    [0.0, 37.5, 100.0]
    """
    if natural.ndim != 1 or len(natural) == 0:
        raise ValueError(f"{shapes(natural=natural)}; expected (M,), the responses of one unit to at least one image.")
    for name, values in (("responses", responses), ("natural", natural)):
        if torch.isnan(values).any():
            raise ValueError(
                f"{name} is NaN in {int(torch.isnan(values).sum())} places; expected numbers. Leave them out."
            )
    ordered = natural.detach().double().cpu().sort().values
    wanted = responses.detach().double().cpu().contiguous()
    below = torch.searchsorted(ordered, wanted)
    up_to = torch.searchsorted(ordered, wanted, right=True)
    return 50 * (below + up_to).double() / len(ordered)


def monotonicity(doses: Tensor, changes: Tensor) -> Tensor:
    """Rank correlation of dose and response, image by image: whether more of the edit is more of the response.

    Args:
        doses: (A,) weights or angles, at least two different ones.
        changes: (A, N) responses, or their changes, at each.

    Returns:
        (N,) Spearman's ρ, float64: 1 where every step goes up, -1 where every step goes down, 0 where nothing changes.
        Equal values share their mean rank. Any monotone change of doses or responses leaves it as it is.

    Raises:
        ValueError: The shapes do not fit, doses are all the same, or a value is NaN.

    >>> monotonicity(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[0.0, 3.0], [1.0, 2.0], [9.0, 1.0]])).round().tolist()
    [1.0, -1.0]
    """
    if doses.ndim != 1 or changes.ndim != 2 or len(doses) != len(changes) or len(doses.unique()) < 2:
        raise ValueError(
            f"{shapes(doses=doses, changes=changes)}; expected (A,) of at least two different doses, and (A, N)."
        )
    if torch.isnan(changes).any() or torch.isnan(doses).any():
        raise ValueError("doses or changes is NaN somewhere; expected numbers. Leave those images out.")
    from scipy.stats import rankdata

    ranks = (rankdata(part.detach().double().cpu(), axis=0) for part in (doses[:, None].expand_as(changes), changes))
    return pearson(*(torch.from_numpy(one) for one in ranks))


def interpolate_at(curve_x: Tensor, curve_y: Tensor, x: Tensor | float) -> Tensor:
    """Read y where a trajectory first reaches x: methods compared at matched similarity, or at matched change.

    The trajectory is taken as the straight lines between its steps, and left at its first crossing of the level x,
    coming from either side. That is what stopping at x would have given: no later, luckier step counts.

    Args:
        curve_x, curve_y: (..., T) each, in the order of the steps.
        x: A level, or (Q,) levels.

    Returns:
        (...) for one level, (..., Q) for several, float64; NaN where a trajectory never reaches the level.

    Raises:
        ValueError: The shapes differ, a curve is not finite, or ``x`` has more than one axis.

    >>> similarity, change = torch.tensor([1.0, 0.8, 0.9, 0.6]), torch.tensor([0.0, 1.0, 1.5, 4.0])
    >>> interpolate_at(similarity, change, torch.tensor([0.9, 0.7, 0.5]))
    tensor([0.5000, 3.1667,    nan], dtype=torch.float64)
    """
    if curve_x.shape != curve_y.shape or curve_x.ndim == 0 or curve_x.shape[-1] == 0:
        raise ValueError(
            f"{shapes(curve_x=curve_x, curve_y=curve_y)}; expected the same (..., T) twice, one value a step."
        )
    check_finite("Cut the curve before them.", curve_x=curve_x, curve_y=curve_y)
    levels = torch.as_tensor(x).double().to(curve_x.device)
    if levels.ndim > 1:
        raise ValueError(f"{shapes(x=levels)}; expected a number or (Q,). Flatten the levels.")
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
