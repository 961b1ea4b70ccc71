"""What a lens found: the images, the responses to them, and what supports them."""

import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vislens_interp.frames import Tabular
from vislens_interp.images import ImageFiles, check_images
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.report.render import inputs_note
from vislens_interp.results.background import Background
from vislens_interp.results.words import Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIRECTIONS = ("increase", "decrease", "custom")
Pictures = Tensor | ImageFiles
"""Pictures in memory, or in files, read where they are asked for; both give them by ``images[rows]``."""


@dataclass(eq=False, repr=False)
class LensResult(Tabular):
    """Images that a lens made for one unit, measured again.

    A change is always generated minus start: positive in ``"increase"`` and negative in ``"decrease"`` is the wanted
    way. Its zero point is ``"unedited"``, because the pipeline alone, at α = 0, already moves the response.

    Args:
        unit: Name of the unit.
        layer: Dotted name of its layer; ``""`` is the model's own output.
        model: Class name of the model.
        images: For each key (N, 3, H, W) in [0, 1], in memory or in files: ``"inputs"``; ``"unedited"``, the same
            pipeline and seed at α = 0; then any of ``"increase"``, ``"decrease"`` and ``"custom"``.
        responses: For the same keys (N,), in the unit's raw values.
        response_mean: Mean of the unit's responses over the reference set.
        response_std: Their standard deviation, above 0: what one SD is.
        similarity: For some of the keys (N,): cosine to the input in features of the network that ``settings`` names.
        evidence: What supports the pictures, or None if nobody looked.
        names: One name an input.
        settings: JSON values that say how the images were made. Read here: ``method``, ``alpha``, ``strength``,
            ``seeds`` (one for all, or one an image), ``direction`` (unit to direction, for ``"custom"``), ``judge``
            (what read the responses, if not the model itself) and ``similarity_network``. ``versions`` of the libraries
            are added if they are not there.
        background: The reference set's responses and the landscape, for the report; None leaves those parts of it out.
        importance: For some of the keys (N, H, W) in [0, 1]: how much an optimisation of pixels used each; kept in 8
            bits.
        words: For directions: what rises and falls along the edit, in words; empty where nothing reads words.

    Raises:
        ValueError: Keys, shapes or counts do not fit together, or ``response_std`` is not above 0.
        TypeError: A setting is no JSON value.
    """

    unit: str
    layer: str
    model: str
    images: dict[str, Pictures]
    responses: dict[str, Tensor]
    response_mean: float
    response_std: float
    similarity: dict[str, Tensor] = field(default_factory=dict)
    evidence: Evidence | None = None
    names: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    background: Background | None = None
    importance: dict[str, Pictures] = field(default_factory=dict)
    words: dict[str, Words] = field(default_factory=dict)
    _others: dict[str, "LensResult"] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        keys = list(self.images)
        if keys[:2] != ["inputs", "unedited"] or not set(keys[2:]) <= set(DIRECTIONS):
            raise ValueError(
                f"images has the keys {keys}; expected 'inputs', 'unedited' and then any of {list(DIRECTIONS)}."
            )
        self.images = {
            key: value
            if isinstance(value, ImageFiles)
            else check_images(value, f"images[{key!r}]").detach().float().cpu()
            for key, value in self.images.items()
        }
        count = len(self.images["inputs"])
        for key, value in self.images.items():
            if len(value) != count:
                raise ValueError(f"images[{key!r}] holds {len(value)} images; expected {count}, one an input.")
        if set(self.responses) != set(keys):
            raise ValueError(f"responses has the keys {list(self.responses)}; expected those of images, {keys}.")
        self.responses = {key: _column(self.responses[key], f"responses[{key!r}]", count) for key in keys}
        if not set(self.similarity) <= set(keys):
            raise ValueError(f"similarity has the keys {list(self.similarity)}; expected some of images', {keys}.")
        self.similarity = {
            k: _column(self.similarity[k], f"similarity[{k!r}]", count) for k in keys if k in self.similarity
        }
        for key, value in self.importance.items():
            wanted = _of_pixels(self.images[key]) if key in keys else None
            if (_of_pixels(value) if isinstance(value, ImageFiles) else tuple(value.shape)) != wanted:
                raise ValueError(
                    f"importance[{key!r}] has shape {tuple(value.shape)}; expected a value for each pixel of "
                    f"images[{key!r}], {wanted}."
                )
        self.importance = {
            key: value if isinstance(value, ImageFiles) else (value.cpu() * 255).round() / 255
            for key, value in self.importance.items()
        }
        if not set(self.words) <= set(keys[2:]):
            raise ValueError(f"words has the keys {list(self.words)}; expected some of images' directions, {keys[2:]}.")
        if len(self.names) != count:
            raise ValueError(f"names has {len(self.names)} entries for {count} images; expected one an input.")
        if not (math.isfinite(self.response_std) and self.response_std > 0):
            raise ValueError(f"response_std={self.response_std} must be above 0: the unit's SD over the reference set.")
        read = [*self.responses.values(), *([] if self.background is None else [self.background.responses])]
        standard = (torch.cat([value[value.isfinite()] for value in read]) - self.response_mean) / self.response_std
        if not standard.isfinite().all():
            raise ValueError(
                f"response_mean={self.response_mean:g} and response_std={self.response_std:g} do not fit the"
                " responses; expected those of the reference set."
            )
        self.settings = json_values(self.settings, "settings")
        self.settings.setdefault("versions", versions())
        seeds = self.settings.get("seeds")
        if isinstance(seeds, list) and len(seeds) != count:
            raise ValueError(f"settings['seeds'] has {len(seeds)} entries for {count} images; expected one an image.")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return (
            f"LensResult(model={self.model!r}, layer={self.layer!r}, unit={self.unit!r}, {len(self)} images, "
            f"directions={self.directions})"
        )

    def _repr_html_(self) -> str:
        from vislens_interp.report.page import result_cell  # here: a page needs Jinja2

        return result_cell(self)

    @property
    def units(self) -> list[str]:
        """Names of all units that read these pictures: one, or those of a lens on several."""
        return list(self._others) or [self.unit]

    def of_unit(self, unit: str | int) -> "LensResult":
        """The result of another unit of the lens: the same pictures, its own responses and evidence."""
        if str(unit) == self.unit:
            return self
        if str(unit) not in self._others:
            raise KeyError(f"unit {unit!r} is not in this result; it holds {', '.join(self.units)}.")
        return self._others[str(unit)]

    @property
    def dose_response(self) -> tuple[list[float], Tensor]:
        """Signed weights (negative: towards the suppressed mean) and the changes (A, N) that they made, in SDs."""
        if self.background is None or not self.background.alphas:
            raise ValueError("this result holds no dose-response; expected an edit. Pass alphas= to visualize.")
        return self.background.alphas, self.background.changes

    def dose_response_figure(self) -> "Figure":
        """The mean change at every weight, with its spread over images."""
        from vislens_interp.report.figures import dose_response_figure

        flag = "WEAK EVIDENCE: " if self.evidence is None or self.evidence.weak else ""
        return dose_response_figure(*self.dose_response, title=f"{flag}dose-response of unit {self.unit}")

    @property
    def directions(self) -> list[str]:
        """The keys of generated images: some of ``"increase"``, ``"decrease"`` and ``"custom"``."""
        return list(self.images)[2:]

    def transparent(self, key: str = "increase") -> Tensor:
        """Pictures with their importance as opacity: (N, 4, H, W) in [0, 1], red, green, blue and alpha.

        Raises:
            KeyError: The method that made them watched no importance.
        """
        if key not in self.importance:
            raise KeyError(
                f"no importance of {key!r}; expected one of {list(self.importance)}. Ascents have it, such as "
                "method='maco'."
            )
        used = self.importance[key]
        return torch.cat([self.images[key][:], used[:][:, :1] if isinstance(used, ImageFiles) else used[:, None]], 1)

    @property
    def standardised(self) -> dict[str, Tensor]:
        """Responses in SDs from the reference set's mean, (N,) for every key."""
        return {key: (value - self.response_mean) / self.response_std for key, value in self.responses.items()}

    @property
    def response_change(self) -> dict[str, Tensor]:
        """Generated minus unedited, in SDs, (N,) for every direction."""
        return {key: change / self.response_std for key, change in self.response_change_raw.items()}

    @property
    def response_change_raw(self) -> dict[str, Tensor]:
        """Generated minus unedited, in the unit's raw values, (N,) for every direction."""
        return {key: self.responses[key] - self.responses["unedited"] for key in self.directions}

    @property
    def response_change_from_input(self) -> dict[str, Tensor]:
        """Made minus input, in SDs, (N,) for every direction, and for ``"unedited"``: what the pipeline alone does."""
        start = self.responses["inputs"]
        return {key: (self.responses[key] - start) / self.response_std for key in ["unedited", *self.directions]}

    @property
    def share_right_way(self) -> dict[str, float]:
        """Share of the images that changed as wanted, for every direction that is one for this unit."""
        signs = {key: self.wanted_sign(key) for key in self.directions}
        return {
            key: (sign * self.response_change[key] > 0).double().mean().item() for key, sign in signs.items() if sign
        }

    def wanted_sign(self, key: str) -> int | None:
        """1 where this unit's response should rise, -1 where it should fall, None where nothing is wanted of it."""
        if key == "custom":
            asked = self.settings.get("direction")
            key = asked.get(self.unit, "") if isinstance(asked, dict) else ""
        return {"increase": 1, "decrease": -1}.get(key)

    def statistics(self) -> dict[str, Any]:
        """Mean and SD over images of every change, for every direction, as JSON values.

        Returns:
            ``{direction: {"response_change": {"mean": ..., "sd": ...}, ..., "share_right_way": ...}}``, and what the
            pipeline alone does under ``"unedited"``. The SD of one image is None.
        """
        found: dict[str, Any] = {}
        for key in ["unedited", *self.directions]:
            row: dict[str, Any] = {"images": len(self)}
            if key in self.directions:
                row["response_change"] = _spread(self.response_change[key])
                row["response_change_raw"] = _spread(self.response_change_raw[key])
                row["share_right_way"] = self.share_right_way.get(key)
            row["response_change_from_input"] = _spread(self.response_change_from_input[key])
            if key in self.similarity:
                row["similarity"] = _spread(self.similarity[key])
            found[key] = row
        return found

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row a picture, for :meth:`to_pandas` and :meth:`to_parquet`; changes are in SDs, and None for inputs."""
        keys, count = list(self.images), len(self)

        def column(values: dict[str, Tensor]) -> list[float | None]:
            return [one for key in keys for one in (values[key].tolist() if key in values else [None] * count)]

        return {
            **{name: [getattr(self, name)] * (len(keys) * count) for name in ("model", "layer", "unit")},
            "image": self.names * len(keys),
            "picture": [key for key in keys for _ in range(count)],
            "response": column(self.responses),
            "standardised": column(self.standardised),
            "response_change": column(self.response_change),
            "response_change_from_input": column(self.response_change_from_input),
            "similarity": column(self.similarity),
        }

    def summary(self) -> str:
        """What came out, in a few lines of text."""
        lines = [
            self.title,
            f"{self.recipe}; mean ± SD over {_count(len(self), 'image')}; 1 SD = {self.response_std:.4g}",
        ]
        if self.evidence is None:
            lines.append("WEAK EVIDENCE: none was gathered, so that nothing says if the landscape knows this unit")
        else:
            lines.append(str(self.evidence))
        table = self.statistics()
        for key in self.directions:
            row = table[key]
            parts = [f"{key}: response {_signed(row['response_change'])} SD against α = 0"]
            share = row["share_right_way"]
            if share is not None:
                parts.append(f"{round(share * len(self))} of {_count(len(self), 'image')} the right way ({share:.0%})")
            parts.append(f"{_signed(row['response_change_from_input'])} SD against the input")
            if "similarity" in row:
                parts.append(f"similarity {row['similarity']['mean']:.2f}")
            lines.append(", ".join(parts))
            if key in self.words:
                lines.append(f"{key}, in words: {self.words[key]}")
        row = table["unedited"]
        line = f"α = 0, the pipeline alone: response {_signed(row['response_change_from_input'])} SD against the input"
        if "similarity" in row:
            line += f", similarity {row['similarity']['mean']:.2f}"
        lines.append(line)
        lines.append(f"responses judged by {self.judge}")
        lines += self.inputs_note
        if self.similarity:
            lines.append(f"similarity judged by {self.similarity_network}")
        return "\n".join(lines)

    @property
    def judge(self) -> str:
        """What read the responses."""
        return self.settings.get("judge") or f"{self.model} itself, the network that guided them"

    @property
    def inputs_note(self) -> list[str]:
        """How the inputs were chosen where nobody gave any, and whether the fit had learned from them, in sentences."""
        return inputs_note(self.settings, len(self))

    @property
    def similarity_network(self) -> str:
        """The network in which pictures were compared with their inputs."""
        return self.settings.get("similarity_network") or "a network that nobody named"

    @property
    def title(self) -> str:
        """Model, layer, unit, and how its positions became one number if not by their mean, in one line."""
        target = self.settings.get("target")
        pool = target.get("pool", "mean") if isinstance(target, dict) else "mean"
        how = "" if pool == "mean" else f" ({pool})"
        return f"{self.model}, {f'layer {self.layer}' if self.layer else 'output'}, unit {self.unit}{how}"

    @property
    def recipe(self) -> str:
        """Method, α, strength and seed in one line."""
        seeds = self.settings.get("seeds")
        parts = [str(self.settings.get("method", "images"))]
        parts += [
            f"{label} = {self.settings[key]:g}"
            for key, label in (("alpha", "α"), ("strength", "strength"))
            if isinstance(self.settings.get(key), (int, float))
        ]
        if isinstance(seeds, int):
            parts.append(f"seed {seeds}")
        elif seeds:
            parts.append("one seed an image")
        return ", ".join(parts)

    def figure(self, max_images: int = 8) -> "Figure":
        """Inputs, preferred and suppressed images with their responses, and the evidence.

        Args:
            max_images: The first so many are drawn; the plot of responses shows all.
        """
        from vislens_interp.report.figures import result_figure  # here: importing a result must not import matplotlib

        return result_figure(self, max_images=max_images)

    def html(self, max_images: int = 8) -> str:
        """The report: one page that needs no other file and no network, light or dark as its reader's screen is.

        Args:
            max_images: The first so many inputs are shown; plots and numbers are of all.
        """
        from vislens_interp.report.page import result_page

        return result_page(self, max_images=max_images)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write images, ``report.html``, figure, ``manifest.csv`` and ``result.json`` into a folder, all or none.

        Everything is written beside the folder first and renamed when it is whole. An earlier result of ours there is
        replaced; it survives a full disk or a kill.

        Args:
            folder: A new or empty folder, or one that holds an earlier result and nothing else.

        Returns:
            The folder.

        Raises:
            ValueError: The folder holds something else.
            OSError: It cannot be written; what was there before is still there.
        """
        from vislens_interp.results.storage import save_result  # here: storage builds results

        return save_result(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "LensResult":
        """Read what :meth:`save` wrote, now or with 0.1.0.

        Numbers come back as they were. Images come back from PNGs, rounded to 8 bits: up to 1/510 off.

        Raises:
            FileNotFoundError: There is no such folder, it holds no result, or one of its images is missing.
            ValueError: ``result.json`` is truncated, not ours, or newer than this library.
        """
        from vislens_interp.results.storage import load_result

        return load_result(folder)

    @classmethod
    def joined(cls, results: Sequence["LensResult"]) -> "LensResult":
        """The first of several units' results, which knows the others (:meth:`of_unit`)."""
        by_unit = {result.unit: result for result in results}
        for result in results:
            result._others = by_unit if len(by_unit) > 1 else {}
        return results[0]

    def export_stimuli(
        self,
        folder: str | os.PathLike[str],
        *,
        levels: Sequence["LensResult"] = (),
        size: int = 512,
        spread: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> Path:
        """Write the pictures for an experiment, with matched controls, in a balanced order.

        Args:
            folder: A folder that is not there yet.
            levels: Results of the same unit and inputs at other weights: ``[lens.visualize(images, alpha=0.5)]``.
            size: Side of the PNGs in pixels.
            spread: How sure a prediction is, images to (N,), such as an ensemble's ``spread``.
            seed: Of the order and the random controls.

        Returns:
            The folder; :func:`~vislens_interp.brain.stimuli.load_stimuli` reads it back.
        """
        from vislens_interp.brain.stimuli import export_stimuli

        return export_stimuli([self, *levels], folder, size=size, spread=spread, seed=seed)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    # torch's own word says which build it is; the others are asked without importing them.
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("vislens_interp", "diffusers", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _of_pixels(pictures: Pictures) -> tuple[int, ...]:
    """Shape of one number a pixel, (N, H, W)."""
    return (pictures.shape[0], *pictures.shape[2:])


def _column(values: Tensor, argument: str, count: int) -> Tensor:
    if values.shape != (count,):
        raise ValueError(f"{argument} has shape {tuple(values.shape)}; expected ({count},), one number an image.")
    return values.detach().float().cpu()


def _spread(values: Tensor) -> dict[str, float | None]:
    values = values.double()
    return {"mean": values.mean().item(), "sd": values.std().item() if len(values) > 1 else None}


def _signed(spread: dict[str, float]) -> str:
    return f"{spread['mean']:+.2f}" + ("" if spread["sd"] is None else f" ± {spread['sd']:.2f}")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def json_values(value: object, name: str) -> Any:
    """A copy that JSON can hold: keys as text, tuples as lists, and None for a number that is not finite."""
    if isinstance(value, dict):
        return {str(key): json_values(item, f"{name}[{str(key)!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):  # NumPy's numbers among them
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{name} is a {type(value).__name__}; expected JSON values. Pass numbers, text, lists or dicts.")
