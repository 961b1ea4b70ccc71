# %% [markdown]
# # An EEG laboratory: epochs in, a topography and the next stimuli out
#
# Epochs of MNE-Python become a data set whose targets are sensors in time windows. A map says what each sensor prefers
# along axes that were named beforehand, and an experiment writes the next block of pictures.
#
# The recordings are **simulated**, so that the answer is known: occipital sensors of the left hemisphere respond to
# red, those of the right hemisphere to light in the upper half of the picture, both around 150 ms. With recordings of
# your own only the file of epochs and the folder of pictures change.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np
import pandas as pd
import torch

from vislens_interp.backends.base import get_backend
from vislens_interp.brain import BrainDataset, Display, Experiment, preference_map
from vislens_interp.images import to_pil

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "06_eeg_lab"
(folder / "stimuli").mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

# %% [markdown]
# ## A recording, as a laboratory has it
#
# Eighty photographs, each shown four times. The file of epochs is written by MNE; its metadata name the picture of each
# epoch, and one channel is marked bad.

# %%
backend = get_backend("embedded", size=128)
photographs = backend.reference_images()[list(range(0, 960, 12))]  # one crop of every second photograph
for row, picture in enumerate(to_pil(photographs)):
    picture.save(folder / "stimuli" / f"scene{row:03d}.png")


def redness(images: torch.Tensor) -> torch.Tensor:
    return (images[:, 0] - images[:, 2]).mean((1, 2))


def light_above(images: torch.Tensor) -> torch.Tensor:
    half = images.shape[2] // 2
    return images[:, :, :half].mean((1, 2, 3)) - images[:, :, half:].mean((1, 2, 3))


AXES = {"red": redness, "light above": light_above}
features = torch.stack([measure(photographs) for measure in AXES.values()], 1).double()
centre, spread = features.mean(0), features.std(0)
features = ((features - centre) / spread).numpy()

draw = np.random.default_rng(0)
montage = mne.channels.make_standard_montage("biosemi32")
info = mne.create_info(montage.ch_names, 100.0, "eeg").set_montage(montage)
places = np.array([montage.get_positions()["ch_pos"][name] for name in info.ch_names])  # metres: right, front, up
occipital = np.clip(-places[:, 1] / 0.08, 0, 1) ** 2
weights = occipital[:, None] * np.stack([places[:, 0] < 0.005, places[:, 0] > -0.005], 1)
times = np.arange(-10, 41) / 100
course = np.exp(-((times - 0.15) ** 2) / (2 * 0.025**2))

shown = draw.permutation(np.repeat(np.arange(len(photographs)), 4))
signal = 3e-6 * (features[shown] @ weights.T)[:, :, None] * course  # volts
epochs = mne.EpochsArray(
    signal + 4e-6 * draw.normal(size=signal.shape),
    info,
    tmin=-0.1,
    metadata=pd.DataFrame({"picture": [f"scene{row:03d}.png" for row in shown]}),
    verbose="error",
)
epochs.info["bads"] = ["T7"]
epochs.save(folder / "sub-01-epo.fif", verbose="error")

# %% [markdown]
# ## A data set
#
# Trials are paired with pictures by name. The summary says how, what was left out, and in which unit responses are.

# %%
data = BrainDataset.from_epochs(
    folder / "sub-01-epo.fif", folder / "stimuli", windows=["C1", "N170", "P300"], image_column="picture", size=128
)
print(data.summary())

# %% [markdown]
# ## What each sensor prefers
#
# A sensor's score along an axis is the correlation of its mean responses with it. The noise ceiling stands beside: it
# says how well a perfect model could predict these means. Where it is low nothing is claimed, whatever the score. The
# windows before and after the response are a control, in which nothing should be found. With eighty pictures a ceiling
# is rough: a frontal sensor may pass by chance, and then its scores near 0 say that it prefers neither axis.


# %%
def scores_of(recorded: BrainDataset) -> np.ndarray:
    """Correlations (targets, axes) of mean responses with the axes."""
    responses = recorded.mean_responses().double().numpy()
    responses = (responses - responses.mean(0)) / responses.std(0)
    return responses.T @ features / len(features)


said = {"axes": list(AXES), "threshold": 0.7, "unit": "correlation", "evidence_unit": "noise ceiling"}
found = preference_map(scores_of(data), places=data.targets, evidence=data.noise_ceiling().r.numpy(), **said)
print(found)
recorded_info = mne.read_epochs(folder / "sub-01-epo.fif", preload=False, verbose="error").info
found.save(folder / "map", {"topography": found.topography(recorded_info)})

# %% [markdown]
# ## In time
#
# The same at every time point, for a sensor of each hemisphere: when the preference begins and ends.

# %%
in_time = BrainDataset.from_epochs(
    folder / "sub-01-epo.fif",
    folder / "stimuli",
    windows="times",
    picks=["O1", "O2"],
    image_column="picture",
    size=128,
)
ceiling = in_time.noise_ceiling().r.numpy()
shown_course = preference_map(scores_of(in_time), places=in_time.targets, evidence=ceiling, **said).time_course()
shown_course.savefig(folder / "time_course.png", dpi=120)
shown_course

# %% [markdown]
# ## The next stimuli
#
# An experiment learns from the data set and writes the next block: pictures, PsychoPy's `conditions.csv`, a template of
# BIDS' `events.tsv`, and a manifest. Some pictures are photographs, some are made from photographs, and a quarter are
# drawn at random, as a control.

# %%
target = "O1 N170"
experiment = Experiment(data, backend, [target], folder / "experiment", display=Display(size_px=256, size_deg=6.0))
block = experiment.ask(16, "mixed", made=0.25)
print((block.folder / "conditions.csv").read_text().splitlines()[:3])

# %% [markdown]
# The recordings of that block come back as epochs too, with trial ids in their metadata. A trial that is told twice
# counts once.

# %%
answers = torch.stack([measure(block.shown) for measure in AXES.values()], 1).double()
answers = ((answers - centre) / spread).numpy() @ weights.T
recorded = mne.EpochsArray(
    3e-6 * answers[:, :, None] * course + 4e-6 * draw.normal(size=(len(block), len(info.ch_names), len(times))),
    info,
    tmin=-0.1,
    metadata=pd.DataFrame({"trial_id": [trial.trial_id for trial in block.trials]}),
    verbose="error",
)
print(experiment.tell(recorded, windows=["N170"]), "new,", experiment.tell(recorded, windows=["N170"]), "new")
print(experiment.status())

# %% [markdown]
# ## Did it choose well?
#
# Pictures in the order of what the sensor answered. Of single noisy trials the order is rough; the means by kind, in
# the title of the figure, are what a real experiment would test.

# %%
values = {trial: row[0] for trial, row in experiment.responses.items()}
trials = sorted(zip(block.trials, to_pil(block.shown), strict=True), key=lambda one: -values[one[0].trial_id])
figure, axes = plt.subplots(2, 8, figsize=(11, 3.6), layout="constrained")
COLOURS = {"natural": "#0072b2", "made": "#d55e00", "control": "#777777"}
for axis, (trial, picture) in zip(axes.flat, trials, strict=True):
    axis.imshow(picture)
    axis.set_title(f"{trial.kind}  {values[trial.trial_id]:+.1f} µV", fontsize=8, color=COLOURS[trial.kind])
    axis.set(xticks=[], yticks=[])
means = {kind: np.mean([values[trial.trial_id] for trial in block.trials if trial.kind == kind]) for kind in COLOURS}
figure.suptitle(
    f"{target}, block 1: " + ", ".join(f"{kind} {mean:+.2f} µV" for kind, mean in means.items()), fontsize=10
)
figure.savefig(folder / "block.png", dpi=120)
