"""Atlas: all units of a layer fitted together, and a folder in which each of them can be looked up."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn

import vislens_interp.backends.embedded
import vislens_interp.backends.embedding
import vislens_interp.backends.pixel  # noqa: F401 (each registers its backend)
from vislens_interp import __version__
from vislens_interp.atlas.fitted import AtlasFit
from vislens_interp.atlas.pictures import decode_jpeg, encode_jpeg, thumbnails
from vislens_interp.atlas.population import describe_population, layer_map
from vislens_interp.atlas.readout import check_null, fit_readouts
from vislens_interp.atlas.run import RunSettings, check_pictures, loop_of, refuse_other_files, run
from vislens_interp.atlas.sparse import SparseFeatures, units_of
from vislens_interp.atlas.store import FIT, READING, AtlasStore, arrow, short_hash
from vislens_interp.backends.base import DEFAULT_BACKEND, Backend, get_backend
from vislens_interp.config import MIN_IMAGES
from vislens_interp.copies import permuted_rows, top_rows
from vislens_interp.evaluation.words import readout_of
from vislens_interp.files import check_writable, clear_leftovers, fingerprint, load_state, save_state
from vislens_interp.images import ImageSource, load_images
from vislens_interp.landscape.evidence import DRAWS
from vislens_interp.landscape.fit import split_rows
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.math import ridge_gcv
from vislens_interp.methods.prototypes import likeness, prototype_rows
from vislens_interp.models import load_model
from vislens_interp.progress import tqdm
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.reading import Reading
from vislens_interp.targets.target import Target
from vislens_interp.validation import check_counts, check_switches, check_whole, check_word

Words = Callable[[Tensor], Sequence[Sequence[str]]]
"""Directions (K, E) in the embedding, each of length 1, to words for each."""
WORDS, SURE, CHANCE = 5, 0.95, 200
"""Words of a unit at most, the share of chance that one has to beat, and about how many units chance is drawn from."""
ORDERS = ("selectivity", "sparsity", "correlation")
"""What the best units of a layer may be best by."""
BLOCK = 512
"""Images between two files of an unfinished reading."""


class Atlas:
    """Every unit of a layer: evidence, top images, pictures, words and neighbours, in one folder.

    What a lens computes and the atlas too, from the same split, controls and permutations: the linear read-out of a
    unit's axis, its held-out correlation, its p-value. What the atlas leaves out: the training of a VAE after that
    start, and a lens's small networks beside the linear read-out. Its pictures climb the linear read-out alone, which
    costs the same for many units as for one.

    Args:
        model: The network, a name such as ``"zoo:efficientnet_lite2"``, which worker processes need, or a
            :class:`~vislens_interp.targets.Target`. It is never changed or moved.
        layer: Dotted name of a layer, the module itself, or None for the model's own output.
        images: At least 200 reference images: a tensor, paths, a folder or a :class:`ReferenceSet`; None takes the
            backend's own.
        backend: Name of a backend, or a backend.
        weights: Safetensors file of a model that is given by name.
        sae: Folder of a sparse autoencoder over the layer, or its :class:`SparseFeatures`: its latents are the units
            then. Worker processes need the folder.
        words: Directions (K, E) in the embedding, of length 1, to a list of words for each; None takes the words that
            travel with the package, where they read the backend's embeddings and do not come from the model's own head.
        seed: Of the split, the controls, the map, and the random weights of a model by name without ``weights``.
        reading: How the layer is read, see :class:`~vislens_interp.targets.LayerTarget`.

    Attributes (after ``fit``):
        fit_: The numbers of all units.

    Raises:
        ValueError, TypeError, KeyError: An argument does not fit the model; the message says how.

    >>> from vislens_interp import zoo
    >>> atlas = Atlas(zoo.load("cifar10_convnet"), "conv3", backend="cifar10")
    >>> len(atlas.target.names)
    128
    """

    def __init__(
        self,
        model: nn.Module | Target | str,
        layer: str | nn.Module | None = None,
        images: ImageSource | ReferenceSet | None = None,
        *,
        backend: str | Backend = DEFAULT_BACKEND,
        weights: str | None = None,
        sae: SparseFeatures | str | Path | None = None,
        words: Words | None = None,
        seed: int = 0,
        **reading: Unpack[Reading],
    ) -> None:
        self.origin: dict[str, Any] | None = None
        if isinstance(model, str):
            self.origin = _origin(model, weights, layer, backend, sae, seed, reading)
            model = load_model(model, weights, seed)
        elif weights is not None:
            raise ValueError(f"weights={weights!r} goes with a model by name; expected none with a network. Load them.")
        if isinstance(model, Target):
            if layer is not None or sae is not None or reading:
                raise ValueError("layer, sae and reading go with a network; a target says itself what it reads.")
            self.target: Target = model
        else:
            self.target = units_of(model, layer, sae, **reading)
        self.backend = get_backend(backend, self.target.device)
        self.images, self.words, self.seed = images, words, seed
        self.fit_: AtlasFit | None = None

    def fit(
        self,
        folder: str | Path | None = None,
        *,
        inputs: ImageSource | int = 6,
        top_images: int = 8,
        shuffles: int = 2,
        draws: int = DRAWS,
        progress: bool = False,
    ) -> Self:
        """Read the layer once, embed the reference images once, and fit all units together.

        Args:
            folder: Where the fit is kept, so that an interrupted reading goes on and a finished fit is opened.
            inputs: What pictures start from: how many prototypes of each unit (see
                :class:`~vislens_interp.methods.Prototypes`), first those that drive it, then as many that do not; or
                images, which all units share; 0 for no pictures.
            top_images: Kept for every unit.
            shuffles, draws: Shuffled controls and permutations of each unit's null; the p-value is at least
                1 / (1 + draws). More draws let weaker units of a large layer pass the false-discovery rate.
            progress: Show progress bars.

        Raises:
            ValueError: Too few images, no unit that varies, a backend that makes no pictures, or the folder holds
                another fit.
        """
        check_counts(top_images=top_images)
        check_null(shuffles, draws)
        if isinstance(inputs, int):
            check_whole(0, inputs=inputs)
            given: int | tuple[Tensor, list[str]] = inputs
        else:
            given = load_images(inputs, size=self.backend.size)
        if given:
            loop_of(self.backend)
        reference = ReferenceSet.for_fit(self.backend, self.images)
        if len(reference) < MIN_IMAGES:
            raise ValueError(
                f"images holds {len(reference)} images; an atlas needs at least {MIN_IMAGES} to be more than noise."
                " Give more reference images."
            )
        if isinstance(given, int):
            if given > len(reference) // 2:
                raise ValueError(
                    f"inputs={given}, of {len(reference)} reference images; expected at most half. Ask for fewer."
                )
            chosen: dict[str, Any] = {"inputs": given, "prototypes": True}
        else:
            chosen = {"inputs": fingerprint({"inputs": given[0]})}
        settings = {**chosen, "top_images": top_images, "shuffles": shuffles, "draws": draws, "seed": self.seed}
        about = self._about(reference, settings)
        key = short_hash(about)
        place = None if folder is None else Path(folder)
        if place is not None:
            check_writable(place / FIT)
            if (place / FIT).is_file():
                self.fit_ = AtlasFit.load(place / FIT, key)
                _clear(place / READING)  # a kill may have come between
                return self
        responses = self._read(reference, key, place, progress)
        self.fit_ = self._fit(reference, responses, key, about, given, progress)
        if place is not None:
            self.fit_.save(place / FIT)
            _clear(place / READING)
        return self

    def save(
        self,
        folder: str | Path,
        *,
        units: Sequence[int] | None = None,
        top: int | None = None,
        by: str = "selectivity",
        shard: int = 16,
        edit_size: int | None = None,
        executor: Executor | None = None,
        site: bool = True,
        progress: bool = False,
    ) -> AtlasStore:
        """Make the pictures of all units, and write table, sheets and site; goes on where an earlier call stopped.

        Args:
            folder: Made, or an unfinished or finished atlas of the same fit.
            units: Which units get a row; None: all.
            top: Only so many of them, the best by ``by``: ``"selectivity"``, ``"sparsity"`` or ``"correlation"``.
            by: See ``top``.
            shard: Units that are made and written together: what a kill may cost.
            edit_size: Side in pixels at which the embedder sees pictures while they are edited; None is the backend's
                own, 224. At 128 pictures take half the time, and deep units move less.
            executor: Anything of the form of ``concurrent.futures.Executor``; its workers read model and fit from
                files, so the model has to be given by name. None works in this process.
            site: Write the site too.
            progress: Show a progress bar with an estimate.

        Raises:
            ValueError: The folder holds an atlas of another fit, a unit is not there, or the executor's workers could
                not build the model.
            BlockingIOError: Another process writes this folder.
        """
        check_switches(site=site)
        check_counts(shard=shard, **({} if edit_size is None else {"edit_size": edit_size}))
        if self.fit_ is None:
            self.validate(folder, units=units, top=top, by=by, edit_size=edit_size)
            self.fit(folder, progress=progress)
        assert self.fit_ is not None
        settings = RunSettings(
            chosen_units(self.fit_, units, top, by), shard=shard, site=site, origin=self.origin, edit_size=edit_size
        )
        return run(self.fit_, settings, Path(folder), self.target, self.backend, executor=executor, progress=progress)

    def validate(
        self,
        folder: str | Path,
        *,
        pictures: bool = True,
        units: Sequence[int] | None = None,
        top: int | None = None,
        by: str = "selectivity",
        edit_size: int | None = None,
    ) -> None:
        """Raise now what :meth:`save` would raise of these arguments: before a fit that takes minutes.

        Args:
            folder, units, top, by, edit_size: As for :meth:`save`.
            pictures: Whether the fit has ``inputs``, which the backend has to change.
        """
        arrow()
        check_switches(pictures=pictures)
        _checked_choice(len(self.target.names), units, top, by)
        refuse_other_files(Path(folder))
        check_pictures(self.backend, pictures, edit_size)

    def _about(self, reference: ReferenceSet, settings: Mapping[str, object]) -> dict[str, Any]:
        target = {name: value for name, value in self.target.describe().items() if name not in ("units", "channels")}
        embedder = getattr(self.backend, "embedder", None)
        network = fingerprint(embedder.state_dict()) if isinstance(embedder, nn.Module) else None
        return {
            "target": target,
            "units": len(self.target.names),
            "backend": {"name": self.backend.name, "size": self.backend.size, "embedder": network},
            "reference": {"kind": reference.kind, "images": len(reference), "key": reference.key},
            "settings": {**settings, "words": getattr(self.words, "__qualname__", type(self.words).__name__)},
            "version": __version__,
        }

    def _read(self, reference: ReferenceSet, key: str, folder: Path | None, progress: bool) -> Tensor:
        """Responses (N, K), a block of images at a time; blocks that an earlier run wrote are not read again."""
        blocks = []
        images = reference.images
        with tqdm(total=len(reference), desc="responses", unit="image", disable=not progress) as bar:
            for start in range(0, len(reference), BLOCK):
                rows = range(start, min(start + BLOCK, len(reference)))
                path = None if folder is None else folder / READING / f"{start:08d}.safetensors"
                block = _block(path, key)
                if block is None:
                    parts = torch.tensor(list(rows)).split(64)
                    block = torch.cat([self.target.responses(images[part]) for part in parts])
                    if path is not None:
                        save_state(path, "atlas reading", {"key": key, "responses": block})
                blocks.append(block)
                bar.update(len(rows))
        return torch.cat(blocks)

    def _fit(
        self,
        reference: ReferenceSet,
        responses: Tensor,
        key: str,
        about: dict[str, Any],
        inputs: int | tuple[Tensor, list[str]],
        progress: bool,
    ) -> AtlasFit:
        population = describe_population(responses)
        alive = population.alive
        if not len(alive):
            raise ValueError(
                f"layer {about['target'].get('layer')!r}: none of its {responses.shape[1]} units varies over"
                f" {len(responses)} images. Choose another layer, or give other images."
            )
        config = self.backend.defaults
        x, groups = reference.embeddings(self.backend), reference.groups
        training, held_out = split_rows(len(x), config.replace(seed=self.seed).fit, groups)
        vae = self.backend.vae().eval()
        with torch.no_grad():
            latents = torch.cat([vae.encode(part)[0] for part in x.split(512)])
        mean, std = responses.double().mean(0), responses.double().std(0)
        standard = (responses[:, alive] - mean[alive].float()) / std[alive].float()
        scale, settings = config.prior.axis_scale_sd, about["settings"]
        draws = {name: settings[name] for name in ("shuffles", "draws", "seed")}
        readouts = fit_readouts(
            latents, standard, groups, training, held_out, axis_scale_sd=scale, progress=progress, **draws
        )
        directions = chance = torch.zeros(len(alive), 0)
        if isinstance(vae, EmbeddingVAE):
            read = vae.fc_encode.weight.detach()[: vae.latent_dim].cpu()
            directions = scale * (readouts.filters.T @ read)
            some = standard[:, :: max(1, len(alive) // CHANCE)]
            chance = _chance(latents.cpu(), some, groups, training, self.seed) @ read
        places = torch.full((responses.shape[1], 2), torch.nan)
        places[alive] = layer_map(standard, self.seed)
        tops = torch.full((responses.shape[1], settings["top_images"]), -1, dtype=torch.int64)
        for unit in alive.tolist():
            rows = top_rows(responses[:, unit], groups, tops.shape[1])
            tops[unit, : len(rows)] = torch.tensor(rows)
        shown = tops[tops >= 0].unique()
        starts = self._inputs(reference, responses, alive, inputs, progress)
        return AtlasFit(
            key=key,
            about=about,
            names=list(self.target.names),
            readouts=readouts,
            population=population,
            directions=directions,
            mean=mean.float(),
            std=std.float(),
            responses=responses,
            places=places,
            top_rows=tops,
            image_names=list(reference.names),
            words=self._words(x[training].cpu(), directions, chance, alive, responses.shape[1]),
            **starts,
            thumbnails=torch.cat([thumbnails(reference.images[part]) for part in shown.split(64)]),
            thumbnail_rows=shown,
        )

    def _inputs(
        self,
        reference: ReferenceSet,
        responses: Tensor,
        alive: Tensor,
        inputs: int | tuple[Tensor, list[str]],
        progress: bool,
    ) -> dict[str, Any]:
        """What pictures of every unit start from, as :class:`AtlasFit` keeps it."""
        if isinstance(inputs, int):
            rows = torch.full((responses.shape[1], inputs), -1)
            like, half = likeness(self.backend, reference) if inputs else torch.zeros(0), (inputs + 1) // 2
            for unit in tqdm(alive.tolist() if inputs else [], desc="prototypes", unit="unit", disable=not progress):
                up, down = prototype_rows(like, responses[:, unit], reference.groups, half)
                rows[unit] = torch.cat([up, down[: inputs - half]])
            shown = rows[rows >= 0].unique()
            rows[alive] = torch.searchsorted(shown, rows[alive])
            files = [file for part in shown.split(BLOCK) for file in encode_jpeg(reference.images[part])]
            names = [reference.names[row] for row in shown.tolist()]
        else:
            pictures, names = inputs
            files = encode_jpeg(pictures)
            rows = torch.full((responses.shape[1], len(files)), -1)
            rows[alive] = torch.arange(len(files))
        blocks = (slice(start, start + BLOCK) for start in range(0, len(files), BLOCK))
        parts = (decode_jpeg(files[block], names[block]) for block in blocks)
        read = [torch.zeros(0, responses.shape[1]), *(self.target.responses(part) for part in parts)]
        return {"inputs": files, "input_names": names, "input_responses": torch.cat(read), "input_rows": rows}

    def _words(self, x: Tensor, directions: Tensor, chance: Tensor, alive: Tensor, count: int) -> list[list[str]]:
        """Words of every unit: of the direction in which embeddings differ where the predicted response does.

        Of the words that travel with the package those count whose score is larger than any word's along 95 % of the
        directions that permuted responses have.
        """
        found: list[list[str]] = [[] for _ in range(count)]
        if not directions.shape[1]:
            return found
        centred = x - x.mean(0)
        covariance = centred.T @ centred / len(x)
        patterns = directions @ covariance  # Haufe et al. 2014, up to each one's length
        if self.words is not None:
            said = self.words(patterns / patterns.norm(dim=1, keepdim=True).clamp_min(1e-30))
        else:
            readout = readout_of(self.backend)
            if readout is None or readout.teacher == self.target.describe().get("fingerprint"):
                return found
            floor = readout.scores(chance @ covariance, x).abs().amax(1).quantile(SURE)
            best = readout.scores(patterns, x).topk(min(WORDS, len(readout.words)), dim=1)
            said = [
                [readout.words[place] for place, score in zip(places, scores, strict=True) if score > floor]
                for places, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        for unit, words in zip(alive.tolist(), said, strict=True):
            found[unit] = [str(word) for word in words]
        return found


def _chance(latents: Tensor, standard: Tensor, groups: Tensor, training: Tensor, seed: int) -> Tensor:
    """Filters (units, D) that the closed form finds for permuted responses (N, units); copies keep one response."""
    generator = torch.Generator().manual_seed(seed + 2)
    permuted = torch.stack([column[permuted_rows(groups, generator)][training] for column in standard.T], 1).double()
    codes = latents[training].double()
    return ridge_gcv(codes - codes.mean(0), permuted - permuted.mean(0)).T.float()


def _origin(
    model: str,
    weights: str | None,
    layer: str | nn.Module | None,
    backend: str | Backend,
    sae: SparseFeatures | str | Path | None,
    seed: int,
    reading: Reading,
) -> dict[str, Any] | None:
    """How a worker builds the same model and backend, as JSON values; None where an argument is an object."""
    said = {"model": model, "layer": layer, "backend": backend, "seed": seed, "reading": dict(reading)}
    said["weights"] = weights and os.path.abspath(weights)  # a worker may start in another folder
    if sae is not None:
        said["sae"] = os.path.abspath(sae) if isinstance(sae, (str, Path)) else sae
    try:
        return json.loads(json.dumps(said))
    except TypeError:
        return None


def chosen_units(fit: AtlasFit, units: Sequence[int] | None, top: int | None, by: str) -> list[int]:
    """The units that get a row, in their order.

    Raises:
        ValueError: A unit is not there, or an order is unknown.
    """
    count = len(fit.names)
    chosen = _checked_choice(count, units, top, by)
    if top is None:
        return chosen
    scores = {"selectivity": fit.population.selectivity, "sparsity": fit.population.sparsity}
    correlation = torch.full((count,), torch.nan, dtype=torch.float64)
    correlation[fit.population.alive] = fit.readouts.correlation.double()
    scores["correlation"] = correlation
    best = scores[by][chosen].nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)[:top]
    return sorted(chosen[place] for place in best.tolist())


def _checked_choice(count: int, units: Sequence[int] | None, top: int | None, by: str) -> list[int]:
    """The units among which ``top`` chooses, in their order, of a layer of so many."""
    chosen = list(range(count)) if units is None else sorted({int(unit) for unit in units})
    if not chosen or chosen[0] < 0 or chosen[-1] >= count:
        raise ValueError(f"units={_short(chosen)}, but the layer has units 0 to {count - 1}; expected some of these.")
    check_counts(**({} if top is None else {"top": top}))
    check_word("by", by, ORDERS)
    return chosen


def _short(units: list[int]) -> str:
    return repr(units) if len(units) <= 6 else f"[{units[0]}, ..., {units[-1]}]"


def _block(path: Path | None, key: str) -> Tensor | None:
    """A block of an earlier reading of the same, or None."""
    if path is None or not path.is_file():
        return None
    try:
        state = load_state(path, "atlas reading")
    except ValueError:
        return None
    return state["responses"] if state.get("key") == key else None


def _clear(folder: Path) -> None:
    """Remove the blocks of a finished reading, whole names only, and what killed processes left among them."""
    clear_leftovers(folder)
    for path in sorted(folder.glob("*.safetensors")):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
