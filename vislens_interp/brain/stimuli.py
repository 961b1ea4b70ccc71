"""Pictures for the next experiment: numbered, with matched controls, in a balanced order, and a table of it all."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vislens_interp.files import write_folder, write_text
from vislens_interp.images import ImageFiles, check_images, load_images, resize, to_pil
from vislens_interp.schema import check_inside
from vislens_interp.tables import csv_text, read_csv

TABLE = "stimuli.tsv"
NUMBERS: dict[str, type[int] | type[float]] = dict.fromkeys(("number", "block", "seed"), int)
NUMBERS |= dict.fromkeys(("alpha", "predicted_response", "spread", "luminance", "contrast"), float)
COLUMNS = (
    *("number", "file", "block", "kind", "target", "direction", "alpha", "source"),
    *("predicted_response", "spread", "seed", "luminance", "contrast"),
)
SIDECAR: dict[str, dict[str, str]] = {
    "alpha": {"Description": "Strength of the edit; 0 is unedited"},
    "source": {"Description": "Name of the input"},
    "predicted_response": {
        "Description": "Response of the target to the edited picture, as the model predicts it",
        "Units": "standard deviations of the responses to the reference images, from their mean",
    },
    "spread": {"Description": "How sure that is", "Units": "those of the function that was given as spread="},
    "luminance": {"Description": "Mean luminance of the file (Rec. 709, stored values)", "Units": "1, from 0 to 1"},
    "contrast": {"Description": "SD of the luminance over pixels", "Units": "1, from 0 to 1"},
}
"""What the columns hold, as BIDS says it in the JSON file beside a table."""
KINDS = ("edited", "unedited", "random")
_LUMA = torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)
_ROUNDS = 20


class LensResult(Protocol):
    """What is read of a :class:`~vislens_interp.results.result.LensResult`."""

    unit: str
    names: list[str]
    settings: dict[str, Any]

    @property
    def images(self) -> Mapping[str, Tensor | ImageFiles]: ...

    @property
    def directions(self) -> Sequence[str]: ...

    @property
    def standardised(self) -> Mapping[str, Tensor]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Stimuli:
    """What :func:`export_stimuli` wrote.

    Args:
        images: (M, 3, S, S) in [0, 1], in the order in which they are to be shown.
        rows: M rows of the table, by column: ``kind`` is ``"edited"``, ``"unedited"`` or ``"random"``, ``alpha``,
            ``predicted_response``, ``spread``, ``luminance`` and ``contrast`` are numbers or None, ``number``,
            ``block`` and ``seed`` integers or None.
    """

    images: Tensor
    rows: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.rows)


def luminance_and_contrast(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and SD over pixels of the luminance (Rec. 709 weights on the stored values), (N,) each."""
    luma = (images * _LUMA.to(images)).sum(1).flatten(1)
    return luma.mean(1), luma.std(1, correction=0)


def match(images: Tensor, luminance: Tensor, contrast: Tensor) -> Tensor:
    """The same pictures with these luminances and contrasts (N,), as far as [0, 1] leaves room; colours keep their hue.

    >>> grey = torch.rand(1, 1, 16, 16).expand(1, 3, 16, 16)
    >>> mean, spread = luminance_and_contrast(match(grey, torch.tensor([0.5]), torch.tensor([0.1])))
    >>> round(mean.item(), 3), round(spread.item(), 3)
    (0.5, 0.1)
    """
    made = images.clone()
    for _ in range(_ROUNDS):  # what is clipped moves both, so that one step does not do
        mean, spread = luminance_and_contrast(made)
        gain = (contrast / spread.clamp_min(1e-6)).view(-1, 1, 1, 1)
        made = ((made - mean.view(-1, 1, 1, 1)) * gain + luminance.view(-1, 1, 1, 1)).clamp(0, 1)
    return made


def export_stimuli(
    results: LensResult | Sequence[LensResult],
    folder: str | os.PathLike[str],
    *,
    size: int = 512,
    spread: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> Path:
    """Write a result's pictures for an experiment: PNGs named by their place in the order, and ``stimuli.tsv``.

    ``stimuli.json`` beside it says what its columns are, in which units. Beside the edited pictures of every input
    stand two controls, matched to their mean luminance and contrast: the unedited picture, which went through the same
    generator, and that of another input, drawn at random. An input's pictures are a block; blocks come in random order,
    and within them the conditions in a balanced Latin square's.

    Args:
        results: A :class:`~vislens_interp.results.result.LensResult`, or several of the same unit and inputs at
            different α.
        folder: A new folder, which is returned; ``seed`` is that of the order and the random controls.
        spread: Images (N, 3, H, W) to (N,) or (N, 1): how sure a prediction is, such as an ensemble's ``spread``.

    Raises:
        ValueError: The folder is there, there are fewer than two inputs, or the results are of several units or inputs.
    """
    several = list(results) if isinstance(results, Sequence) else [results]
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"folder={str(folder)!r} is there already; expected a new one. Name another.")
    first = several[0]
    for other in several:
        if other.unit != first.unit or other.names != first.names:
            raise ValueError(
                f"results are of units {first.unit!r} and {other.unit!r} with {len(first)} and {len(other)} inputs; "
                "expected one unit and the same inputs. Export them to folders of their own."
            )
    if len(first) < 2:
        raise ValueError(
            f"results hold {len(first)} input; expected at least 2, for random controls. Give more images."
        )
    draw = torch.Generator().manual_seed(seed)
    conditions = [("edited", result, key) for result in several for key in result.directions]
    conditions += [("unedited", first, "unedited"), ("random", first, "unedited")]
    order = torch.randperm(len(first), generator=draw)
    partner = order.roll(1)[order.argsort()]  # another input for each, none its own
    edited = torch.stack([result.images[key][:] for kind, result, key in conditions if kind == "edited"])
    luminance, contrast = (torch.stack(part).mean(0) for part in zip(*map(luminance_and_contrast, edited), strict=True))
    shown: list[Tensor] = []
    for kind, result, key in conditions:
        images = result.images[key][:] if kind != "random" else result.images[key][partner]
        shown.append(images if kind == "edited" else match(images, luminance, contrast))
    spreads = (
        None if spread is None else [torch.as_tensor(spread(images)).reshape(len(first), -1)[:, 0] for images in shown]
    )
    orders = _balanced_orders(len(conditions))

    def fill(temporary: Path) -> None:
        rows: list[dict[str, Any]] = []
        for block, row in enumerate(torch.randperm(len(first), generator=draw).tolist()):
            for place in orders[block % len(orders)]:
                kind, result, key = conditions[place]
                source = int(partner[row]) if kind == "random" else row
                picture = resize(shown[place][row : row + 1], size)
                number = len(rows) + 1
                file = f"{number:04d}.png"
                to_pil(picture)[0].save(temporary / file)
                bright, strong = luminance_and_contrast(picture)
                seeds = result.settings.get("seeds")
                # A control was changed after it was read, by its luminance: nothing is predicted for that.
                predicted = result.standardised[key][row].item() if kind == "edited" else None
                rows.append(
                    {
                        "number": number,
                        "file": file,
                        "block": block + 1,
                        "kind": kind,
                        "target": result.unit,
                        "direction": key if kind == "edited" else "",
                        "alpha": result.settings.get("alpha") if kind == "edited" else 0.0,
                        "source": result.names[source],
                        "predicted_response": predicted,
                        "spread": None if spreads is None else spreads[place][row].item(),
                        "seed": seeds[source] if isinstance(seeds, list) else seeds,
                        "luminance": bright.item(),
                        "contrast": strong.item(),
                    }
                )
        cells = [[row[column] for column in COLUMNS] for row in rows]
        write_text(temporary / TABLE, csv_text(COLUMNS, cells, delimiter="\t"))
        write_text((temporary / TABLE).with_suffix(".json"), json.dumps(SIDECAR, indent=1))

    return write_folder(folder, fill, replace=False)


def load_stimuli(folder: str | os.PathLike[str]) -> Stimuli:
    """Read what :func:`export_stimuli` wrote.

    Raises:
        FileNotFoundError, ValueError: The table or a picture is missing, or was changed; the message says where.
    """
    folder = Path(folder)
    table = folder / TABLE
    if not table.is_file():
        raise FileNotFoundError(f"folder={str(folder)!r} holds no {TABLE}; expected a folder of export_stimuli.")
    found = read_csv(table, COLUMNS, delimiter="\t")
    where = repr(str(table))
    missing = [row["file"] for row in found if not check_inside(folder, row["file"], where, "file").is_file()]
    if missing:
        raise FileNotFoundError(
            f"folder={str(folder)!r} lacks {', '.join(missing[:5])} of {len(found)} pictures. Copy it again."
        )
    rows: list[dict[str, Any]] = []
    for line, row in enumerate(found, 2):
        rows.append(dict(row))
        for key, kind in NUMBERS.items():
            try:
                rows[-1][key] = kind(row[key]) if row[key] else None
            except ValueError as error:
                raise ValueError(
                    f"{str(table)!r} holds {row[key]!r} as {key} in line {line}; expected a number. Export again."
                ) from error
    images, _ = load_images([folder / row["file"] for row in found])
    return Stimuli(check_images(images), rows)


def _balanced_orders(count: int) -> list[list[int]]:
    """A Williams square: each condition once at every place, and after every other equally often.

    Source: Williams 1949; odd numbers take the square and its mirror.
    """
    first, low, high = [0], 1, count - 1
    while len(first) < count:
        first.append(low if len(first) % 2 else high)
        low, high = (low + 1, high) if len(first) % 2 == 0 else (low, high - 1)
    square = [[(place + shift) % count for place in first] for shift in range(count)]
    return square if count % 2 == 0 else square + [row[::-1] for row in square]
