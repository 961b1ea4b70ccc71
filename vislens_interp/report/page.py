"""The report of a result: one HTML page, which needs neither other files nor a network."""

from typing import TYPE_CHECKING, Any

from vislens_interp.math import pearson
from vislens_interp.report import charts
from vislens_interp.report.charts import number
from vislens_interp.report.render import LABELS, measured, reference_label, render, shown_keys
from vislens_interp.tables import display_name
from vislens_interp.validation import check_counts

if TYPE_CHECKING:
    from vislens_interp.results.background import Background
    from vislens_interp.results.result import LensResult


IN_A_CELL = 8
"""Inputs that a notebook shows."""


def result_page(result: "LensResult", *, max_images: int = 8) -> str:
    """The report of one unit.

    Args:
        result: What to show; parts for which it holds nothing are left out, and the page says so.
        max_images: The first so many inputs are shown; plots and numbers are of all.

    Returns:
        HTML: no scripts, no fonts, no links to other files; pictures as data URIs, charts as inline SVG.

    Raises:
        ValueError: ``max_images`` is below 1.
    """
    check_counts(max_images=max_images)
    behind, edit = result.background, (result.settings.get("settings") or {}).get("edit") or {}
    galleries, keys = {} if behind is None else behind.galleries, shown_keys(result)
    return render(
        "result.html",
        title=result.title,
        result=result,
        reference=reference_label(result.settings),
        facts=_facts(result),
        sets=[[_shot(result, key, row) for key in keys] for row in range(min(max_images, len(result)))],
        behind=behind,
        keys=keys,
        labels=LABELS,
        charts=None if behind is None else _charts(result, behind),
        to_the_mean=result.settings.get("method") == "edit" and edit.get("goal") == "mean",
        modes=0 if behind is None else max((len(means) for means in behind.means.values()), default=1),
        mode_galleries={
            f"{LABELS[sense]} mean {mode}": row
            for key, row in galleries.items()
            for sense, _, mode in [key.rpartition("_")]
            if sense in LABELS
        },
    )


def result_cell(result: "LensResult") -> str:
    """A result in a notebook: its first pictures with their numbers; :func:`result_page` is the whole report."""
    shown = range(min(IN_A_CELL, len(result)))
    rows = []
    for key in shown_keys(result):
        shots = [_shot(result, key, row) for row in shown]
        cells = [{"image": one["image"], "text": f"{one['response']} SD"} for one in shots]
        rows.append({"name": LABELS[key], "cells": cells})
    return render(
        "notebook.html",
        title=result.title,
        lines=result.summary().splitlines()[1:],
        weak=result.evidence is None or result.evidence.weak,
        columns=[display_name(result.names[row]) for row in shown],
        rows=rows,
    )


def _facts(result: "LensResult") -> list[dict[str, Any]]:
    """What came out, a box for each direction and one for the pipeline alone."""
    table, facts = result.statistics(), []
    for key in [*result.directions, "unedited"]:
        row, label = table[key], LABELS[key].capitalize()
        edited, share = key != "unedited", table[key].get("share_right_way")
        facts.append(
            {
                "key": key,
                "label": label if edited else "The pipeline alone, α = 0",
                "change": row["response_change" if edited else "response_change_from_input"],
                "against": "α = 0" if edited else "the input",
                "right": None if share is None else round(share * len(result)),
                "silent": _at_the_floor(result, key),
                "similarity": row.get("similarity"),
            }
        )
    return facts


def _at_the_floor(result: "LensResult", key: str) -> int:
    """How many pictures could not go lower: a rectified unit is silent for many, edited or not."""
    if result.background is None or result.wanted_sign(key) != -1:
        return 0
    floor = result.background.responses.min().item() + 1e-3 * result.response_std
    return int((result.responses["unedited"] <= floor).sum())


def _shot(result: "LensResult", key: str, row: int) -> dict[str, Any]:
    """A picture with what stands below it."""
    said = measured(result, key, row)
    alt = f"{LABELS[key]}, {display_name(result.names[row])}: response {said['response']} SD"
    if said["from_input"]:
        alt += f", {said['from_input']} from the input"
    elif said["change"]:
        alt += f", change {said['change']} SD{', not the wanted way' if said['wrong'] else ''}"
    return {"key": key, "label": LABELS[key], "image": result.images[key][row], "alt": alt, **said}


def _charts(result: "LensResult", behind: "Background") -> dict[str, Any]:
    """The charts over the reference set, as SVG, which ElementTree has escaped."""
    standard = (behind.responses - result.response_mean) / result.response_std
    means = ", ".join(f"{LABELS[key]} {number(value.nanmean())}" for key, value in result.standardised.items())
    histogram = charts.histogram(
        standard,
        result.standardised,
        LABELS,
        title="Histogram of responses over the reference set",
        description=f"{len(standard)} images from {number(standard.min())} to {number(standard.max())} "
        f"SDs. Means of the shown pictures: {means}.",
    )
    landscape = charts.landscape(
        behind.positions,
        standard,
        behind.means,
        behind.moves,
        title="The landscape from above: two latent axes, mean response as colour",
        description=f"{len(standard)} reference images; position on the unit's axis and response correlate, "
        f"r = {pearson(behind.positions[:, 0], standard).item():.2f}.",
    )
    made = {"responses": histogram, "landscape": landscape, "doses": ""}
    usable = behind.changes[:, behind.changes.isfinite().all(0)] if behind.alphas else behind.changes
    if len(behind.alphas) > 1 and usable.shape[1] > 0:
        spread = usable.std(1).tolist() if usable.shape[1] > 1 else [None] * len(usable)
        rows = list(zip(behind.alphas, usable.mean(1).tolist(), spread, strict=True))
        said = "; ".join(f"α {f'{alpha:g}'.replace('-', '−')}: mean {number(mean)} SD" for alpha, mean, _ in rows)
        doses = charts.dose_response(
            behind.alphas, usable, title="Change of the response against the weight of the edit", description=f"{said}."
        )
        made |= {"doses": doses, "dosed": usable.shape[1], "rows": rows}
    return made
