"""Many units of a layer on one sheet, a row each."""

import os
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vislens_interp.files import write_text
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.report.charts import number
from vislens_interp.report.page import LABELS, footer, picture, reference_label, settings_table, short_name
from vislens_interp.report.style import page_head

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vislens_interp.results.background import TopImages


@dataclass(frozen=True, eq=False)
class ContactRow:
    """One unit of a sheet.

    Args:
        unit: Its name.
        evidence: What supports its pictures.
        top: The reference images that drive it most, with their responses in SDs.
        images: For each direction (N, 3, S, S): the sheet's inputs, moved.
        response_change: For each direction (N,): in SDs, against the unedited inputs.
    """

    unit: str
    evidence: Evidence
    top: "TopImages"
    images: dict[str, Tensor]
    response_change: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class ContactSheet:
    """Many units of a layer: evidence, top images, preferred and suppressed versions of the same inputs.

    Args:
        title: Model and layer.
        inputs: (N, 3, S, S) what was edited.
        unedited: (N, 3, S, S) the same pipeline and seed at α = 0.
        names: Of the inputs.
        rows: One a unit, in the order that they were asked for.
        left_out: Units without a row, and why: unknown, dead or constant ones.
        settings: JSON values that say how it was made.
    """

    title: str
    inputs: Tensor
    unedited: Tensor
    names: list[str]
    rows: list[ContactRow]
    left_out: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ContactSheet({self.title!r}, {len(self.rows)} units, {len(self.left_out)} left out)"

    def figure(self) -> "Figure":
        """The sheet as one figure."""
        from vislens_interp.report.figures import contact_figure  # here: it needs matplotlib

        return contact_figure(self)

    def html(self) -> str:
        """The sheet as one page that needs no other file and no network."""
        title = escape(self.title)
        weak = sum(row.evidence.weak for row in self.rows)
        kind = escape(reference_label(self.settings))
        lead = (
            f"{len(self.rows)} units, {weak} of them with weak evidence; {len(self.left_out)} left out. Fitted on "
            f"{kind}, in one latent with a block for each unit. Top images: the reference images that drive the unit "
            "most, with their responses in SDs. Preferred and suppressed: the inputs, moved for that unit alone, with "
            "the change of its response against α = 0 in SDs. ✗: not the wanted way."
        )
        inputs = "".join(
            self._strip(name, images, [short_name(text) for text in self.names], "reference")
            for name, images in (("inputs", self.inputs), ("α = 0", self.unedited))
        )
        missing = "".join(
            f'<tr><th scope="row">{escape(unit)}</th><td>{escape(why)}</td></tr>' for unit, why in self.left_out.items()
        )
        left_out = f"<section><h2>Left out</h2><table><tbody>{missing}</tbody></table></section>" if missing else ""
        return (
            f'{page_head(f"Contact sheet: {title}")}<body>\n<header><p class="mark">vislens_interp contact sheet</p>'
            f'<h1>{title}</h1><p class="soft">{lead}</p></header>\n<main>\n'
            f'<section><h2>Inputs</h2><div class="strips">{inputs}</div></section>\n'
            f"{''.join(self._unit(row) for row in self.rows)}{left_out}"
            f"<section><h2>Settings</h2>{settings_table(self.settings)}</section></main>\n{footer()}</body>\n</html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page; ``figure().savefig(path)`` writes the figure.

        Args:
            path: A file ending in .html; an earlier one is replaced.

        Raises:
            ValueError: The path ends otherwise.
            OSError: It cannot be written; what was there before is still there.
        """
        if Path(path).suffix.lower() not in (".html", ".htm"):
            raise ValueError(
                f"path={str(path)!r} does not end in .html; expected the name of a page. For a picture use"
                " figure().savefig(path)."
            )
        return write_text(path, self.html())

    def _unit(self, row: ContactRow) -> str:
        strips = self._strip(
            "top images", row.top.images, [f"{number(value)} SD" for value in row.top.responses.tolist()], ""
        )
        for key, images in row.images.items():
            captions = [change_text(key, value) for value in row.response_change[key].tolist()]
            strips += self._strip(LABELS[key], images, captions, key)
        flag = '<span class="pill">weak evidence</span> ' if row.evidence.weak else ""
        return (
            f'<section class="unit"><h2>Unit {escape(row.unit)}</h2><p class="small">{flag}'
            f'{escape(evidence_text(row.evidence))}</p><div class="strips">{strips}</div></section>\n'
        )

    def _strip(self, name: str, images: Tensor, captions: list[str], key: str) -> str:
        shots = "".join(
            f'<figure class="shot">{picture(image, f"{name} {index + 1}: {text}")}<figcaption>{escape(text)}'
            "</figcaption></figure>"
            for index, (image, text) in enumerate(zip(images, captions, strict=True))
        )
        return f'<div class="{key or "top"}"><h3 class="what">{name}</h3><div class="strip">{shots}</div></div>'


def change_text(key: str, value: float) -> str:
    """A change of the response, marked where it is not the wanted one."""
    sign = -1 if key == "decrease" else 1
    return f"Δr {number(value)}{'' if sign * value > 0 else ' ✗'}"


def evidence_text(evidence: Evidence) -> str:
    """A unit's evidence in one line."""
    numbers = f"held-out r = {evidence.correlation:.2f}, p = {evidence.p_value:.3f}"
    return f"{'; '.join(evidence.reasons)} ({numbers})" if evidence.weak else f"good evidence ({numbers})"
