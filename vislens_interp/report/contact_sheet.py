"""Many units of a layer on one sheet, a row each."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vislens_interp.files import write_text
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.report.charts import number
from vislens_interp.report.render import LABELS, change_text, evidence_text, reference_label, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vislens_interp.results.background import TopImages
    from vislens_interp.results.words import Words


@dataclass(frozen=True, eq=False)
class ContactRow:
    """One unit of a sheet.

    Args:
        unit: Its name.
        evidence: What supports its pictures.
        top: The reference images that drive it most, with their responses in SDs.
        images: For each direction (N, 3, S, S): the sheet's inputs, moved.
        response_change: For each direction (N,): in SDs, against the unedited inputs.
        words: For directions: what rises and falls along the edit.
    """

    unit: str
    evidence: Evidence
    top: "TopImages" = field(repr=False)
    images: dict[str, Tensor] = field(repr=False)
    response_change: dict[str, Tensor] = field(repr=False)
    words: "dict[str, Words]" = field(default_factory=dict, repr=False)

    @property
    def pictures(self) -> dict[str, Tensor]:
        """The top images and the moved inputs, for ``"top"`` and each direction."""
        return {"top": self.top.images, **self.images}

    @property
    def captions(self) -> dict[str, list[str]]:
        """Under each picture, for ``"top"`` and each direction."""
        changes = {key: [change_text(key, one) for one in row.tolist()] for key, row in self.response_change.items()}
        return {"top": [f"{number(value)} SD" for value in self.top.responses.tolist()], **changes}

    def cells(self) -> list[dict[str, Any]]:
        """The first picture of each kind with its caption, and the evidence, for a table."""
        shots = [{"image": self.pictures[key][0], "text": said[0]} for key, said in self.captions.items() if said]
        return [*shots, {"text": evidence_text(self.evidence)}]


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

    def _repr_html_(self) -> str:
        rows = [{"name": row.unit, "cells": row.cells()} for row in self.rows]
        lines = [f"{unit}: left out, {why}" for unit, why in self.left_out.items()]
        names = ["top image", *(LABELS[key] for key in (self.rows[0].images if self.rows else ())), "evidence"]
        return render("notebook.html", title=self.title, lines=lines, weak=False, columns=names, rows=rows)

    def figure(self) -> "Figure":
        """The sheet as one figure."""
        from vislens_interp.report.figures import contact_figure  # here: it needs matplotlib

        return contact_figure(self)

    def html(self) -> str:
        """The sheet as one page that needs no other file and no network."""
        return render(
            "contact_sheet.html",
            title=self.title,
            sheet=self,
            weak=sum(row.evidence.weak for row in self.rows),
            reference=reference_label(self.settings),
            labels=LABELS,
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
