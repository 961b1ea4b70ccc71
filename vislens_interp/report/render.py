"""HTML by templates: what is put into them is escaped unless it was made by one of them."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from vislens_interp.images import to_pil
from vislens_interp.landscape.calibration import operating_point
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.report.charts import number
from vislens_interp.tables import display_name, display_text

if TYPE_CHECKING:
    from jinja2 import Environment

    from vislens_interp.results.result import LensResult
    from vislens_interp.results.words import Word

LABELS = {
    "inputs": "input",
    "unedited": "α = 0",
    "increase": "preferred",
    "decrease": "suppressed",
    "custom": "edited",
}
CHOSEN = {
    "prototypes": "no images were given: the inputs are prototypes, reference images that drive the unit or do not",
    "held out": "no images were given: the inputs are reference images that the fit never saw",
}
"""What is said of inputs that nobody gave."""
SMALL = 64
"""Pixels up to which a picture is shown with its pixels as they are."""
SAME = 8
"""Pictures that are compared to tell whether α = 0 gives the inputs back."""
LARGEST = 256
"""Pixels to which larger pictures are reduced in a page; the files beside it keep theirs."""


def render(template: str, **values: object) -> str:
    """A page, or a part of one, from a file in ``templates/``; every text in it is escaped and can be shown."""
    return environment().get_template(template).render(**values)


def escaping_environment(package: str) -> "Environment":
    """Jinja's for the ``templates/`` of a package: it escapes by construction and refuses names that nobody gave."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: display_text(value) if type(value) is str else value,
    )


@cache
def environment() -> "Environment":
    """That of reports, with their filters."""
    made = escaping_environment("vislens_interp.report")
    made.filters |= {
        "alpha": lambda value: f"{value:g}".replace("-", "−"),
        "capital": lambda text: f"{text[:1].upper()}{text[1:]}",
        "count": counted,
        "encoded": encoded,
        "evidence_text": evidence_text,
        "operating_point": operating_point,
        "flat": flat,
        "number": number,
        "sentence": sentence,
        "short": display_name,
        "spread": spread,
        "word_list": word_list,
    }
    return made


def encoded(image: Tensor) -> dict[str, str | int | bool]:
    """A picture (3, H, W) as a data URI, with its size.

    PNG up to 64 px, where every pixel is seen; above, reduced to 256 px at most and WebP, so that a page stays small.
    """
    (shown,) = to_pil(image[None])
    small = max(shown.size) <= SMALL
    if max(shown.size) > LARGEST:
        shown.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        shown.save(buffer, "PNG", optimize=True)
    else:
        shown.save(buffer, "WEBP", quality=85, method=6)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    source = f"data:image/{'png' if small else 'webp'};base64,{data}"
    return {"source": source, "width": shown.width, "height": shown.height, "small": small}


def spread(values: Mapping[str, float | None]) -> str:
    """A mean, and the SD over images where there are several."""
    return number(values["mean"] or 0.0) + ("" if values["sd"] is None else f" ± {values['sd']:.2f}")


def counted(count: int, noun: str) -> str:
    """A count with its noun in the right number."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def sentence(text: str) -> str:
    """A text that starts with a capital and ends with a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def inputs_note(settings: Mapping[str, Any], count: int) -> list[str]:
    """How inputs were chosen that nobody gave, and from how many of ``count`` the fit had learned, in sentences."""
    known = settings.get("inputs")
    if not isinstance(known, dict):  # of an earlier version
        return []
    said = [CHOSEN[known["chosen"]]] if known.get("chosen") in list(CHOSEN) else []
    if learned := known.get("learned"):
        inputs = counted(count, "input")
        said.append(f"the fit learned from {learned} of the {inputs}: they may change more than other images")
    return said


def evidence_text(evidence: Evidence) -> str:
    """A unit's evidence in one line."""
    p = f"p = {evidence.p_value:.3f}" if evidence.shuffles else "p not tested"
    numbers = f"held-out r = {evidence.correlation:.2f}, {p}"
    return f"{'; '.join(evidence.reasons)} ({numbers})" if evidence.weak else f"good evidence ({numbers})"


def word_list(words: "Sequence[Word]") -> str:
    """Words, each with its score and its margin."""
    return ", ".join(f"{one} ({number(one.margin)})" for one in words) or "nothing"


def measured(result: "LensResult", key: str, row: int) -> dict[str, Any]:
    """What stands below a picture: response, change, and whether that is not the wanted way; ``""`` has no place."""
    said = {"response": number(result.standardised[key][row]), "from_input": "", "change": "", "wrong": False}
    if key == "unedited":
        said["from_input"] = number(result.response_change_from_input[key][row])
    elif key != "inputs" and not result.settings.get("shows_reference"):  # those are no versions of the input
        value, sign = result.response_change[key][row].item(), result.wanted_sign(key)
        said |= {"change": number(value), "wrong": sign is not None and not sign * round(value, 2) >= 0}
    return said


def shown_keys(result: "LensResult") -> list[str]:
    """Keys of the pictures to show: without α = 0 where that gives the inputs back."""
    inputs, unedited = (result.images[key] for key in ("inputs", "unedited"))
    same = all(torch.equal(inputs[row], unedited[row]) for row in range(min(SAME, len(result))))
    return [key for key in result.images if not (same and key == "unedited")]


def change_text(key: str, value: float) -> str:
    """A change of the response, marked where it is not the wanted one."""
    sign = -1 if key == "decrease" else 1
    return f"Δr {number(value)}{'' if sign * round(value, 2) >= 0 else ' ✗'}"


def reference_label(settings: Mapping[str, object]) -> str:
    """What the reference set is, in words that never call made pictures natural."""
    kind = str(settings.get("reference_set", "a reference set that nobody named"))
    return f"a {kind} (pictures that a generator made, no photographs)" if kind.startswith("synthetic") else kind


def flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names and text."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(str(item) for item in value) or "none"
    else:
        yield name, "none" if value is None or value == {} else str(value)
