"""Attention heads and pools of tokens, resolved against a layer that a pass has shown."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from vislens_interp.targets.capture import Seen
from vislens_interp.targets.layout import Arrangement
from vislens_interp.targets.selectors import CHANNEL_UNITS, Head, OneUnit, Pool, check_pool, unit_name


def pool_of(pool: Pool, token: int | str | None) -> Pool:
    """The pool that ``pool=`` and its short form ``token=`` ask for.

    Raises:
        ValueError: Both are given, or one is unknown.
    """
    check_pool(pool)
    if token is None:
        return pool
    if pool != "mean":
        raise ValueError(f"token={token!r} with pool={pool!r}; expected one of the two. Leave pool= out.")
    if token == "cls":
        return "cls"
    if isinstance(token, bool) or not isinstance(token, int) or token < 0:
        raise ValueError(f"token={token!r}; expected a whole number of at least 0, or 'cls'.")
    return f"token:{token}"


def resolve_pool(pool: Pool, arrangement: Arrangement | None, shape: tuple[int, ...], units: list[OneUnit]) -> Pool:
    """The pool with the class token's place in it; refuses what does not fit the layer."""
    if not any(isinstance(one, CHANNEL_UNITS) for one in units) or arrangement is None:
        return pool
    check_pool(pool, arrangement.layout)
    if pool == "center" and len(shape) == 3 and not arrangement.is_map:
        raise ValueError(
            f"pool='center' on an output of shape {shape} whose positions are no map; expected 'mean' or 'max'."
            " Pass layout= if its axes are height and width."
        )
    if pool == "patch_mean" and arrangement.prefix is None:
        raise ValueError(
            f"pool='patch_mean' on an output of shape {shape}, of whose tokens it is not known how many stand before"
            " the patches; expected a layer where it can be established. Pass unit= a function of the output."
        )
    if pool == "cls":
        if arrangement.class_token is None:
            raise ValueError(
                f"pool='cls' on an output of shape {shape} with {arrangement.prefix} tokens before the patches, none of"
                " which is known to be the class token; expected a layer where it can be established. Pass"
                " pool='token:k' if you know its place."
            )
        return f"token:{arrangement.class_token}"
    return pool


def resolve_heads(name: str, module: nn.Module, units: list[OneUnit]) -> tuple[str, bool, list[OneUnit]]:
    """Where to read: heads of an attention module are what its projection takes in."""
    if not any(isinstance(one, Head) and one.heads is None for one in units):
        return name, False, units
    heads = getattr(module, "num_heads", None)
    projection = next(
        (child for child in ("proj", "out_proj") if type(getattr(module, child, None)) is nn.Linear), None
    )
    if not isinstance(heads, int) or projection is None or not all(isinstance(one, Head) for one in units):
        raise ValueError(
            f"unit={', '.join(map(unit_name, units))} of layer {name!r} ({type(module).__name__}); expected heads"
            " alone, of an attention module with num_heads and a Linear proj. Pass its name as layer=, or Head(k,"
            " heads=) of a layer that holds the heads' outputs side by side."
        )
    filled: list[OneUnit] = [replace(one, heads=heads) for one in units if isinstance(one, Head)]
    return f"{name}.{projection}".lstrip("."), True, filled


def check_heads(seen: Seen, units: list[OneUnit], before: bool) -> None:
    """Refuse heads that do not lie side by side in the channels as (heads, features)."""
    for one in units:
        if not before or not isinstance(one, Head) or one.heads is None:
            continue
        (path,) = seen.shapes
        width = seen.shapes[path][-1] // one.heads
        if (one.heads, width) not in seen.factors.get(path, frozenset()):
            raise ValueError(
                f"unit=Head({one.index}): it cannot be established that the channels of shape {seen.shapes[path]} are"
                f" {one.heads} heads of {width} features each. Pass Head({one.index}, heads={one.heads}) on a layer"
                " where you know it."
            )


def pool_text(described: Mapping[str, Any]) -> str:
    """How positions become one number, in words, by what a target says of itself; empty where it has no positions.

    >>> pool_text({"pool": "max", "layout": "NCHW", "shape": [128, 4, 4]})
    'max over the map'
    """
    if len(described.get("shape", [])) < 2:
        return ""
    over = "the map" if described["layout"] in ("NCHW", "NHWC", None) else "the positions"
    return f"{described['pool']} over {over}" if described["pool"] in ("mean", "max") else described["pool"]
