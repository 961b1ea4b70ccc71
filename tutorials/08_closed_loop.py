# %% [markdown]
# # A closed loop on a neuron of macaque V4
#
# Which pictures drive a neuron most? An experiment that chooses each block of pictures from the answers to the blocks
# before finds out in fewer trials than one that shows pictures at random. Here it runs on a **simulated** animal: a
# published network of one V4 neuron (Cowley et al. 2023), whose output is a rate, and a trial is one Poisson count. So
# the true rates are known, and every choice can be judged.
#
# The network and the photographs are not part of this package; `VISLENS_DATA` names the folder that holds `macaque_v4`
# (docs/data.md). With an animal of your own, the function `recorded` below is your rig.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from vislens_interp.backends.base import get_backend
from vislens_interp.brain import Display, Experiment, StopRule
from vislens_interp.brain.experiment.blocks import Block
from vislens_interp.brain.v4 import v4_encoder
from vislens_interp.images import load_images, resize, to_pil

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "08_closed_loop"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

session, neuron = Path(os.environ["VISLENS_DATA"]) / "macaque_v4" / "210225", 17

# %% [markdown]
# ## The animal
#
# 200 of the session's photographs are the gallery. A line through the recorded mean counts brings the network's outputs
# to spike counts of the right size.

# %%
with zipfile.ZipFile(session / "images.zip") as pictures:
    names = sorted(name for name in pictures.namelist() if not name.endswith("/"))[:200]
    for name in names:
        pictures.extract(name, folder / "photographs")
photographs = load_images([folder / "photographs" / name for name in names], size=112)[0]
recorded_means = np.load(session / "responses.npy")[neuron][:200]
network = v4_encoder(session / "compact_models.safetensors", [neuron])


@torch.no_grad()
def output(images: torch.Tensor) -> np.ndarray:
    return torch.cat([network(part) for part in resize(images, 112).split(16)])[:, 0].double().numpy()


outputs = output(photographs)
slope, offset = np.polyfit(outputs, recorded_means, 1)
rates = np.maximum(slope * outputs + offset, 0.05)
print(f"rates: mean {rates.mean():.1f}, SD {rates.std():.1f}, highest {rates.max():.1f} spikes a trial")


def true_rate(images: torch.Tensor) -> np.ndarray:
    return np.maximum(slope * output(images) + offset, 0.05)


spikes = np.random.default_rng(0)


def recorded(block: Block) -> dict[str, float]:
    """One spike count for each trial of a block: here your animal would look at the pictures."""
    counts = spikes.poisson(true_rate(block.shown))
    return {trial.trial_id: float(count) for trial, count in zip(block.trials, counts, strict=True)}


# %% [markdown]
# ## The experiment
#
# The backend's embedding has a grid of 3 x 3 places, because a V4 neuron looks at one place of a picture. The first
# block explores: it shows what leaves the least unknown. The next ones are chosen by Thompson sampling: each picture is
# the best one under one of the preferences that the answers so far leave possible. A quarter of each block are
# controls, drawn at random. In the last block some pictures are made.

# %%
backend = get_backend("embedded", size=128, grid=3)
display, rule = Display(size_px=128, size_deg=4.0, duration=0.1, gap=0.1), StopRule(trials=100)
experiment = Experiment(photographs, backend, ["V4"], folder / "experiment", display=display, stop_rule=rule)
for number, design in enumerate(["explore", "mixed", "mixed", "mixed", "mixed"]):
    block = experiment.ask(20, design, made=0.25 if number == 4 else 0.0)
    answers = recorded(block)
    experiment.tell(dict(list(answers.items())[:12]))  # the first file of the rig holds twelve trials ...
    experiment.tell(answers)  # ... the second one all; each trial counts once
print(experiment.status())

# %% [markdown]
# A process that dies loses nothing: `Experiment(...)` with the same arguments on the same folder, in any process, goes
# on where this one is; with another gallery, backend or targets it refuses.
#
# ## Did it find what drives the neuron?
#
# True rates, which only a simulation knows. Left: what each block showed, with means by kind; the black line is the
# mean of all photographs. The first block explores, so that it is no better than chance; the later ones are.
# Right: what the experiment expects of every photograph of the gallery after five blocks, against its true rate.

# %%
blocks = experiment.blocks(pictures=True)
expected, unsure = experiment.fit().predict(photographs)
print(f"expected against true rates over the gallery: r = {np.corrcoef(expected, rates)[0, 1]:.2f}")
COLOURS = {"natural": "#0072b2", "made": "#d55e00", "control": "#777777"}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for block in blocks:
    shown = true_rate(block.shown)
    for kind, colour in COLOURS.items():
        values = [rate for rate, trial in zip(shown, block.trials, strict=True) if trial.kind == kind]
        across = block.number + (0.15 if kind == "control" else -0.15 if kind == "natural" else 0.0)
        left.plot([across] * len(values), values, "o", color=colour, markersize=4, alpha=0.6, label=kind)
        if values:
            left.plot([across - 0.1, across + 0.1], [np.mean(values)] * 2, color=colour, linewidth=2.5)
left.axhline(rates.mean(), color="k", linewidth=0.6)
left.set(xlabel="block", ylabel="true rate (spikes a trial)", xticks=range(1, 6), title="what was shown")
handles = dict(zip(*left.get_legend_handles_labels()[::-1], strict=True))
left.legend(handles.values(), handles.keys(), fontsize=8, frameon=False)
seen = np.isin(experiment.names, [trial.source for block in blocks for trial in block.trials])
for chosen, label, colour in ((seen, "shown", "#0072b2"), (~seen, "never shown", "#e69f00")):
    right.errorbar(
        rates[chosen], expected[chosen], unsure[chosen], fmt="o", color=colour, markersize=4, alpha=0.5,
        elinewidth=0.5, label=label,
    )  # fmt: skip
right.set(xlabel="true rate", ylabel="expected, ± SD", title="what was learnt")
right.legend(fontsize=8, frameon=False)
figure.savefig(folder / "loop.png", dpi=120)

# %% [markdown]
# ## The pictures
#
# The ten photographs of which the experiment expects most, in its order, then the made pictures beside the photographs
# that they were made from. After so few trials the direction in which pictures are changed is rough, and the changes
# are small: most made pictures drive the neuron as much as their sources do. That is why controls and sources are kept.

# %%
top = expected.argsort(descending=True)[:10]
last = blocks[-1]
made = [(trial, last.stimuli.index(trial.stimulus)) for trial in last.trials if trial.kind == "made"]
sources = [experiment.names.index(trial.source) for trial, _ in made]
rows = [(to_pil(photographs[top]), rates[top], "expected most")]
pairs = torch.stack([picture for (_, row), source in zip(made, sources, strict=True)
                     for picture in (resize(photographs[[source]], 128)[0], last.images[row])])  # fmt: skip
rows.append((to_pil(pairs), true_rate(pairs), "source, made"))
figure, axes = plt.subplots(2, 10, figsize=(11, 3.0), layout="constrained")
for line, (pictures, values, label) in zip(axes, rows, strict=True):
    for axis, picture, value in zip(line, pictures, values, strict=False):
        axis.imshow(picture)
        axis.set_xlabel(f"{value:.1f} spikes", fontsize=8, labelpad=2)
    line[0].set_ylabel(label, fontsize=9)
    for axis in line:
        axis.set(xticks=[], yticks=[])
        axis.set_visible(bool(axis.images))
figure.suptitle(
    f"Neuron {neuron} of session 210225, 100 trials; all photographs: {rates.mean():.1f} spikes", fontsize=10
)
figure.savefig(folder / "pictures.png", dpi=120)
