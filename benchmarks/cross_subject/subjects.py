"""Who is compared in cross_subject: sessions of two animals, and simulated subjects who see their pictures."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.script import save_tensors
from benchmarks.common.v4_sessions import Session

ANIMALS = {"201025": "PE", "210225": "PE", "190925": "WE", "190929": "WE"}
SIMULATED, CONTROL = ("simulated1", "simulated2", "simulated3"), "simulated3"
PICTURES = "201025"  # what simulated subjects see: photographs, the same for all of them
# Every feature of the bank, two mixtures, two places.
REGIONS = {
    f"region{place}": tuning
    for place, tuning in enumerate(
        [vl.Tuning("feature", (name,)) for name in vl.FEATURES] + [one for one in vl.TUNINGS if one.kind != "feature"]
    )
}
SAME, OWN, OTHER = "same session, other pictures", "own animal, other session", "other animal"
LEVELS = (SAME, OWN, OTHER)
SHARED, UNSHARED = "another subject, shared tuning", "another subject, unshared tuning (control)"
SELF = "the same subject, other pictures"
VIEWS = {"recorded": "recorded responses", "encoder": "encoders of the judge's other half", "truth": "planted truth"}
SNR, REPETITIONS = 1.0, 3


@dataclass(frozen=True)
class Subject:
    """A session of an animal, or a simulated subject."""

    name: str  # of its files
    animal: str  # who it is
    session: Session  # pictures and responses
    x: Tensor  # (N, D) embeddings of the pictures
    truth: Tensor | None = None  # (N, K) what the responses are without noise, of a simulated one

    @property
    def simulated(self) -> bool:
        return self.truth is not None

    @property
    def halves(self) -> tuple[int, ...]:
        """Halves to learn from: both of a real session; of a simulated one, whose regions are many, the first."""
        return (0,) if self.simulated else (0, 1)

    @property
    def targets(self) -> list[str]:
        return list(REGIONS) if self.simulated else self.session.neurons

    def sides(self, half: int) -> tuple[Tensor, Tensor]:
        """Rows of the half to learn from, and of the gallery, the other one."""
        return self.session.sides(half)

    def encoder(self, half: int, backbone: vl.Backbone, features: vl.Features) -> vl.InSilicoEncoder:
        """An encoder that learnt from a half."""
        learnt, gallery = self.sides(half)
        dataset = vl.BrainDataset.from_arrays(self.session.images, self.session.responses, targets=self.targets)
        return vl.InSilicoEncoder(backbone, force=True).fit(dataset, rows=learnt, held_out=gallery, features=features)

    def standard(self, learnt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All responses (N, K) in SDs over some pictures, with the means and SDs (K,)."""
        responses = self.session.responses
        mean, std = responses[learnt].mean(0), responses[learnt].std(0, correction=0).clamp_min(1e-6)
        return (responses - mean) / std, mean, std


def unlike(truth: Tensor) -> list[int]:
    """For each of K regions another one, each once, so that their truths (N, K) correlate as little as can be."""
    cost = torch.corrcoef(truth.T).abs()
    cost.fill_diagonal_(len(cost))
    return linear_sum_assignment(cost.double().numpy())[1].tolist()


def simulated_subjects(session: Session, x: Tensor, out: Path) -> list[Subject]:
    """Subjects 1 and 2 with the same tuning, 3 with another, each with noise of its own; kept in ``out``."""
    found = []
    for number, name in enumerate(SIMULATED, start=1):
        file = out / f"{name}.safetensors"
        if not file.is_file():
            tuning = REGIONS
            if name == CONTROL:
                taken = unlike(vl.plant_tuning(REGIONS, session.images, SNR).responses)
                tuning = {region: list(REGIONS.values())[other] for region, other in zip(REGIONS, taken, strict=True)}
            noise = {"snr": SNR, "repetitions": REPETITIONS, "seed": 0}
            truth = vl.simulate_algonauts(out / name, session.images, rois=tuning, subject=number, **noise)
            responses = vl.load_algonauts(out / name, number).select(list(REGIONS)).mean_responses().float()
            save_tensors(file, {"responses": responses, "truth": truth.responses.float()})
        stored = load_file(file)
        own = Session(session.name, session.images, stored["responses"], session.copies)
        found.append(Subject(name, name, own, x, stored["truth"]))
    return found


def animal_pair(source: str, judge: str) -> tuple[str, str, str]:
    level = SAME if source == judge else OWN if ANIMALS[source] == ANIMALS[judge] else OTHER
    return ANIMALS[source], ANIMALS[judge], level


def subject_pair(source: str, judge: str) -> str:
    return SELF if source == judge else UNSHARED if judge == CONTROL else SHARED
