"""Many units of a layer on one sheet, a row each."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vislens_interp.files import write_text
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.report.charts import number
from vislens_interp.report.render import (
    LABELS,
    change_text,
    evidence_text,
    inputs_note,
    reference_label,
    render,
    sentence,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vislens_interp.results.background import TopImages
    from vislens_interp.results.words import Words

COLUMNS = ("top", "decrease", "inputs", "unedited", "increase")
"""Kinds of pictures of a row, from left to right."""


@dataclass(frozen=True, eq=False)
class ContactRow:
    """One unit of a sheet.

    Args:
        unit: Its name.
        evidence: What supports its pictures.
        top: The reference images that drive it most, with their responses in SDs.
        inputs: (N, 3, S, S) what was edited.
        unedited: (N, 3, S, S) the same pipeline and seed at α = 0.
        names: Of the inputs.
        responses: For ``"inputs"`` and ``"unedited"`` (N,): the unit's responses in SDs.
        images: For each direction (N, 3, S, S): the inputs, moved.
        response_change: For each direction (N,): in SDs, against ``unedited``.
        words: For directions: what rises and falls along the edit.
    """

    unit: str
    evidence: Evidence
    top: "TopImages" = field(repr=False)
    inputs: Tensor = field(repr=False)
    unedited: Tensor = field(repr=False)
    names: list[str]
    responses: dict[str, Tensor] = field(repr=False)
    images: dict[str, Tensor] = field(repr=False)
    response_change: dict[str, Tensor] = field(repr=False)
    words: "dict[str, Words]" = field(default_factory=dict, repr=False)

    @property
    def pictures(self) -> dict[str, Tensor]:
        """The pictures of each of :data:`COLUMNS`."""
        return {"top": self.top.images, "inputs": self.inputs, "unedited": self.unedited, **self.images}

    @property
    def captions(self) -> dict[str, list[str]]:
        """What is written under each of these pictures."""
        read = {"top": self.top.responses, **self.responses}
        captions = {key: [f"{number(value)} SD" for value in values.tolist()] for key, values in read.items()}
        changes = {key: [change_text(key, one) for one in row.tolist()] for key, row in self.response_change.items()}
        return captions | changes


@dataclass(frozen=True, eq=False)
class ContactSheet:
    """Many units of a layer: evidence, top images, inputs with their preferred and suppressed versions.

    Args:
        title: Model and layer.
        rows: One a unit, in the order that they were asked for.
        left_out: Units without a row, and why: unknown, dead or constant ones.
        settings: JSON values that say how it was made. Read here: ``reference_set`` and ``inputs``, how these were
            ``chosen`` ("prototypes" or "given") and from how many of them the fit had ``learned``.
    """

    title: str
    rows: list[ContactRow]
    left_out: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ContactSheet({self.title!r}, {len(self.rows)} units, {len(self.left_out)} left out)"

    def _repr_html_(self) -> str:
        kinds = {key: title.removesuffix("s") for key, title in self.columns.items()}  # the first picture of each
        rows = [
            {
                "name": row.unit,
                "cells": [
                    *({"image": row.pictures[key][0], "text": row.captions[key][0]} for key in kinds),
                    {"text": evidence_text(row.evidence)},
                ],
            }
            for row in self.rows
        ]
        lines = [f"{unit}: left out, {why}" for unit, why in self.left_out.items()]
        names = [*kinds.values(), "evidence"]
        return render("notebook.html", title=self.title, lines=lines, weak=False, columns=names, rows=rows)

    @property
    def prototypes(self) -> bool:
        """Whether each unit's inputs are its prototypes."""
        inputs = self.settings.get("inputs")
        return isinstance(inputs, dict) and inputs.get("chosen") == "prototypes"

    @property
    def shared(self) -> bool:
        """Whether all rows have the same inputs, which are shown once; prototypes are a unit's own."""
        return not self.prototypes and all(torch.equal(row.inputs, self.rows[0].inputs) for row in self.rows)

    @property
    def columns(self) -> dict[str, str]:
        """What every row shows, from left to right: keys of its pictures, and a title for each."""
        shown = {key for row in self.rows for key in row.pictures}
        if self.shared:
            shown -= {"inputs", "unedited"}
        elif all(torch.equal(row.inputs, row.unedited) for row in self.rows):
            shown.remove("unedited")
        titles = {**LABELS, "top": "top images", "inputs": "prototypes" if self.prototypes else "inputs"}
        return {key: titles[key] for key in COLUMNS if key in shown}

    @property
    def legend(self) -> str:
        """What is shown, and what the numbers are."""
        inputs = [len(row.inputs) for row in self.rows[: 1 if self.shared else None]]
        parts = ["top images: the reference images that drive the unit most", *inputs_note(self.settings, sum(inputs))]
        if self.prototypes:
            parts.append("prototypes that drive the unit come first")
        parts += [
            "preferred and suppressed: the inputs, moved for that unit alone",
            "SD: the response, in SDs from its mean over the reference set",
            "Δr: the change of the response against α = 0 of the same image and seed, in SDs",
            "✗: not the wanted way",
        ]
        return " ".join(sentence(part) for part in parts)

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
