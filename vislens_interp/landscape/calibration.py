"""What evidence was worth where it could be checked: pictures of landscapes, confirmed or not by a network apart."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from vislens_interp.landscape.evidence import Evidence

FILE = Path(__file__).with_name("calibration.json")
"""Counts that ``benchmarks.audit`` measured and writes: ``source``, ``networks``, and how many ``landscapes`` there
were, and for how many each kind of pictures was confirmed: of good and of weak evidence (``good``, ``weak``), and by
held-out correlation (``bins``)."""
SHOWN = {"edited_prototypes": "edits of prototypes", "prototypes": "prototypes", "edit": "edits of any photographs"}
"""Kinds of pictures, as methods are called and in words."""


@cache
def measured() -> dict[str, Any]:
    """The table that ships."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def operating_point(evidence: Evidence | None = None) -> str:
    """How often an independent network confirmed pictures of good and of weak evidence, and of evidence like this.

    Confirmed are pictures that tell extreme pairs of photographs apart (``2AFC, extremes`` of an audit).
    """
    known = measured()
    good, weak = known["good"], known["weak"]
    said = (
        f"Measured on {good['landscapes'] + weak['landscapes']} landscapes ({known['networks']}; {known['source']}): "
        f"of {good['landscapes']} with good evidence another network confirmed {_confirmed(good)}; of "
        f"{weak['landscapes']} with weak evidence {_confirmed(weak)}"
    )
    for row in known["bins"]:
        last = row["to"] == known["bins"][-1]["to"]
        if evidence is not None and (
            row["from"] <= evidence.correlation < row["to"] or (last and evidence.correlation == row["to"])
        ):
            said += (
                f"; of {row['landscapes']} with a held-out correlation of {row['from']:g} to {row['to']:g}, as here, "
                f"{_confirmed(row)}"
            )
    return f"{said}."


def _confirmed(row: dict[str, int]) -> str:
    *first, last = (f"the {what} of {row[shown]}" for shown, what in SHOWN.items())
    return f"{', '.join(first)} and {last}"
