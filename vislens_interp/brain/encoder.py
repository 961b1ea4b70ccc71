"""The in-silico encoder: a network whose forward pass predicts the responses of brain regions to pictures."""

from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from vislens_interp.brain.backbone import GRID, Backbone, Features
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.predictivity import Predictivity, predictivity
from vislens_interp.brain.readers.trials import refuse_without
from vislens_interp.brain.readouts import RidgeReadout, TransformerReadout
from vislens_interp.brain.responses import Rows, places_of
from vislens_interp.files import load_state, rebuilding, save_state
from vislens_interp.preprocess import Preprocess
from vislens_interp.schema import check_finite, check_schema
from vislens_interp.validation import check_switches, check_whole, check_word

Readout = Literal["ridge", "transformer"]
READOUTS = {"ridge": RidgeReadout, "transformer": TransformerReadout}
SCHEMA = {
    "card": {
        **dict.fromkeys(("backbone", "backbone_fingerprint", "units", "input"), str),
        **dict.fromkeys(("grid", "seeds", "seed", "learnt_from", "held_out"), int),
        "readout": frozenset(READOUTS),
        "layers": [str],
        "name": (str, None),
        "settings": {str: object},
        "predictivity": [{str: (str, Real, None)}],
    },
    "targets": [str],
    "force": bool,
    "shift": Tensor,
    "scale": Tensor,
    "members": [{str: Tensor}],
}
"""What a saved encoder holds."""
HELD_OUT = 0.2
BAG = 0.9
"""Share of the training images that each member of a ridge ensemble sees; one alone sees all."""


class InSilicoEncoder(nn.Module):
    """Predicts responses to any picture: images (N, 3, H, W) in [0, 1] to (N, targets), in the recordings' units.

    A frozen backbone, the outputs of all its layers, and a read-out that is fitted to recordings. It is a network like
    any other to a lens: ``FeatureLens(encoder, unit="FFA-1")``.

    Args:
        backbone: A network, which is copied; ``"zoo:NAME"``; timm's name of one, such as
            :data:`~vislens_interp.brain.backbone.DINOV2` (the paper's); or a :class:`Backbone`, which several share.
        readout: ``"ridge"``, a penalty for each target by cross-validation; or ``"transformer"``, the paper's.
        layers, preprocess, grid: As :class:`~vislens_interp.brain.backbone.Backbone`.
        seeds: Members of the ensemble, whose mean is the prediction and whose :meth:`spread` says how sure it is:
            transformers of different starts, ridges of different nine tenths of the images.
        force: Let lenses point at targets that are not predicted above chance; they stay marked.
        settings: Of the read-out, such as ``width=``, ``epochs=`` of :class:`TransformerReadout`.

    Attributes (after ``fit``):
        targets: Names of the targets; ``labels`` is the same, for ``unit=`` by name.
        card: What it was fitted on and how well it predicts, as JSON values.
        predictivity_: R, R² and noise ceiling of every target on held-out images.

    Source: Sec. 4.2 and App. D. The backbone is not CLIP, so that the estimate is not that of what made the pictures.
    """

    output_layout = "NC"
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: nn.Module | str | Backbone,
        readout: Readout = "ridge",
        *,
        layers: Sequence[str] | None = None,
        preprocess: object = None,
        grid: int = GRID,
        seeds: int = 1,
        force: bool = False,
        seed: int = 0,
        name: str | None = None,
        **settings: float,
    ) -> None:
        super().__init__()
        check_switches(force=force)
        check_word("readout", readout, READOUTS)
        check_whole(1, seeds=seeds)
        if not isinstance(backbone, Backbone):
            backbone = Backbone(backbone, layers, preprocess=preprocess, grid=grid)
        _fresh(readout, backbone, 1, settings)  # wrong settings fail here, not after hours of features
        self.backbone = backbone
        self.readout: Readout = readout
        self.seeds, self.force, self.seed, self.name, self.settings = seeds, force, seed, name, settings
        self.preprocess = Preprocess(backbone.size, [0.0], [1.0])
        self.targets: list[str] = []
        self.card: dict[str, Any] = {}
        self.predictivity_: list[Predictivity] = []
        self.members = nn.ModuleList()

    @property
    def labels(self) -> list[str]:
        """The targets' names, one an output; ValueError before a fit, when no target can be pointed at."""
        self._refuse_unfitted()
        return self.targets

    @property
    def doubts(self) -> dict[str, str]:
        """Target to why it is not to be trusted."""
        return {item.target: item.doubt for item in self.predictivity_ if item.doubt is not None}

    @property
    def refused(self) -> dict[str, str]:
        """Targets that a lens may not point at, and why; none with ``force=True``."""
        remedy = "fit with force=True to look at it nevertheless, marked"
        return {} if self.force else {name: f"{doubt}; {remedy}" for name, doubt in self.doubts.items()}

    def fit(
        self,
        dataset: BrainDataset,
        *,
        rows: Rows | None = None,
        held_out: Rows | None = None,
        features: Features | None = None,
        cache: str | Path | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> Self:
        """Fit the read-out to recordings, and see on held-out images how well it predicts.

        Args:
            dataset: Images and recordings; files are read to make features, never all at once.
            rows: Images to learn from, as :meth:`BrainDataset.take` has them; None is all but the held-out ones.
            held_out: Images that only :attr:`predictivity_` is read from; None draws a fifth of the pictures.
            features: What ``backbone.read(dataset.images)`` gave, if it is there already.
            cache, checkpoint: Folders in which features are kept, and what an interrupted training goes on from.

        Raises:
            TypeError, ValueError: Rows overlap or are not there, or a target has too few responses.
            ImportError: himalaya is missing.
        """
        self._refuse_without_himalaya()
        count = len(dataset)
        if held_out is None:
            held_out, rows = split_images(dataset, HELD_OUT, seed=self.seed, rows=rows)
        held_out = torch.tensor(places_of(held_out, count, "held_out"))
        if rows is None:
            rows = sorted(set(range(count)) - set(held_out.tolist()))
        rows = torch.tensor(places_of(rows, count))
        self._check_rows(rows, held_out, dataset.keys)
        responses = dataset.mean_responses().float()
        if (few := responses[held_out].isfinite().sum(0) < 3).any():  # which predictivity refuses, after hours
            raise ValueError(
                f"held_out: target {dataset.targets[int(few.nonzero()[0])]!r} has less than 3 responses among these "
                f"{len(held_out)} images; expected at least 3. Hold more images out, or leave it out."
            )
        if features is None:
            features = self.backbone.read(dataset.images, cache=cache, progress=progress)
        if len(features) != count:
            raise ValueError(
                f"features holds {len(features)} images, and the dataset {count}; expected the same. Read them again."
            )
        self.targets = list(dataset.targets)
        self._scale(responses[rows])
        standard = (responses - self.shift.cpu()) / self.scale.cpu()
        self.members = nn.ModuleList()
        numbers = {key: number for number, key in enumerate(dict.fromkeys(dataset.keys))}
        pictures = torch.tensor([numbers[key] for key in dataset.keys])
        places = [] if checkpoint is None else [Path(checkpoint) / f"member{n}.safetensors" for n in range(self.seeds)]
        for member in range(self.seeds):
            part = rows
            if self.seeds > 1 and self.readout == "ridge":
                draw = torch.Generator().manual_seed(self.seed + member)
                part = rows[torch.randperm(len(rows), generator=draw)[: max(2, round(BAG * len(rows)))]]
            readout = _fresh(self.readout, self.backbone, len(self.targets), self.settings)
            place, seed = places[member] if places else None, self.seed + 1000 * member
            readout.fit(features, standard, part, seed=seed, progress=progress, checkpoint=place, pictures=pictures)
            self.members.append(readout.eval().requires_grad_(False))
        for place in places:
            place.unlink(missing_ok=True)
        self.to(self.backbone.device)
        with torch.no_grad():
            read = [self._combine([t.to(self.backbone.device) for t in features[part]]) for part in held_out.split(64)]
        ceilings = _ceilings(dataset)
        self.predictivity_ = predictivity(torch.cat(read).cpu(), responses[held_out], self.targets, ceilings)
        self.card = self._describe(dataset, rows, held_out)
        return self.eval()

    @classmethod
    def fit_pair(
        cls,
        backbone: nn.Module | str | Backbone,
        dataset: BrainDataset,
        readout: Readout = "ridge",
        *,
        rows: Rows | None = None,
        features: Features | None = None,
        cache: str | Path | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
        layers: Sequence[str] | None = None,
        preprocess: object = None,
        grid: int = GRID,
        seeds: int = 1,
        force: bool = False,
        seed: int = 0,
        name: str | None = None,
        **settings: float,
    ) -> tuple[Self, Self]:
        """Maker and judge: two encoders on disjoint halves of the images, each tested on the other's half.

        A picture made for the maker has to move the judge as well, which never saw what the maker learnt from. They
        share the backbone, so that a third network's encoder is a stricter judge still.

        Args:
            rows, features, cache, checkpoint: As :meth:`fit`.
            layers, preprocess, grid, seeds, force, seed, name, **settings: As for the class.

        Returns:
            The maker and the judge: ``FeatureLens(maker, unit="FFA-1").visualize(images, judge=LayerTarget(judge, None,
            "FFA-1"))``.
        """
        check_switches(force=force)
        if not isinstance(backbone, Backbone):
            backbone = Backbone(backbone, layers, preprocess=preprocess, grid=grid)
        build = partial(cls, backbone, readout, seeds=seeds, force=force, seed=seed, **settings)
        maker, judge = build(name=name or "maker"), build(name=name or "judge")
        maker._refuse_without_himalaya()
        first, second = split_images(dataset, 0.5, seed=seed, rows=rows)
        if features is None:
            features = backbone.read(dataset.images, cache=cache, progress=progress)
        for encoder, part, own, other in ((maker, "maker", first, second), (judge, "judge", second, first)):
            place = None if checkpoint is None else Path(checkpoint) / part
            encoder.fit(dataset, rows=own, held_out=other, features=features, checkpoint=place, progress=progress)
        return maker, judge

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to predicted responses (N, targets); gradients flow to the images."""
        return self._combine(self._layers(images))

    @torch.no_grad()
    def spread(self, images: Tensor) -> Tensor:
        """How far the members of the ensemble are apart: their SD, (N, targets); ValueError for one member."""
        if len(self.members) < 2:
            raise ValueError(
                f"seeds={len(self.members)}: one member has no spread; expected several. Fit with seeds=5."
            )
        layers = self._layers(images)
        return torch.stack([member(layers) for member in self.members]).std(0) * self.scale

    def _layers(self, images: Tensor) -> list[Tensor]:
        self._refuse_unfitted()
        return self.backbone(images)

    def _refuse_unfitted(self) -> None:
        if not self.members:
            raise ValueError("this encoder is not fitted; call fit(dataset) or load a saved one first.")

    def _refuse_without_himalaya(self) -> None:
        """Raise ImportError where the read-out needs it; asked before features, which take long."""
        if self.readout == "ridge":
            refuse_without("himalaya", "brain", "readout='ridge'", ", or pass readout='transformer'")

    def _combine(self, layers: list[Tensor]) -> Tensor:
        read = torch.stack([member(layers) for member in self.members]).mean(0)
        return read * self.scale + self.shift

    def _scale(self, responses: Tensor) -> None:
        """Mean and SD of every target over the images that it learns from."""
        recorded = responses.isfinite()
        if (few := recorded.sum(0) < 10).any():
            column = int(few.nonzero()[0])
            raise ValueError(
                f"dataset: target {self.targets[column]!r} has {int(recorded[:, column].sum())} responses among the "
                "images to learn from; expected at least 10. Leave it out, or give more images."
            )
        shift = responses.nanmean(0)
        scale = ((responses - shift) ** 2).nanmean(0).sqrt()
        if (still := scale <= 1e-6 * shift.abs()).any():
            raise ValueError(
                f"dataset: target {self.targets[int(still.nonzero()[0])]!r} never varies over the images to learn "
                "from; expected responses that differ. Leave it out."
            )
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def _check_rows(self, rows: Tensor, held_out: Tensor, keys: list[str]) -> None:
        for argument, chosen in (("rows", rows), ("held_out", held_out)):
            if len(chosen) < 3:
                raise ValueError(f"{argument} holds {len(chosen)} rows for {len(keys)} images; expected at least 3.")
        shared = {keys[row] for row in rows.tolist()} & {keys[row] for row in held_out.tolist()}
        if shared:
            raise ValueError(
                f"rows and held_out share {len(shared)} pictures (copies count); expected none, for a picture that was "
                "learnt says nothing of others. Split with split_images."
            )

    def _describe(self, dataset: BrainDataset, rows: Tensor, held_out: Tensor) -> dict[str, Any]:
        own = ("name", "readout", "settings", "seeds", "seed")
        return {name: getattr(self, name) for name in own} | {
            "subject": dataset.subject,
            "units": dataset.units or "units of the recording",
            "images": len(dataset.images),
            "learnt_from": len(rows),
            "held_out": len(held_out),
            "held_out_rows": held_out.tolist(),
            "backbone": self.backbone.source,
            "backbone_fingerprint": self.backbone.fingerprint(),
            "layers": self.backbone.layers,
            "grid": self.backbone.grid,
            "input": f"RGB in [0, 1], any size; the backbone sees {self.backbone.size} px",
            "chance": "one-sided t-test of the held-out correlation, p < 0.05, for each target by itself",
            "predictivity": [item.to_dict() for item in self.predictivity_],
        }

    def summary(self) -> str:
        """What it is and how well it predicts, in a few lines."""
        self._refuse_unfitted()
        card = self.card
        several = "s" if card["seeds"] > 1 else ""
        what = f"{card['readout']} read-out of {len(card['layers'])} layers of {card['backbone']}"
        learnt = f"learnt from {card['learnt_from']} images, held out {card['held_out']}"
        lines = [
            f"{self.name or 'in-silico encoder'}: {what}, {card['seeds']} member{several}; {learnt}",
            f"subject {card['subject']}; responses in {card['units']}; input: {card['input']}",
        ]
        for item in self.predictivity_:
            ceiling = "unknown" if item.ceiling is None else f"{item.ceiling:.2f}"
            line = f"{item.target}: held-out R = {item.r:.2f} (ceiling {ceiling}), R² = {item.r2:.2f}"
            lines.append(line + ("" if item.doubt is None else f": NOT ABOVE CHANCE, p = {item.p_value:.2f}"))
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Write read-out and card to one file; the backbone's weights are not in it, its fingerprint is."""
        self._refuse_unfitted()
        state = {"card": self.card, "targets": self.targets, "force": self.force, "shift": self.shift}
        state |= {"scale": self.scale, "members": [member.state_dict() for member in self.members]}
        return save_state(path, "in-silico encoder", state)

    @classmethod
    def load(
        cls, path: str | Path, backbone: nn.Module | str | Backbone | None = None, *, preprocess: object = None
    ) -> Self:
        """Read what :meth:`save` wrote.

        Args:
            backbone: The network that it was fitted on, whose weights are compared; None asks timm for it by name.
            preprocess: As :class:`InSilicoEncoder`.

        Raises:
            ValueError: The file is damaged or no encoder, or the backbone is another one.
        """
        state = load_state(path, "in-silico encoder")
        check_schema(state, SCHEMA, f"path={str(path)!r}")
        check_finite(state, f"path={str(path)!r}")
        with rebuilding(path, "card, shift, scale or members"):
            card = state["card"]
            if not isinstance(backbone, Backbone):
                network = card["backbone"] if backbone is None else backbone
                backbone = Backbone(network, card["layers"], preprocess=preprocess, grid=card["grid"])
            if backbone.fingerprint() != card["backbone_fingerprint"] or backbone.layers != card["layers"]:
                raise ValueError(
                    f"backbone {backbone.source} is not the one that path={str(path)!r} was fitted on "
                    f"({card['backbone']}, fingerprint {card['backbone_fingerprint']}); expected the same weights and "
                    "layers. Pass that network."
                )
            kept = {key: card[key] for key in ("seeds", "seed", "name")}
            encoder = cls(backbone, card["readout"], force=state["force"], **kept, **card["settings"])
            encoder.targets, encoder.card = state["targets"], card
            if {state["shift"].shape, state["scale"].shape} != {(len(encoder.targets),)}:
                raise ValueError(f"expected shift and scale of {len(encoder.targets)} targets")
            encoder.predictivity_ = [Predictivity(**item) for item in card["predictivity"]]
            encoder.register_buffer("shift", state["shift"].clone())
            encoder.register_buffer("scale", state["scale"].clone())
            for weights in state["members"]:
                readout = _fresh(card["readout"], backbone, len(encoder.targets), card["settings"])
                readout.load_state_dict(weights)
                encoder.members.append(readout.eval().requires_grad_(False))
            return encoder.to(backbone.device).eval()


def _fresh(
    readout: Readout, backbone: Backbone, targets: int, settings: Mapping[str, object]
) -> RidgeReadout | TransformerReadout:
    """A read-out whose fit chooses its weights; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        return READOUTS[readout](backbone.shapes, targets, **settings)


def split_images(
    dataset: BrainDataset, share: float, *, seed: int = 0, rows: Rows | None = None
) -> tuple[Tensor, Tensor]:
    """Draw a share of the images by picture: rows of the drawn, and of the others; copies of one picture stay together.

    Args:
        share: Of the pictures, between 0 and 1; ``rows`` are those to divide, all if None.

    >>> data = BrainDataset.from_arrays(torch.rand(10, 3, 4, 4), torch.rand(10, 1), targets=["V4"])
    >>> drawn, rest = split_images(data, 0.3)
    >>> len(drawn), len(rest)
    (3, 7)
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share} must lie between 0 and 1: of the pictures, how many are drawn.")
    places: dict[str, list[int]] = {}
    for row in range(len(dataset)) if rows is None else places_of(rows, len(dataset)):
        places.setdefault(dataset.keys[row], []).append(row)
    groups = list(places.values())
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, round(share * len(groups)))
    parts = [sorted(row for number in chosen for row in groups[number]) for chosen in (order[:count], order[count:])]
    return torch.tensor(parts[0], dtype=torch.long), torch.tensor(parts[1], dtype=torch.long)


def _ceilings(dataset: BrainDataset) -> list[float | None]:
    """Noise ceilings as correlations, None where repetitions do not tell."""
    known = [
        name for name, images in zip(dataset.targets, (dataset.counts >= 2).sum(0).tolist(), strict=True) if images > 2
    ]
    found = dict(zip(known, dataset.select(known).noise_ceiling().r.tolist(), strict=True)) if known else {}
    return [found.get(name) for name in dataset.targets]
