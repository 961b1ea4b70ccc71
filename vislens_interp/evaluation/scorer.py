"""One scorer for every method: finished pictures in, all measures out, with the same networks and natural images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vislens_interp.evaluation.transfer import Transfer
from vislens_interp.landscape.prior import SENSES, ResponseScaler, Sense
from vislens_interp.metrics.pairwise import diversity
from vislens_interp.metrics.predictivity import predictivity
from vislens_interp.metrics.realism import kernel_distance
from vislens_interp.metrics.response import percentile_among, signed_change
from vislens_interp.metrics.similarity import SMALLEST_GAP, cosine_similarity, normalised_similarity
from vislens_interp.metrics.spectrum import spectrum_distance
from vislens_interp.targets.target import Target


@dataclass(frozen=True)
class Measure:
    """What a number means.

    Args:
        label: For a figure's axis, unit included.
        better: Which way is better; None where neither is by itself.
        each: One number a picture, or one for all pictures of a unit and seed.
    """

    label: str
    better: Literal["higher", "lower"] | None
    each: bool = True


MEASURES: dict[str, Measure] = {
    "response_change": Measure("Δr against own α = 0 (SD, wanted way)", "higher"),
    "response_change_from_input": Measure("Δr against the input (SD, wanted way)", "higher"),
    "percentile": Measure("among natural responses (percentile, wanted way)", "higher"),
    "right_way": Measure("share moved the right way from the input", "higher"),
    "reached_1_sd": Measure("share moved by 1 SD from the input", "higher"),
    "transfer_change": Measure("Δr as a second network predicts it (SD)", "higher"),
    "similarity": Measure("similarity to the input (cosine)", None),
    "similarity_normalised": Measure("similarity: 0 random pair, 1 own α = 0", None),
    "edit_angle": Measure("edit angle (°)", None),
    "kernel_distance": Measure("kernel distance to natural pictures", "lower", each=False),
    "spectrum_distance": Measure("amplitude spectrum's distance (dB)", "lower", each=False),
    "diversity": Measure("diversity (cosine distance)", None, each=False),
    "predictivity": Measure("predictivity (%, chance 50)", "higher", each=False),
    "predictivity_easy": Measure("predictivity, extreme pairs (%, chance 50)", "higher", each=False),
    "forward": Measure("forward passes a picture", "lower", each=False),
    "backward": Measure("backward passes a picture", "lower", each=False),
    "seconds": Measure("seconds a picture", "lower", each=False),
    "fit_seconds": Measure("seconds of the fit", "lower", each=False),
    "memory": Measure("peak memory (MiB)", "lower", each=False),
}
"""Every measure of a comparison, in the table's order."""
EASY = 0.1
"""Share of natural images at each end that the extreme pairs of predictivity come from."""


class Scorer:
    """Measures what methods made from the same inputs, for every unit of a target.

    Args:
        target: Reads the responses.
        scaler: What one SD of each unit is.
        inputs: (N, 3, S, S) images that the methods started from.
        natural: (M, 3, S, S) natural images that no method learned from.
        features: Images to (N, ...) features of a network that is neither the landscape's nor the target's, or None:
            similarity, realism, diversity and predictivity are then left out.
        transfer: Fitted second network, or None.
    """

    def __init__(
        self,
        target: Target,
        scaler: ResponseScaler,
        inputs: Tensor,
        natural: Tensor,
        *,
        features: Callable[[Tensor], Tensor] | None = None,
        transfer: Transfer | None = None,
    ) -> None:
        self.target, self.scaler, self.natural = target, scaler, natural
        self.features, self.transfer = features, transfer
        self.natural_responses = self._read(natural)
        self.start = self._read(inputs)
        self.transfer_start = None if transfer is None else transfer.standardised(inputs)
        if features is not None:
            self.natural_seen, self.seen = self._see(natural), self._see(inputs)
            self.random_similarity = 1 - diversity(self.natural_seen)  # mean cosine of two natural images

    def score(self, unit: int, made: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
        """All measures of one unit's pictures.

        Args:
            unit: Its place in the target.
            made: ``"unedited"`` and the directions to (N, 3, S, S), row i made from input i.

        Returns:
            (direction, measure) to (N,), or (1,) for a measure of all pictures; direction ``"both"`` for predictivity
            from preferred and suppressed pictures together.
        """
        found: dict[tuple[str, str], Tensor] = {}
        unedited = self._read(made["unedited"])[:, unit]
        seen: dict[str, Tensor] = {}
        if self.features is not None:
            seen["unedited"] = self._see(made["unedited"])
        for way in SENSES:
            if way not in made:
                continue
            response = self._read(made[way])[:, unit]
            self._respond(found, way, unit, response, unedited)
            if self.transfer is not None and self.transfer_start is not None:
                predicted = self.transfer.standardised(made[way])[:, unit] - self.transfer_start[:, unit]
                found[way, "transfer_change"] = signed_change(predicted, way)
            found[way, "spectrum_distance"] = _one(spectrum_distance(made[way], self.natural))
            if self.features is not None:
                seen[way] = self._see(made[way])
                self._compare(found, way, seen)
        if self.features is not None:
            self._predict(found, unit, seen)
        return found

    def _respond(
        self, found: dict[tuple[str, str], Tensor], way: Sense, unit: int, response: Tensor, unedited: Tensor
    ) -> None:
        change = signed_change(response - self.start[:, unit], way)
        rank = percentile_among(response, self.natural_responses[:, unit])
        found[way, "response_change"] = signed_change(response - unedited, way)
        found[way, "response_change_from_input"] = change
        found[way, "percentile"] = rank if way == "increase" else 100 - rank
        found[way, "right_way"] = (change > 0).double()
        found[way, "reached_1_sd"] = (change >= 1).double()

    def _compare(self, found: dict[tuple[str, str], Tensor], way: str, seen: Mapping[str, Tensor]) -> None:
        similarity = cosine_similarity(seen[way], self.seen)
        own = cosine_similarity(seen["unedited"], self.seen).mean().item()
        found[way, "similarity"] = similarity
        if own - self.random_similarity >= SMALLEST_GAP:  # there is no scale where α = 0 has left the input behind
            found[way, "similarity_normalised"] = normalised_similarity(similarity, self.random_similarity, own)
        if len(similarity) > 1:
            found[way, "kernel_distance"] = _one(kernel_distance(seen[way], self.natural_seen))
            found[way, "diversity"] = _one(diversity(seen[way]))

    def _predict(self, found: dict[tuple[str, str], Tensor], unit: int, seen: Mapping[str, Tensor]) -> None:
        responses = self.natural_responses[:, unit]
        if len(responses.unique()) < 2:
            return  # a unit that is silent on all of them has no pairs
        ways = [way for way in SENSES if way in seen]
        for way in [*ways, "both"] if len(ways) == 2 else ways:
            increase = None if way == "decrease" else seen["increase"]
            decrease = None if way == "increase" else seen["decrease"]
            for name, extreme in (("predictivity", None), ("predictivity_easy", EASY)):
                told = predictivity(increase, decrease, self.natural_seen, responses, extreme=extreme)
                found[way, name] = _one(100 * told.accuracy)

    def _read(self, images: Tensor) -> Tensor:
        responses = self.target.responses(images.to(self.target.device))
        return self.scaler.standardise(responses)

    @torch.no_grad()
    def _see(self, images: Tensor) -> Tensor:
        assert self.features is not None
        return torch.cat([self.features(part).detach().flatten(1).float().cpu() for part in images.split(64)])


def _one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)
