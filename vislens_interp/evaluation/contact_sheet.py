"""Many units of a layer on one sheet: read once, fitted in one latent."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vislens_interp.config import MIN_IMAGES, Config
from vislens_interp.copies import top_rows
from vislens_interp.evaluation.visualize import PAPER_SEED
from vislens_interp.evaluation.words import edit_words
from vislens_interp.images import ImageSource, load_images
from vislens_interp.landscape.prior import SENSES, ResponseScaler
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.methods.prototypes import likeness, prototype_rows
from vislens_interp.progress import tqdm
from vislens_interp.random_state import NOISE_SEEDS, check_seed
from vislens_interp.reference import ReferenceSet
from vislens_interp.report.contact_sheet import ContactRow, ContactSheet
from vislens_interp.results.background import TopImages
from vislens_interp.results.result import versions
from vislens_interp.targets.selectors import OneUnit, plain_units, unit_name
from vislens_interp.targets.subset import UnitsOf
from vislens_interp.targets.target import LayerTarget, Target
from vislens_interp.validation import check_counts, check_several, check_shares

if TYPE_CHECKING:
    from vislens_interp.lens import FeatureLens


def contact_sheet(
    lens: "FeatureLens",
    units: Sequence[OneUnit | str],
    images: ImageSource | None = None,
    *,
    reference_set: ImageSource | ReferenceSet | None = None,
    count: int = 4,
    top: int = 4,
    strength: float | None = None,
    seed: int = PAPER_SEED,
    progress: bool = False,
    config: Config | None = None,
    **overrides: object,
) -> ContactSheet:
    """Many units of a lens's layer on one sheet: evidence, top images, preferred and suppressed pictures.

    The reference set is encoded once and read by the whole layer once. All units share one latent, a block each, in
    which they disturb one another a little; a lens of its own shows a unit better.

    Args:
        lens: Whose layer, backend and reference set.
        units: Units of the layer, or names of the units of a target. Unknown, dead and constant ones are listed.
        images: What to edit for every unit, the first ``count`` of it. None takes each unit's prototypes: reference
            images that tell most of its responses, first those that drive it, then as many that do not.
        reference_set: Reference images; None takes those of the lens's fit, else the backend's own.
        count: Inputs of a unit, edited in both directions. Of an odd number of prototypes one more drives the unit.
        top: Top images of a unit.
        strength: SDEdit strength of the refinement; None is the measured default.
        seed: Noise seed of every picture.
        progress: Show progress bars.
        config: Every setting of the fit and the edit; None starts from the backend's defaults.
        overrides: Settings by keyword, as for ``FeatureLens.fit``.

    Returns:
        The sheet: ``.figure()``, ``.html()``, ``.save("sheet.html")``, ``.rows``.

    Raises:
        ValueError: There are no reference images, or none of the units can be shown.
    """
    check_counts(count=count, top=top)
    check_seed(seed, below=NOISE_SEEDS)
    check_shares(strength=strength)
    chosen: dict[str, Any] = {"seed": lens.seed, **overrides}
    fitted = LandscapeEdit(config, **chosen)
    units = plain_units(units)
    check_several("units", units, f"[{units!r}]")
    known, left_out = _aim_at_all(lens.target, units)
    given = None if images is None else load_images(images, size=lens.backend.size)
    reference = _reference_of(lens, reference_set)
    target, responses = _living_units(known, left_out, reference, progress=progress)
    fitted.fit(target, lens.backend, reference.with_responses(responses), progress=progress)
    reference = reference.with_held_out(fitted.landscape_.held_out)
    inputs, choice = _inputs(fitted, reference, given, count)
    rows, in_force = _rows(fitted, reference, inputs, seed, top, strength, progress=progress)
    different = inputs if choice == "prototypes" else inputs[:1]
    learned = sum(reference.learned_count(pictures) for pictures, _ in different)
    described = {name: value for name, value in lens.target.describe().items() if name != "units"}
    layer = f"layer {described['layer']}" if described.get("layer") else "output"
    return ContactSheet(
        title=f"{described['model']}, {layer}",
        rows=rows,
        left_out=left_out,
        settings={
            "units": target.names,
            "backend": lens.backend.name,
            "reference_set": reference.kind,
            "reference_images": len(reference),
            "inputs": {"chosen": choice, "learned": learned},
            **in_force,
            "seed": seed,
            "target": described,
            "settings": fitted.describe(),
            "versions": versions(),
        },
    )


def _reference_of(lens: "FeatureLens", given: ImageSource | ReferenceSet | None) -> ReferenceSet:
    """The reference set of a sheet: given, the lens's, or the backend's; without responses, which are read anew."""
    if given is not None:
        return ReferenceSet.for_fit(lens.backend, given)
    own = lens.reference_set if lens.method_ is not None else None
    if own is not None and own.has_images:
        return own.without_responses()
    backends = ReferenceSet.of_backend(lens.backend)
    if backends is None:
        raise ValueError(
            f"reference_set=None, this lens is not fitted, and backend {lens.backend.name!r} has no reference set; "
            f"pass at least {MIN_IMAGES} images as reference_set=."
        )
    return backends


def _living_units(
    target: Target, left_out: dict[str, str], reference: ReferenceSet, *, progress: bool
) -> tuple[Target, Tensor]:
    """A target that reads all units that vary, and their responses (N, K); why others do not joins ``left_out``."""
    alive, responses = [], reference.read_by(target, progress=progress)
    for column, name in enumerate(target.names):
        try:
            ResponseScaler.fit(responses[:, [column]], [name])
            alive.append(column)
        except ValueError as error:  # dead, constant or not finite
            left_out[name] = str(error)
    if not alive:
        raise _none_shown(left_out)
    return UnitsOf(target, alive), responses[:, alive]


def _none_shown(left_out: dict[str, str]) -> ValueError:
    if not left_out:
        return ValueError("units is empty; expected at least one unit of the layer. Name one.")
    return ValueError(f"units: none of {len(left_out)} can be shown. {' '.join(left_out.values())}")


def _aim_at_all(ours: Target, units: Sequence[OneUnit | str]) -> tuple[Target, dict[str, str]]:
    """One target that reads all of these units that there are, at least one, and why the others are not read."""
    by_name = {unit if isinstance(unit, str) else unit_name(unit): unit for unit in units}
    if not isinstance(ours, LayerTarget):
        columns = [ours.names.index(name) for name in by_name if name in ours.names]
        strange, names = [name for name in by_name if name not in ours.names], ", ".join(ours.names)
        left_out = {name: f"unit {name!r} is not in this target; it has {names}." for name in strange}
        if not columns:
            raise _none_shown(left_out)
        return UnitsOf(ours, columns), left_out

    left_out = {}
    known: list[OneUnit | str] = []
    for name, unit in by_name.items():
        try:
            ours.at([unit])
            known.append(unit)
        except (ValueError, TypeError, KeyError) as error:
            left_out[name] = str(error.args[0])
    if not known:
        raise _none_shown(left_out)
    return ours.at(known), left_out


def _inputs(
    fitted: LandscapeEdit, reference: ReferenceSet, given: tuple[Tensor, list[str]] | None, count: int
) -> tuple[list[tuple[Tensor, list[str]]], str]:
    """Inputs and their names for every unit, the same or its prototypes, and how they were chosen."""
    backend, units = fitted.backend, len(fitted.target.names)
    if given is not None:
        pictures, names = given
        return [(pictures[:count], names[:count])] * units, "given"
    inputs, count = [], min(count, len(reference))
    like, responses = likeness(backend, reference), fitted.landscape_.responses
    for unit in range(units):
        driving, others = prototype_rows(like, responses[:, unit], reference.groups, (count + 1) // 2)
        rows = [*driving.tolist(), *others[: count // 2].tolist()]
        inputs.append((reference.images[rows], [reference.names[row] for row in rows]))
    return inputs, "prototypes"


def _rows(
    fitted: LandscapeEdit,
    reference: ReferenceSet,
    inputs: list[tuple[Tensor, list[str]]],
    seed: int,
    top: int,
    strength: float | None,
    *,
    progress: bool,
) -> tuple[list[ContactRow], dict[str, float | None]]:
    """The row of every unit of a fitted landscape, with its inputs, and the settings in force."""
    target, landscape = fitted.target, fitted.landscape_
    scaler = landscape.scaler
    standard = scaler.standardise(landscape.responses)
    rows, in_force = [], {}
    for unit, (pictures, names) in enumerate(tqdm(inputs, desc="units", disable=not progress)):
        reference.embeddings(fitted.backend)  # stays in memory, however many inputs are embedded after it
        settings: dict[str, Any] = {"seeds": [seed] * len(pictures), "strength": strength}
        known = bool(rows) and rows[-1].inputs is pictures
        unedited = rows[-1].unedited if known else fitted.generate(pictures, {}, **settings).images
        made = {sense: fitted.generate(pictures, {unit: sense}, **settings) for sense in SENSES}
        in_force = made["increase"].settings_in_force
        images = {sense: one.images for sense, one in made.items()}
        shown = {"inputs": pictures, "unedited": unedited, **images}
        read = {key: scaler.standardise(target.responses(one))[:, unit] for key, one in shown.items()}
        said = {sense: edit_words(fitted, {unit: sense}) for sense in SENSES}
        best = top_rows(standard[:, unit].cpu(), reference.groups, top)
        rows.append(
            ContactRow(
                unit=target.names[unit],
                evidence=fitted.evidence_[target.names[unit]],
                top=TopImages(reference.images[best], standard[best, unit], [reference.names[row] for row in best]),
                inputs=pictures,
                unedited=unedited,
                names=names,
                responses={key: read[key] for key in ("inputs", "unedited")},
                images=images,
                words={sense: found for sense, found in said.items() if found is not None},
                response_change={sense: read[sense] - read["unedited"] for sense in SENSES},
            )
        )
    return rows, in_force
