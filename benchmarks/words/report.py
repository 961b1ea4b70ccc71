"""Page and aims of the benchmark of words."""

from typing import Any

from benchmarks.common.findings import Measure, stated_measures
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import fill, table_text, verdict

RIGHT, CHANCE = 0.8, 0.1
"""Share of class scores with the right class among the first five words, wanted; the most in shuffled landscapes."""


def share(value: list[float]) -> str:
    return "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * one for one in value))


def plain(value: list[float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*value)


def layers_of(measures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in measures.items() if isinstance(value, dict) and "AUPRC" in value}


def findings_of(measures: dict[str, Any]) -> dict[str, Any]:
    """``checks`` and ``measures`` as the list of all benchmarks reads them."""
    one = measures["class scores"]
    right, chance = share(one["right"]), share(one["shuffled"])
    checks = {
        f"The right class is among the first five words of {right} of {one['classes']} class scores of Lite2 (wanted: "
        f"{100 * RIGHT:.0f} %).": one["right"][0] >= RIGHT,
        f"In shuffled landscapes it is in {chance} (wanted: at most {100 * CHANCE:.0f} %).": one["shuffled"][0]
        <= CHANCE,
    }
    stated = [
        Measure(
            "right class among the first five words",
            one["right"][0],
            "share",
            f"{one['classes']} class scores",
            *one["right"][1:],
            spread="95 % bootstrap over units",
        )
    ]
    for layer, row in layers_of(measures).items():
        gap = row["AUPRC above shuffled"]
        text = f"Words of {row['units']} channels of {layer} find the held-out classes that drive them with AUPRC "
        text += f"{plain(row['AUPRC'])}, {plain(gap)} above shuffled (wanted: above)."
        checks[text] = gap[1] > 0
        what = f"AUPRC of words for held-out classes, {layer}, above shuffled"
        spread = "95 % bootstrap over units"
        stated.append(Measure(what, gap[0], "AUPRC", f"{row['units']} channels", *gap[1:], spread=spread))
    return {"checks": checks, "measures": stated_measures(stated)}


def page(measures: dict[str, Any], source: dict[str, Any]) -> str:
    one = measures["class scores"]
    classes = [
        ["landscape", "among the first five", "first"],
        ["fitted", share(one["right"]), share(one["first"])],
        ["shuffled", share(one["shuffled"]), "—"],
    ]
    rows = [["layer", "channels", "AUPRC", "shuffled", "correlation", "shuffled"]]
    for layer, row in layers_of(measures).items():
        names = ("AUPRC", "AUPRC, shuffled", "correlation", "correlation, shuffled")
        rows.append([f"`{layer}`", row["units"], *(plain(row[name]) for name in names)])
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
