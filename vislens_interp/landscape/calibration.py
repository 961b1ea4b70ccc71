"""What evidence was worth where it could be checked: pictures of landscapes, confirmed or not by a network apart."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from vislens_interp.landscape.evidence import Evidence

FILE = Path(__file__).with_name("calibration.json")
"""Counts that ``benchmarks.audit`` measured and writes: ``source``, ``networks``, and landscapes and confirmed ones
of good and of weak evidence (``good``, ``weak``) and by held-out correlation (``bins``: from, to, landscapes,
confirmed)."""


@cache
def measured() -> dict[str, Any]:
    """The table that ships."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def operating_point(evidence: Evidence | None = None) -> str:
    """How often an independent network confirmed pictures of good and of weak evidence, and of evidence like this.

    Confirmed are pictures that tell extreme pairs of photographs apart (``2AFC, extremes`` of an audit).
    """
    known = measured()
    (good, right), (weak, missed) = known["good"], known["weak"]
    said = (
        f"Measured on {good + weak} landscapes ({known['networks']}; {known['source']}): another network confirmed the "
        f"pictures of {right} of {good} with good evidence and of {missed} of {weak} with weak evidence"
    )
    for low, high, count, confirmed in known["bins"]:
        last = high == known["bins"][-1][1]
        if evidence is not None and (low <= evidence.correlation < high or (last and evidence.correlation == high)):
            said += f", of {confirmed} of {count} with a held-out correlation of {low:g} to {high:g}, as here"
    return f"{said}."
