"""Reference sets: the images that landscapes are fitted on, their names, responses and embeddings."""

import copy
import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from vislens_interp.config import MIN_IMAGES
from vislens_interp.copies import first_rows, picture_groups, renumbered
from vislens_interp.images import ImageFiles, ImageSource, holds_files, image_keys, load_images, ordinary
from vislens_interp.pairing import Responses, paired_responses, pairing_text, sorted_by_name
from vislens_interp.progress import tqdm
from vislens_interp.validation import check_switches, check_whole

if TYPE_CHECKING:
    from vislens_interp.backends.base import Backend
    from vislens_interp.targets.target import Target

CHUNK = 64
"""Pictures in memory at a time where they come from files: 200 MB at 512 px."""
LAYERS = 4
"""Layers whose responses a reference set keeps."""
REMEMBERED = 8
"""Sets of images whose x, or features of it, a backend's memory keeps; the least recently used goes first."""


Source: TypeAlias = "ImageSource | ImageFiles | ReferenceSet"
"""Whatever a reference set is made of, see :meth:`ReferenceSet.open`."""
Origin = Literal["given", "synthetic", "photographs"]
_KINDS: dict[Origin, str] = {
    "given": "given images",
    "synthetic": "synthetic reference",
    "photographs": "reference photographs",
}


@dataclass
class _Memory:
    """What is remembered for one backend: x of images by their content, features of it, and its own reference set."""

    embedded: "OrderedDict[str, Tensor]" = field(default_factory=OrderedDict)
    own: "ReferenceSet | None" = None


_memories: dict[int, _Memory] = {}
"""By the identity of a backend, as long as it lives."""


def _memory_of(backend: "Backend") -> _Memory:
    key = id(backend)
    if key not in _memories:
        _memories[key] = _Memory()
        weakref.finalize(backend, _memories.pop, key, None)
    return _memories[key]


class ReferenceSet:
    """Images in memory or in files, with what is known of them; a lens is fitted on one, and several lenses share one.

    Args:
        images: (N, 3, S, S) in [0, 1], or files; None where only the keys of the images are known, as in a loaded lens.
        names: One an image; None numbers them.
        responses: (N, K) responses, a column a unit; None where they are not read yet.
        measured: Whether the responses were measured, not read from the target.
        origin: Where the images come from: a user gave them, a generator made them (none is a photograph), or they are
            photographs that travel with the backend.
        held_out: Rows that a fit did not learn from.

    >>> reference = ReferenceSet(torch.rand(4, 3, 8, 8), held_out=[1, 3])
    >>> images, names = reference.held_out(8)
    >>> len(images), names
    (2, ['image_00001', 'image_00003'])
    """

    def __init__(
        self,
        images: Tensor | ImageFiles | None,
        names: Sequence[str] | None = None,
        *,
        responses: Tensor | None = None,
        measured: bool = False,
        origin: Origin = "given",
        held_out: Sequence[int] = (),
    ) -> None:
        check_switches(measured=measured)
        if names is None:
            stem = "synthetic-{:04d}" if origin == "synthetic" else "image_{:05d}"
            count = 0 if images is None else len(images)
            names = images.names if isinstance(images, ImageFiles) else [stem.format(row) for row in range(count)]
        self._images = ordinary(images) if isinstance(images, Tensor) else images
        self.names = list(names)
        self.responses, self.measured = responses, measured
        self.origin: Origin = origin
        self.held_out_rows = [int(row) for row in held_out]
        self._content: list[str] = []  # the key, once it is computed; copies share it
        self._groups: list[Tensor] = []  # likewise
        self._keys: list[str] = []  # likewise
        self._layers: OrderedDict[str, Tensor] = OrderedDict()  # likewise: responses of all channels of layers
        self._sorted_by_name = False
        self._whole: tuple[ReferenceSet, list[int]] | None = None
        self._learned_keys: set[str] | None = None

    @classmethod
    def open(
        cls, source: Source, size: int, *, stream: bool, on_error: Literal["raise", "skip"] = "raise"
    ) -> "ReferenceSet":
        """A reference set from whatever :func:`~vislens_interp.images.load_images` takes, or a reference set as it is.

        Args:
            source: A tensor, PIL images, paths, a folder, or a reference set.
            size: Side of the images in pixels.
            stream: Leave files on the disk, where they must remain: they are read where they are needed.
            on_error: ``"skip"`` leaves unreadable files out, with a warning that names them.
        """
        check_switches(stream=stream)
        if isinstance(source, ReferenceSet):
            return source
        if isinstance(source, ImageFiles):
            opened = cls(source)
        elif stream and holds_files(source):
            opened = cls(ImageFiles(source, size, on_error=on_error))
        else:
            opened = cls(*load_images(source, size=size, on_error=on_error))
        opened._sorted_by_name = sorted_by_name(source)
        return opened

    @classmethod
    def of_backend(cls, backend: "Backend") -> "ReferenceSet | None":
        """The backend's own reference set, the same object for every lens on that backend; None if it has none."""
        images = backend.reference_images()
        if images is None:
            return None
        memory = _memory_of(backend)
        if memory.own is None or memory.own._images is not images:
            memory.own = cls(images, origin="synthetic" if isinstance(images, Tensor) else "photographs")
        return memory.own

    @classmethod
    def for_fit(
        cls,
        backend: "Backend",
        images: "Source | None" = None,
        responses: Responses | None = None,
        *,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> "ReferenceSet":
        """What a fit on a backend learns from: given images, or the backend's own, with measured responses or none.

        Args:
            backend: Files stay on the disk where its x is an embedding, for pictures of 512 pixels fill memory.
            images: What :meth:`open` takes; None takes the backend's own reference set.
            responses: (N,) or (N, K) measured ones; None: the target's are read later.
            on_error: ``"skip"`` leaves unreadable files out, with a warning that names them.
        """
        if images is None:
            if responses is not None:
                raise ValueError("responses= were given without the images= that they belong to; pass both.")
            own = cls.of_backend(backend)
            if own is None:
                raise ValueError(
                    f"images=None, and backend {backend.name!r} has no reference set of its own; pass at least "
                    f"{MIN_IMAGES} images."
                )
            return own
        sampler = type(getattr(images, "sampler", None)).__name__
        if responses is not None and "Random" in sampler:
            raise ValueError(
                f"images is a DataLoader with a {sampler}, which gives its images in another order each"
                " time, and responses= belong to them in one order. Pass shuffle=False, or the data set itself."
            )
        reference = cls.open(images, backend.size, stream=len(backend.shape) == 1, on_error=on_error)
        if responses is not None:
            return reference.with_responses(responses, measured=True)
        return reference.without_responses()  # another lens's were of other units

    @classmethod
    def without_images(cls, learned_keys: Sequence[str], *, measured: bool, origin: Origin) -> "ReferenceSet":
        """What a saved lens knows of its reference set: the keys of the images that it learned from."""
        known = cls(None, measured=measured, origin=origin)
        known._learned_keys = set(learned_keys)
        return known

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        where = "keys alone" if self._images is None else f"{len(self)} images"
        return f"ReferenceSet({where}, {self.kind})"

    @property
    def has_images(self) -> bool:
        """Whether the images are at hand; a loaded lens knows only their keys."""
        return self._images is not None

    @property
    def images(self) -> Tensor | ImageFiles:
        """The images, in memory or in files; both give pictures by ``images[rows]``."""
        if self._images is None:
            raise ValueError(
                "the reference set of a loaded lens holds no reference images; pass images, or call fit first."
            )
        return self._images

    @property
    def synthetic(self) -> bool:
        """Whether a generator made the images."""
        return self.origin == "synthetic"

    @property
    def kind(self) -> str:
        """Where the images and the responses come from, in words."""
        images = _KINDS[self.origin]
        return f"{images}, measured responses" if self.measured else images

    @property
    def key(self) -> str:
        """Hash of the images' content; of files, of their paths, sizes and times of change."""
        if not self._content:
            self._content.append(content_key(self.images))
        return self._content[0]

    @property
    def keys(self) -> list[str]:
        """Of every image, see :func:`~vislens_interp.images.image_keys`; read once for all lenses on this set."""
        if self._whole is not None:
            whole, rows = self._whole
            return [whole.keys[row] for row in rows]
        if not self._keys:
            self._keys.extend([key for part in self.parts() for key in image_keys(part)])
        return self._keys

    @property
    def groups(self) -> Tensor:
        """(N,) which images are crops of one photograph, or copies: :func:`~vislens_interp.copies.picture_groups`."""
        if not self._groups:
            known = getattr(self._images, "groups", None)
            if known is not None:
                self._groups.append(renumbered(known))
            elif self._whole is None:
                self._groups.append(picture_groups(self.images))
            else:
                whole, rows = self._whole
                self._groups.append(renumbered(whole.groups[rows]))
        return self._groups[0]

    @property
    def pairing(self) -> str | None:
        """The first and the last image with their measured responses, in words; None where none were measured."""
        return pairing_text(self.responses, self.names) if self.measured and self.responses is not None else None

    def parts(self) -> Iterator[Tensor]:
        """The images in order, 64 at a time."""
        for row in range(0, len(self), CHUNK):
            yield self.images[row : row + CHUNK]

    def at(self, rows: Sequence[int]) -> "ReferenceSet":
        """A part of the set; its embeddings are rows of the whole set's."""
        rows, images = [int(row) for row in rows], self.images
        part = ReferenceSet(
            images.at(rows) if isinstance(images, ImageFiles) else images[rows],
            [self.names[row] for row in rows],
            responses=None if self.responses is None else self.responses[rows],
            measured=self.measured,
            origin=self.origin,
        )
        part._whole = (self, rows)
        return part

    def learned(self) -> "ReferenceSet":
        """The images that the fit learned from: what every method that is compared with it learns from too."""
        left_out = set(self.held_out_rows)
        return self.at([row for row in range(len(self)) if row not in left_out])

    def held_out(self, count: int | None = None) -> tuple[Tensor, list[str]]:
        """Images that the fit did not learn from, and their names.

        Args:
            count: So many photographs, evenly taken, the first crop of each; further crops where there are fewer
                photographs. None takes all images.
        """
        if count is not None:
            check_whole(0, count=count)
        rows = self.held_out_rows
        if count is not None and count < len(rows):
            first = first_rows(self.groups[rows]).tolist()
            chosen = first[:: max(1, len(first) // max(1, count))][:count]
            further = sorted(set(range(len(rows))) - set(first))
            rows = [rows[place] for place in sorted(chosen + further[: count - len(chosen)])]
        return self.images[rows], [self.names[row] for row in rows]

    def with_held_out(self, rows: Sequence[int] | Tensor) -> "ReferenceSet":
        """The same images, of which a fit held out these rows."""
        changed = copy.copy(self)
        changed.held_out_rows = torch.as_tensor(rows).tolist()
        changed._learned_keys = None
        return changed

    def with_responses(self, responses: Responses, *, measured: bool = False) -> "ReferenceSet":
        """The same images with responses: (N,) for one unit, (N, K), or by the images' names.

        See :func:`~vislens_interp.pairing.paired_responses`.
        """
        check_switches(measured=measured)
        changed = copy.copy(self)
        changed.responses = paired_responses(responses, self.names, sorted_by_name=measured and self._sorted_by_name)
        changed.measured = measured
        return changed

    def without_responses(self) -> "ReferenceSet":
        """The same images for another target."""
        changed = copy.copy(self)
        changed.responses, changed.measured = None, False
        return changed

    def read_by(self, target: "Target", *, progress: bool = False) -> Tensor:
        """Responses (N, K) of a target to the images; files are read a part at a time.

        All channels of a layer are read at once, and remembered for the next lens.
        """
        found = target.whole_layer()
        if found is None:
            return self._read(target, progress)
        whole, columns, key = found
        if key not in self._layers:
            self._layers[key] = self._read(whole(), progress)
            while len(self._layers) > LAYERS:
                self._layers.popitem(last=False)
        return self._layers[key][:, columns].clone()

    def _read(self, target: "Target", progress: bool) -> Tensor:
        images = self.images
        if isinstance(images, Tensor):
            return target.responses(images, progress=progress)
        responses = []
        with tqdm(total=len(self), desc="responses", unit="image", disable=not progress) as bar:
            for part in self.parts():
                responses.append(target.responses(part))
                bar.update(len(part))
        return torch.cat(responses)

    def embeddings(self, backend: "Backend") -> Tensor:
        """The backend's x of every image (N, ...), computed once for a backend and kept in memory."""
        if self._whole is not None:
            whole, rows = self._whole
            return whole.embeddings(backend)[rows]
        return embed(backend, self.images, key=self.key)

    def learned_count(self, images: Tensor) -> int:
        """How many of these images (N, 3, S, S) the fit learned from."""
        return sum(key in self.learned_keys for key in image_keys(images))

    @property
    def learned_keys(self) -> set[str]:
        """Keys of the images that the fit learned from, see :func:`~vislens_interp.images.image_keys`."""
        if self._learned_keys is None:
            self._learned_keys = set(self.learned().keys)
        return self._learned_keys


def embed(backend: "Backend", images: Tensor | ImageFiles, *, key: str | None = None) -> Tensor:
    """The backend's x of images (N, ...), computed once for these images and this backend, then taken from memory.

    Args:
        backend: Whose ``encode``.
        images: (N, 3, S, S), or files.
        key: Their :func:`content_key`, if it is known.
    """

    def compute() -> Tensor:
        if isinstance(images, ImageFiles) and not getattr(backend, "encodes_files", False):
            return torch.cat([backend.encode(part) for part in images.split(CHUNK)])
        return backend.encode(images)  # pyright: ignore[reportArgumentType] (this backend reads files itself)

    return remembered(backend, content_key(images) if key is None else key, compute)


def remembered(backend: "Backend", key: str, compute: Callable[[], Tensor]) -> Tensor:
    """What ``compute`` gives for a backend: computed once, then taken from memory, which keeps the last few by key."""
    memory = _memory_of(backend).embedded
    if key in memory:
        memory.move_to_end(key)
        return memory[key]
    with torch.inference_mode(False):  # it is remembered, and may be asked for gradients
        memory[key] = compute()
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
    return memory[key]


def content_key(images: Tensor | ImageFiles) -> str:
    """A hash of images: of pixels in memory, or of files' paths, sizes and times of change."""
    digest = hashlib.blake2b(repr(tuple(images.shape)).encode(), digest_size=16)
    if isinstance(images, ImageFiles):
        for part in images.identity():
            digest.update(part)
    else:
        digest.update(str(images.dtype).encode())
        digest.update(images.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
