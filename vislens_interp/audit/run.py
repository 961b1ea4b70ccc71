"""An audit of one unit: its material, the tests in their order, and the rows that come out."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vislens_interp.audit.full import RANDOM, identification, interpretability, randomisation, transfer
from vislens_interp.audit.material import Material, independent_judge
from vislens_interp.audit.paths import TEST as PATHS
from vislens_interp.audit.paths import paths
from vislens_interp.audit.prediction import SHUFFLED, prediction, shuffled
from vislens_interp.audit.result import AuditResult, Row
from vislens_interp.copies import picture_groups
from vislens_interp.evaluation.compare import name_methods
from vislens_interp.images import ImageSource, load_images
from vislens_interp.landscape.calibration import operating_point
from vislens_interp.methods.base import Method
from vislens_interp.random_state import check_seed
from vislens_interp.targets.selectors import OneUnit
from vislens_interp.validation import check_functions, check_switches

if TYPE_CHECKING:
    from vislens_interp.lens import FeatureLens

AUDITED = ("edit", "edited_prototypes", "natural_images", "random_images")
"""Ours, of any photographs and of a unit's prototypes; the bar; and a control that has to fail."""
PICTURES, PICTURES_FULL = 8, 9
"""Pictures each way that a method is judged by; the machine interpretability score takes nine. A method that has fewer
different ones, such as eight prototypes, is judged by these."""
FEWEST = 20
"""Photographs that judge, at least: of fewer, intervals hold everything."""
REPEATS = 3
"""Shuffled fits of a full audit; a quick one has one."""


def audit(
    lens: "FeatureLens",
    images: ImageSource | None = None,
    methods: Sequence[str | Method] | Mapping[str, str | Method] = AUDITED,
    *,
    full: bool = False,
    unit: OneUnit | str | None = None,
    judge: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> AuditResult:
    """Test whether pictures of a unit are to be believed: do they say how it treats photographs that nobody edited?

    Every test can fail, and says what its outcome means; no score sums them up.

    Args:
        lens: It is fitted first if it is not.
        images: Photographs that the fit has not seen, 28 at least (29 with ``full``): the first few are edited, the
            others judge. None takes the reference pictures that the fit held out. A loaded lens without reference
            images takes the tests that need none.
        methods: Names, or methods; a mapping of label to either gives them other labels.
        full: Beside prediction, shuffled responses and paths also random weights, transfer, identification and an
            uncalibrated machine interpretability score. Minutes, for networks with random weights are fitted too.
        unit: Which unit of a lens on several.
        judge: Images (N, 3, S, S) in [0, 1] to features: of a network that is neither the landscape's nor the target's.
            None takes SqueezeNet from the zoo, or EfficientNet-Lite2 where the target is a SqueezeNet.
        seed: Of noise, permutations and the bootstrap.

    Raises:
        ValueError: Too few images are left to judge, or the fit learned from some of them.
    """
    check_switches(full=full)
    check_functions(judge=judge)
    named = name_methods(methods)
    check_seed(seed)
    place, count = lens.index(unit), PICTURES_FULL if full else PICTURES
    given = None if images is None else open_photographs(images, lens.backend.size, full=full)
    lens.fit_if_needed()
    inputs, photographs, groups = _split(lens, given, count)
    started = time.perf_counter()
    see, judge_name = (judge, "given") if judge is not None else independent_judge(lens.target, lens.backend.size)
    material = Material(lens, place, inputs, photographs, groups, see, seed)
    rows = [row for label, given in named.items() for row in rows_of(material, label, given, full=full)]
    counts = {label: len(made["increase"]) for label, made in material.pictures.items()}
    fewer = {label: count for label, count in counts.items() if count < len(inputs)}
    described = lens.target.describe()
    return AuditResult(
        unit=lens.target.names[place],
        layer=described.get("layer", ""),
        model=described.get("model", type(lens.target).__name__),
        rows=tuple(rows),
        pictures={label: made["increase"] for label, made in material.pictures.items()},
        settings={
            "judge": judge_name,
            "photographs": len(groups.unique()),
            "crops": len(photographs),
            "pictures": len(inputs),
            **({"fewer pictures": fewer} if fewer else {}),
            "full": full,
            "seed": seed,
            "seconds": round(time.perf_counter() - started, 1),
            "evidence": None if (known := lens.evidence_.get(lens.target.names[place])) is None else str(known),
            "operating point": operating_point(known),
        },
    )


def rows_of(material: Material, label: str, given: str | Method, *, full: bool = False) -> list[Row]:
    """The rows of one method."""
    try:
        maker = material.lens.maker(given)
    except ValueError as error:  # it cannot work here: no gradients, synthetic images
        return [Row(label, "all tests", f"Not run: {error}")]
    rows = prediction(material, label, maker)
    if material.lens.reference_set.has_images:
        rows += shuffled(material, label, given, maker, REPEATS if full else 1) + paths(material, label, maker)
        rows += randomisation(material, label, given, maker) if full else []
    else:
        why = "Not run: it needs the reference images, which a loaded lens does not have; call fit first."
        rows += [Row(label, test, why) for test in (SHUFFLED, PATHS, *([RANDOM] if full else []))]
    for test in (transfer, identification, interpretability) if full else ():
        rows += test(material, label, maker)
    return rows


def open_photographs(images: ImageSource, size: int, *, full: bool) -> tuple[Tensor, Tensor]:
    """Photographs (N, 3, size, size), and (N,) which are crops of one; ValueError where too few are left to judge."""
    pictures = load_images(images, size=size)[0]
    return pictures, _enough(picture_groups(pictures), PICTURES_FULL if full else PICTURES)


def _enough(groups: Tensor, count: int) -> Tensor:
    if len(groups.unique()) < count + FEWEST:
        raise ValueError(
            f"images holds {len(groups.unique())} different photographs; expected at least {count + FEWEST}: {count} "
            "are edited, and the others judge. Pass more."
        )
    return groups


def _split(lens: "FeatureLens", given: tuple[Tensor, Tensor] | None, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Photographs to edit (K, 3, S, S), those that judge (N, 3, S, S), and (N,) which of them are crops of one."""
    if given is None:
        reference = lens.reference_set
        rows = reference.held_out_rows
        pictures, groups = reference.images[rows], _enough(reference.groups[rows], count)
    else:
        pictures, groups = given
        if known := lens.reference_set.learned_count(pictures):
            raise ValueError(
                f"images holds {known} images that the fit learned from; expected images that it has not seen. Leave "
                "those out."
            )
    first = {int(group): row for row, group in reversed(list(enumerate(groups.tolist())))}
    order = sorted(first)
    chosen = order[:: len(order) // count][:count]
    kept = ~torch.isin(groups, torch.tensor(chosen, dtype=groups.dtype))
    return pictures[[first[group] for group in chosen]], pictures[kept], groups[kept]
