"""What is written of experiments, preference maps and trials, as ``writers`` has it."""

import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.append(str(Path(__file__).parent))
from lens_writers import contents
from PIL import Image

from vislens_interp import Preprocess
from vislens_interp.backends.retrieval import NetworkEmbedder, RetrievalBackend
from vislens_interp.brain import Display, Experiment, preference_map, read_block
from vislens_interp.brain.experiment.experiment import simulated
from vislens_interp.brain.readers.trials import Paired, Session, gather
from vislens_interp.files import locked, recover

TARGETS, BLOCKS = ["red", "blue"], 2


@cache
def gallery():
    """Sixty pictures, 16 px wide."""
    coarse = torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=16, mode="bilinear")


@cache
def colours():
    """A backend that takes milliseconds: means of colours, and the gallery's nearest picture."""
    return RetrievalBackend(NetworkEmbedder(nn.AvgPool2d(8), Preprocess(16, [0.0] * 3, [1.0] * 3)), gallery())


def rates(images):
    """Two planted cells, for red and for blue."""
    return 8 + 40 * torch.stack([images[:, 0].mean((1, 2)), images[:, 2].mean((1, 2))], 1)


def experiment(folder):
    return Experiment(gallery(), colours(), TARGETS, folder, display=Display(16, 2.0))


def simulated_rates(block):
    """Responses to a block's trials."""
    return simulated(block, rates, block.number)


def go_on(folder):
    """Ask for blocks and tell their responses, a few at a time, until all are told; several processes may do it."""
    found = experiment(folder)
    while True:
        with locked(folder / "session"):  # who asks knows all that was told
            blocks = found.blocks(pictures=True)
            if not blocks or not found.status().pending:
                if len(blocks) == BLOCKS:
                    return
                found.ask(8, "mixed")
                continue
        answers = list(simulated_rates(blocks[-1]).items())
        for end in range(3, len(answers) + 3, 3):  # a laboratory that tells everything it has, again and again
            found.tell(dict(answers[:end]))


@cache
def whole_experiment():
    folder = Path(tempfile.mkdtemp(prefix="experiment")) / "session"
    go_on(folder)
    return contents(folder)


def write_experiment(folder, version):
    go_on(folder / "session")


def experiment_version(folder):
    """None until everything is told; blocks that are there are those of a session that nobody interrupts."""
    place = folder / "session"
    for path in place.glob("block_*"):
        assert len(read_block(path).images)
        assert (
            contents(path).items()
            <= {
                str(Path(name).relative_to(path.name)): content
                for name, content in whole_experiment().items()
                if name.startswith(path.name)
            }.items()
        )
    if not place.exists() or contents(place).keys() < whole_experiment().keys():
        return None
    if experiment(place).status().pending:
        return None
    assert contents(place) == whole_experiment()
    return 0


@cache
def scores(version):
    draw = np.random.default_rng(version)
    return preference_map(draw.random((9, 2)), axes=["edge", "face"], places=[f"V{row}" for row in range(9)])


def write_map(folder, version):
    """Into a new folder; what is there is never replaced."""
    from matplotlib.figure import Figure

    if not (folder / "map").exists():
        scores(0).save(folder / "map", {"course": Figure()})


def map_version(folder):
    place = folder / "map"
    recover(place)
    if not place.exists():
        return None
    assert (place / "preferences.csv").read_bytes().decode() == scores(0).table()
    with Image.open(place / "course.png") as picture:
        picture.load()
    return 0


@cache
def trials(version):
    """240 trials of twelve pictures, with 300 targets."""
    shown = np.arange(240) % 12
    paired = Paired(torch.zeros(12, 3, 4, 4), [str(row) for row in range(12)], np.arange(240), shown, "")
    values = np.random.default_rng(version).normal(size=(240, 300))
    return [Session(240, lambda first, end: values[first:end])], paired, 300


def write_trials(folder, version):
    gather(*trials(version), cache=folder / "responses.npy")


def trials_version(folder):
    path = folder / "responses.npy"
    if not path.exists():
        return None
    found = torch.from_numpy(np.load(path))
    (same,) = [version for version in (0, 1) if torch.equal(found, gather(*trials(version)))]
    return same


BRAIN_WRITERS = {
    "experiment": (write_experiment, experiment_version, True),
    "preference map": (write_map, map_version, True),
    "trials": (write_trials, trials_version, False),
}
