"""Page and aims of the benchmark of words."""

from typing import Any

from benchmarks.common.findings import measure, stated_measures
from benchmarks.common.script import provenance_line
from benchmarks.common.tables import bracketed, fill, percent, table_text, verdict

RIGHT, CHANCE = 0.8, 0.1
"""Share of class scores with the right class among the first five words, wanted; the most in shuffled landscapes."""


def layers_of(measures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in measures.items() if isinstance(value, dict) and "AUPRC" in value}


def findings_of(measures: dict[str, Any]) -> dict[str, Any]:
    """``checks`` and ``measures`` as the list of all benchmarks reads them."""
    one, spread = measures["class scores"], "95 % bootstrap over units"
    text = f"The right class is among the first five words of {percent(one['right'])} of {one['classes']} class scores"
    checks = {f"{text} of Lite2 (wanted: {100 * RIGHT:.0f} %).": one["right"][0] >= RIGHT}
    text = f"In shuffled landscapes it is in {percent(one['shuffled'])} (wanted: at most {100 * CHANCE:.0f} %)."
    checks[text] = one["shuffled"][0] <= CHANCE
    what, sample = "right class among the first five words", f"{one['classes']} class scores"
    stated = [measure(what, one["right"], "share", sample, spread=spread)]
    for layer, row in layers_of(measures).items():
        gap = row["AUPRC above shuffled"]
        text = f"Words of {row['units']} channels of {layer} find the held-out classes that drive them with AUPRC "
        checks[f"{text}{bracketed(row['AUPRC'])}, {bracketed(gap)} above shuffled (wanted: above)."] = gap[1] > 0
        what = f"AUPRC of words for held-out classes, {layer}, above shuffled"
        stated.append(measure(what, gap, "AUPRC", f"{row['units']} channels", spread=spread))
    return {"checks": checks, "measures": stated_measures(stated)}


def page(measures: dict[str, Any], source: dict[str, Any]) -> str:
    one = measures["class scores"]
    classes = [
        ["landscape", "among the first five", "first"],
        ["fitted", percent(one["right"]), percent(one["first"])],
        ["shuffled", percent(one["shuffled"]), "—"],
    ]
    rows = [["layer", "channels", "AUPRC", "shuffled", "correlation", "shuffled"]]
    for layer, row in layers_of(measures).items():
        names = ("AUPRC", "AUPRC, shuffled", "correlation", "correlation, shuffled")
        rows.append([f"`{layer}`", row["units"], *(bracketed(row[name]) for name in names)])
    return fill(
        __file__,
        "page",
        images=measures["images"],
        classes=one["classes"],
        verdict=verdict(findings_of(measures)["checks"]),
        scores=table_text(classes),
        channels=table_text(rows),
        source=provenance_line(source),
    )
