"""What is said before an answer: arguments that cannot work, images that were learned from, units that are others."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

import torch

from vislens_interp.evaluation.words import WordReadout
from vislens_interp.landscape.prior import UnitSenses, check_mode
from vislens_interp.math import pearson
from vislens_interp.methods import method_by_name
from vislens_interp.methods.base import Method
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.target import LayerTarget, Target
from vislens_interp.validation import check_number, check_several

if TYPE_CHECKING:
    from vislens_interp.lens import FeatureLens

OURS = ("edit", "optimize")
COMPARED = 256
"""Reference images on which a network is compared with measured responses."""
ALIKE, TIMES = 0.1, 10
"""A lower correlation, or spreads further apart: the network's responses are no match for the measured ones."""


def check_method(method: object, where: str = "method is") -> None:
    """Raise TypeError for what is neither a name nor a method."""
    if not isinstance(method, (str, Method)):
        raise TypeError(f"{where} a {type(method).__name__}; expected a name, or a Method such as RidgePattern().")


def check_reference(method: str | Method, maker: Method, reference: ReferenceSet) -> None:
    """Raise ValueError for another method than ours where the lens's reference images are absent, or will not do."""
    name = f"method={method!r}" if isinstance(method, str) else f"method {type(method).__name__}()"
    if not reference.has_images:
        raise ValueError(
            f"{name} is fitted on the reference images, which a loaded lens does not have; call fit first, or use "
            "'edit'."
        )
    if maker.shows_reference and reference.synthetic:
        raise ValueError(
            f"{name} shows reference images as natural ones, and those of this lens are synthetic. Fit on photographs "
            "first, or look at top_images()."
        )


class Choices(TypedDict):
    """How pictures are made, by the arguments of ``FeatureLens.visualize``, which says what each of them means."""

    method: str | Method
    alpha: float | None
    strength: float | None
    judge: Target | None
    mode: int | None
    alphas: Sequence[float]


def validate_visualize(lens: "FeatureLens", direction: UnitSenses, **choices: Unpack[Choices]) -> None:
    """Raise what a visualisation with these arguments would raise; nothing is computed."""
    method, alphas, mode, judge = choices["method"], choices["alphas"], choices["mode"], choices["judge"]
    check_method(method)
    check_several("alphas", alphas, f"[{alphas}]")
    for one in alphas:
        check_number("alphas", one)
    name = method if isinstance(method, str) else type(method).__name__
    maker = method_by_name(method) if isinstance(method, str) else method
    if mode is not None and method not in OURS:
        raise ValueError(f"mode={mode} names a mean of the landscape's prior, which {name!r} does not have.")
    if mode is not None:  # a lens that is fitted on its way gets the backend's number of means
        fitted = lens.method_ is not None
        check_mode(mode, lens.landscape_.prior.modes if fitted else lens.backend.defaults.prior.modes)
    maker.check_used(name, alpha=choices["alpha"], strength=choices["strength"])
    if method != "edit" and len(alphas) > 0:
        raise ValueError(f"alphas={list(alphas)} are weights of method='edit', not of {name!r}. Leave alphas out.")
    if any(not 0 < one <= 1 for one in alphas):
        raise ValueError(f"alphas={list(alphas)} must lie in (0, 1]; each direction is taken at every one of them.")
    maker.validate(lens.target, lens.backend)
    if lens.method_ is not None and method not in OURS:
        check_reference(method, maker, lens.reference_set)
    if judge is not None and not isinstance(judge, Target):
        raise TypeError(
            f"judge is a {type(judge).__name__}; expected a Target, which says what is read of a network. Pass "
            "LayerTarget(model, layer, unit)."
        )
    if judge is not None and len(judge.names) != len(lens.target.names):
        raise ValueError(
            f"judge reads {len(judge.names)} units ({', '.join(judge.names)}); expected {len(lens.target.names)}, "
            f"one for each of the lens's ({', '.join(lens.target.names)}), in their order."
        )
    if judge is not None and lens.method_ is not None and not lens.reference_set.has_images:
        raise ValueError("judge= needs the reference images, which a loaded lens does not have; call fit first.")
    lens.moves(direction)


def validate_unfitted(lens: "FeatureLens", method: str | Method) -> None:
    """Raise ValueError where a lens is fitted on its way, on images of its backend that the method cannot show."""
    reference = ReferenceSet.of_backend(lens.backend) if lens.method_ is None else None
    if reference is not None and method not in OURS:
        check_reference(method, method_by_name(method) if isinstance(method, str) else method, reference)


def check_words(lens: "FeatureLens", method: str | Method, words: WordReadout | None) -> None:
    """Raise TypeError for what reads no words, ValueError for a read-out that cannot read these pictures' edits."""
    if words is None:
        return
    if not isinstance(words, WordReadout):
        raise TypeError(f"words is a {type(words).__name__}; expected a WordReadout, such as WordReadout.of_clip(...).")
    if method not in OURS:
        name = method if isinstance(method, str) else type(method).__name__
        raise ValueError(
            f"words= has no effect on method {name!r}: words are read of the lens's own edits. Leave it out."
        )
    if lens.backend.shape != (len(words.weights),):
        raise ValueError(
            f"words reads embeddings of {len(words.weights)} dimensions, and x of backend {lens.backend.name!r} has "
            f"shape {lens.backend.shape}; expected the same. Leave words out, or pass a read-out for this backend."
        )


def warn_of_other_units(target: Target, reference: ReferenceSet) -> None:
    """A network's pictures are read by the network, in SDs of what was measured: say so where they are no match."""
    measured = reference.responses
    if not isinstance(target, LayerTarget) or measured is None:
        return  # an encoder was fitted to recordings
    if measured.shape != (len(reference), len(target.names)) or not measured.isfinite().all():
        return  # what does not fit is refused later
    rows = torch.linspace(0, len(reference) - 1, min(COMPARED, len(reference))).long().tolist()
    own, given = reference.at(rows).read_by(target), measured[rows].cpu()
    for name, r, spread, wanted in zip(
        target.names, pearson(own, given).tolist(), own.std(0).tolist(), given.std(0).tolist(), strict=True
    ):
        if r < ALIKE or not wanted / TIMES < spread < wanted * TIMES:
            warnings.warn(
                f"responses have a standard deviation of {wanted:.3g}, and unit {name} of the network, which reads "
                f"the pictures, one of {spread:.3g} and a correlation of {r:.2f} with them over {len(rows)} "
                "reference images: response changes in SDs of the measured responses mean little. Pass judge= to "
                "visualize, or a target that was fitted to the measured responses.",
                stacklevel=4,
            )


def learned_from(reference: ReferenceSet, keys: Sequence[str]) -> int:
    """How many images, by their keys, the fit learned from."""
    return sum(key in reference.learned_keys for key in keys)


def warn_of_overlap(reference: ReferenceSet, keys: Sequence[str]) -> None:
    """Warn of images that the fit learned from, by their keys: their changes may be better than those of others."""
    if count := learned_from(reference, keys):
        warnings.warn(
            f"{count} of {len(keys)} images to edit are among those that the landscape was fitted on "
            f"({reference.kind}); their changes may be better than those of other images. Edit images "
            "that the fit has not seen, or fit on others.",
            stacklevel=4,
        )
