"""Images and what a brain answered to them: repetitions, targets, splits by image, noise ceilings."""

import functools
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Generic, ParamSpec, Self, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from torch import Tensor

from vislens_interp.brain.noise_ceiling import Form, NoiseCeiling, noise_ceiling
from vislens_interp.brain.predictivity import CHANCE_P
from vislens_interp.brain.readers.bids import read_bids
from vislens_interp.brain.readers.epochs import read_epochs
from vislens_interp.brain.readers.h5 import read_h5
from vislens_interp.brain.readers.nifti import read_nifti
from vislens_interp.brain.readers.nwb import read_nwb
from vislens_interp.brain.readers.surface import read_surface
from vislens_interp.brain.readers.trials import Recording, in_order
from vislens_interp.brain.responses import (
    Images,
    NamedResponses,
    Pictures,
    Rows,
    as_names,
    as_numbers,
    as_responses,
    by_image,
    check_known,
    check_responses,
    check_targets,
    in_order_of,
    names_of,
    open_pictures,
    places_of,
    refuse_doubtful_order,
    refuse_missing_files,
    row_parts,
)
from vislens_interp.brain.table import read_table
from vislens_interp.frames import Tabular
from vislens_interp.images import ImageFiles, PathLike, check_images, image_keys
from vislens_interp.pairing import Table, by_name, pairing_text, sorted_by_name
from vislens_interp.tables import display_text
from vislens_interp.validation import check_several

P = ParamSpec("P")
D = TypeVar("D", bound="BrainDataset")


class Described(TypedDict, total=False):
    """What every data set may be told besides; see :meth:`BrainDataset.from_arrays`."""

    subject: str | None
    units: str
    size: int | None
    names: Sequence[str] | None


class _Reading(staticmethod, Generic[P]):  # a static method, so that documentation takes the reader's signature
    """A constructor of a data set that takes what a reader takes."""

    def __init__(self, read: Callable[P, Recording]) -> None:
        super().__init__(read)
        self.read = read

    def __get__(self, instance: object, owner: type[D]) -> Callable[P, D]:
        @functools.wraps(self.read)
        def construct(*args: P.args, **kwargs: P.kwargs) -> D:
            return owner(**self.read(*args, **kwargs)._asdict())

        return construct


class BrainDataset(Tabular):
    """Images and recorded responses to them.

    A row is an image, whatever the number of times that it was shown: what parts rows parts images, never trials.

    Args:
        images: N pictures, (N, 3, H, W) in [0, 1], or files that are read where they are asked for.
        responses: (N, R, K): image, repetition, target; NaN where absent.
        targets: K names, each once.
        subject: Whose responses they are.
        units: What a response is measured in: ``"z-scored beta"``, ``"µV"``, ``"spikes a bin"``.
        names: N names of the images; None numbers them, or takes the files'.
        pairing: How responses were paired with images, for :meth:`summary`.

    Raises:
        TypeError: ``images`` or ``responses`` are of a kind that cannot be read.
        ValueError: Counts differ, a name comes twice, pictures are not in [0, 1], a target has no response at all, or
            one is infinite.

    >>> data = BrainDataset.from_arrays(torch.rand(8, 3, 4, 4), torch.randn(8, 5, 2), targets=["FFA-1", "PPA"])
    >>> data.select(["PPA"]).mean_responses().shape
    torch.Size([8, 1])
    >>> [len(part) for part in data.split([0.75, 0.25], seed=0)]
    [6, 2]
    """

    def __init__(
        self,
        images: Images,
        responses: Tensor | np.ndarray,
        targets: Sequence[str],
        *,
        subject: str | None = None,
        units: str = "",
        names: Sequence[str] | None = None,
        pairing: str = "",
    ) -> None:
        if isinstance(images, ImageFiles) and images.sorted_by_name:
            refuse_doubtful_order(images.names)
        if not isinstance(images, (Tensor, ImageFiles)):
            raise TypeError(
                f"images is a {type(images).__name__}; expected a tensor (N, 3, H, W) in [0, 1] or ImageFiles. "
                "BrainDataset.from_arrays takes arrays, folders and paths."
            )
        if isinstance(images, Tensor) and len(images):
            check_images(images[:: -(-len(images) // 64)])  # some tell: parts of a data set are made in the same way
        self.images, self.pairing = images, pairing
        self.responses = as_numbers(responses)
        self.targets = check_targets(targets)
        self.subject, self.units = subject, units
        check_responses(self.responses, len(images), self.targets)
        self.names = as_names(names_of(images) if names is None else names)
        if len(self.names) != len(images):
            raise ValueError(f"names holds {len(self.names)} for {len(images)} images; expected one each, or None.")

    @classmethod
    def from_arrays(
        cls,
        images: Pictures,
        responses: NamedResponses,
        *,
        targets: Sequence[str],
        subject: str | None = None,
        units: str = "",
        size: int | None = None,
        names: Sequence[str] | None = None,
    ) -> Self:
        """A data set of what is in memory, or in files.

        Args:
            images: (N, 3, H, W) in [0, 1]; :class:`~vislens_interp.images.ImageFiles`; or a folder or paths.
            responses: A row for each image in the order of ``images``, or of ``names`` for a folder; or by name: a
                mapping from an image's name to its responses, or a pandas DataFrame with names as its index. (N, K)
                responses are averaged ones; what a masked array hides is absent.
            targets, subject, units: As :class:`BrainDataset`. Of a DataFrame those of its columns that have these
                names, or, if none has, all in their order.
            size: Side in pixels to which pictures in ``images`` are resized and cropped. Files then stay on the disk;
                without it they are read at once and need to have one size.
            names: Names of the images. Of a folder: its files, in the order of the responses; or, if none is the name
                of a file, other names for all.

        Raises:
            FileNotFoundError: A file of images is not there.
            ValueError: As :class:`BrainDataset`; or responses without names came for a folder whose files are in
                another order as text (1, 10, 2) than by counting.
        """
        names = None if names is None else as_names(names)
        pictures, own = open_pictures(images, size)
        pairing, folder = "", sorted_by_name(images)
        if not folder:
            refuse_missing_files(pictures)
        if own is not None and names is not None and folder:
            chosen = in_order(pictures, own, names)
            if chosen is not None:
                pictures, own, folder, pairing = chosen, None, False, "files of images in the order of names="
        known = own or names_of(pictures) if names is None else names
        targets = check_targets(targets)
        if isinstance(responses, Table):
            responses = in_order_of(targets, responses)
        if isinstance(responses, (Mapping, Table)) and by_name(responses) is not None:
            folder, pairing = False, "by the names of images, which responses gives"
        values = as_responses(responses, known)
        if own is not None and folder and len(own) == len(values):
            refuse_doubtful_order(own)
        if isinstance(pictures, ImageFiles):
            pictures = pictures.at(range(len(pictures)))  # its order is no longer in doubt
        return cls(pictures, values, targets, subject=subject, units=units, names=known, pairing=pairing)

    @classmethod
    def from_trials(
        cls,
        images: Pictures,
        responses: Tensor | np.ndarray,
        shown: Sequence[int] | Tensor | np.ndarray,
        *,
        targets: Sequence[str],
        **described: Unpack[Described],
    ) -> Self:
        """A data set of trials in the order in which they were recorded.

        Args:
            images, targets, **described: N pictures, and the rest as :meth:`from_arrays`.
            responses: (T, K), a row for each trial.
            shown: (T,) the image of each trial, 0 to N - 1.

        Raises:
            ValueError: Counts differ, or ``shown`` names an image that there is not.
        """
        folder = isinstance(images, (str, os.PathLike))  # which has to be read for its length
        count = len(ImageFiles(images, 1) if folder else images)
        values = by_image(as_numbers(responses), shown, count)
        data = cls.from_arrays(images, values, targets=targets, **described)
        data.pairing = f"{len(shown)} trials, by the position in images that shown= gives each"
        return data

    @classmethod
    def from_table(
        cls,
        path: PathLike,
        *,
        image_column: str | None = None,
        targets: Sequence[str] | None = None,
        folder: PathLike | None = None,
        **described: Unpack[Described],
    ) -> Self:
        """A data set of a CSV or TSV of paths and responses; see :func:`~vislens_interp.brain.table.read_table`.

        Args:
            **described: As :meth:`from_arrays`.
        """
        table = read_table(path, image_column=image_column, targets=targets, folder=folder)
        data = cls.from_trials(table.paths, table.responses, table.shown, targets=table.targets, **described)
        data.pairing = f"{len(table.shown)} rows, by the paths in column {table.image_column!r} of {Path(path).name}"
        return data

    from_epochs = _Reading(read_epochs)
    from_nifti = _Reading(read_nifti)
    from_surface = _Reading(read_surface)
    from_h5 = _Reading(read_h5)
    from_bids = _Reading(read_bids)
    from_nwb = _Reading(read_nwb)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        repetitions = f", up to {self.repetitions} repetitions" if self.repetitions > 1 else ", averaged"
        whose = f" of {self.subject}" if self.subject else ""
        measured = f", {self.units}" if self.units else ""
        return (
            f"BrainDataset({len(self)} images, {len(self.targets)} targets{whose}{repetitions}{measured}, "
            f"{self._ceiling_text})"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(display_text(self.summary()))}</pre>"

    def columns(self) -> dict[str, Any]:
        """A row for each image and repetition that has a response, a column a target; NaN where one is absent."""
        rows, repetitions = (~self.responses.isnan()).any(2).nonzero().T.tolist()
        values = self.responses[rows, repetitions].T
        taken = {"image", "repetition"} & set(self.targets)
        if taken:
            raise ValueError(f"targets holds {sorted(taken)[0]!r}, a column of its own. Rename this target.")
        return {
            "image": [self.names[row] for row in rows],
            "repetition": repetitions,
            **{target: column.numpy() for target, column in zip(self.targets, values, strict=True)},
        }

    def summary(self) -> str:
        """What there is, and how responses were paired with images, in a few lines."""
        least, most, unseen = self.repetitions, 0, []
        for part in row_parts(self.responses):
            counts = (~part.isnan()).sum(1)
            least, most = min(least, int(counts.min())), max(most, int(counts.max()))
            unseen.append(counts.amax(1) == 0)
        silent = [name for name, none in zip(self.names, torch.cat(unseen).tolist(), strict=True) if none]
        first_and_last = self.responses[[0, -1]].nanmean(1)
        return "\n".join(
            [
                repr(self),
                f"repetitions: {least} to {most} an image and target",
                *([f"no response to {len(silent)} images, such as {silent[0]!r}"] if silent else []),
                *self._not_above_chance,
                f"targets: {', '.join(self.targets[:8])}" + (", ..." if len(self.targets) > 8 else ""),
                f"pairing: {self.pairing or 'rows of responses are rows of images, as they were given'}",
                f"pairs: {pairing_text(first_and_last, self.names)}",
            ]
        )

    @cached_property
    def _ceiling(self) -> NoiseCeiling | None:
        """The ceiling of at most 256 targets, from at most 2,000 images, spread over all: a repr has to be quick."""
        rows = slice(None, None, -(-len(self) // 2000))
        columns = slice(None, None, -(-len(self.targets) // 256))
        responses, targets = self.responses[rows, :, columns], self.targets[columns]
        repeated = ((~responses.isnan()).sum(1) >= 2).sum(0) >= 3
        if not repeated.any():
            return None
        chosen = [name for name, there in zip(targets, repeated.tolist(), strict=True) if there]
        return noise_ceiling(responses[:, :, repeated], chosen, "ncsnr")

    @property
    def _ceiling_text(self) -> str:
        ceiling = self._ceiling
        if ceiling is None:
            return "no noise ceiling"
        count, above = len(ceiling.targets), int(ceiling.above_chance.sum())
        said = f"noise ceiling R {ceiling.r.median().item():.2f}"
        if len(self.targets) == 1:
            return said + (", above chance" if above else ", not above chance")
        return f"{said} (median), {above} of {count} targets above chance"

    @property
    def _not_above_chance(self) -> list[str]:
        """A line of a summary, where there are targets whose images do not differ more than repetitions do."""
        ceiling = self._ceiling
        if ceiling is None or ceiling.above_chance.all():
            return []
        names = [name for name, above in zip(ceiling.targets, ceiling.above_chance.tolist(), strict=True) if not above]
        return [
            f"noise ceiling not above chance (F test, p >= {CHANCE_P}): {', '.join(names[:8])}"
            + (", ..." if len(names) > 8 else "")
        ]

    @property
    def repetitions(self) -> int:
        """R, the largest number of repetitions; 1 if responses are averaged."""
        return self.responses.shape[1]

    @property
    def counts(self) -> Tensor:
        """(N, K) repetitions that there are."""
        return (~self.responses.isnan()).sum(1)

    def mean_responses(self) -> Tensor:
        """(N, K) responses averaged over the repetitions that there are; NaN where there is none."""
        return torch.cat([part.nanmean(1) for part in row_parts(self.responses)])

    def noise_ceiling(self, form: Form = "split_half", *, draws: int = 100, seed: int = 0) -> NoiseCeiling:
        """How well a perfect model could predict :meth:`mean_responses`; ValueError without repetitions.

        Args:
            form, draws, seed: See :func:`~vislens_interp.brain.noise_ceiling.noise_ceiling`.
        """
        return noise_ceiling(self.responses, self.targets, form, draws=draws, seed=seed)

    def averaged(self) -> Self:
        """The same with responses averaged over repetitions, (N, 1, K)."""
        return self._with(self.images, self.mean_responses()[:, None], self.targets, self.names)

    def select(self, targets: Sequence[str] | str) -> Self:
        """The same images with some of the targets, in this order; KeyError with near names for an unknown one."""
        if not isinstance(targets, str):
            check_several("targets", targets, "names of targets")
        chosen = [targets] if isinstance(targets, str) else list(targets)
        columns = {name: column for column, name in enumerate(self.targets)}
        for name in chosen:
            check_known("target", name, columns, "this data set")
        return self._with(self.images, self.responses[:, :, [columns[name] for name in chosen]], chosen, self.names)

    def take(self, rows: Rows) -> Self:
        """Some of the images, in this order.

        Args:
            rows: Positions, a slice, or a mask of N truth values.

        Raises:
            TypeError, ValueError: These are no rows, there is no such row, nothing is left, or a target has no response
                there.
        """
        places = places_of(rows, len(self))
        images = self.images[places] if isinstance(self.images, Tensor) else self.images.at(places)
        return self._with(images, self.responses[places], self.targets, [self.names[row] for row in places])

    def split(self, parts: Sequence[float] | Sequence[int], seed: int = 0) -> tuple[Self, ...]:
        """Part the images at random.

        Args:
            parts: The share of each part (floats that add up to at most 1), or its number of images (integers); what is
                left over is in none. ValueError for more than there is, or for an empty part.

        Returns:
            A data set a part; a picture in several rows (equal pixels, or the same file) is never in two of them.
        """
        sizes = _sizes(parts, len(self))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        copies: dict[str, list[int]] = {}
        for row in order:
            copies.setdefault(self.keys[row], []).append(row)
        rows: list[list[int]] = [[] for _ in sizes]
        part = 0
        for same in copies.values():
            while part < len(sizes) and len(rows[part]) >= sizes[part]:
                part += 1
            if part == len(sizes):
                break
            rows[part].extend(same)
        return self.split_rows(*rows)

    def split_rows(self, *rows: Rows) -> tuple[Self, ...]:
        """Part the images by rows, as :meth:`take`: those of each part; ValueError for an image in two parts."""
        parts = tuple(self.take(part) for part in rows)
        for first, second in itertools.combinations(range(len(parts)), 2):
            refuse_shared_images(parts[first], parts[second], f"parts {first} and {second}")
        return parts

    @cached_property
    def keys(self) -> list[str]:
        """What tells pictures apart: a hash of their pixels, or the path of a file."""
        if isinstance(self.images, Tensor):
            return image_keys(self.images)
        return [os.path.realpath(path) for path in self.images.paths]

    def _with(self, images: Images, responses: Tensor, targets: Sequence[str], names: Sequence[str]) -> Self:
        return type(self)(
            images,
            responses,
            targets,
            subject=self.subject,
            units=self.units,
            names=names,
            pairing=self.pairing,
        )


def refuse_shared_images(first: BrainDataset, second: BrainDataset, what: str = "the two data sets") -> None:
    """Raise ValueError if a picture is in both.

    Args:
        first: For instance, what an encoder is fitted on.
        second: What it is judged on. Pictures in memory are compared by their pixels, files by their paths.
    """
    places = {key: row for row, key in enumerate(first.keys)}
    shared = [(places[key], row) for row, key in enumerate(second.keys) if key in places]
    if shared:
        names = ", ".join(f"{first.names[one]!r} ({second.names[other]!r})" for one, other in shared[:3])
        raise ValueError(
            f"{what} share {len(shared)} images, such as {names}; expected each image in one of them. Split by image: "
            "dataset.split([0.8, 0.2])."
        )


def _sizes(parts: Sequence[float] | Sequence[int], count: int) -> list[int]:
    check_several("parts", parts, "such as [0.8, 0.2]")
    values = list(parts)
    shares = any(isinstance(value, float) or not float(value).is_integer() for value in values)  # NumPy's float32 too
    total = math.fsum(values)
    if not values or min(values) <= 0 or total > (1 + 1e-9 if shares else count):
        raise ValueError(
            f"parts={values} of {count} images; expected shares above 0 that add up to at most 1 (floats), or counts "
            f"that add up to at most {count} (integers). Pass such as [0.8, 0.2]."
        )
    if not shares:
        return [int(value) for value in values]
    ends = [round(count * math.fsum(values[: end + 1])) for end in range(len(values))]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    if min(sizes) < 1:
        raise ValueError(
            f"parts={values} of {count} images gives parts of {sizes}; expected at least one image in each."
        )
    return sizes
