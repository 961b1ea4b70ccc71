# %% [markdown]
# # An EEG laboratory: epochs in, a topography and the next stimuli out
#
# Epochs of MNE-Python become a data set whose targets are sensors in time windows. Here the recordings are
# **simulated**, so that it is known what each sensor answers to: the left ones to red, the right ones to light in the
# upper half, both weaker towards the front. With your own recordings only the file changes.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

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
# Eighty pictures, each shown three times, in a file of epochs whose metadata name the picture of each epoch. The file
# is written by MNE; one channel is bad.

# %%
backend = get_backend("cifar10")
pictures = backend.reference_images()[:80]
for row, picture in enumerate(to_pil(pictures)):
    picture.save(folder / "stimuli" / f"scene{row:03d}.png")

draw = np.random.default_rng(0)
montage = mne.channels.make_standard_montage("biosemi32")
info = mne.create_info(montage.ch_names, 100.0, "eeg").set_montage(montage)
places = np.array([montage.get_positions()["ch_pos"][name] for name in info.ch_names])  # metres: right, front, up
red = (pictures[:, 0] - pictures[:, 2]).mean((1, 2))
above = pictures[:, :, :16].mean((1, 2, 3)) - pictures[:, :, 16:].mean((1, 2, 3))
features = torch.stack([(one - one.mean()) / one.std() for one in (red, above)], 1).numpy()

back = np.clip(0.5 - places[:, 1] / 0.1, 0, 1)  # the occipital sensors answer most
weights = back[:, None] * np.stack([places[:, 0] < 0, places[:, 0] >= 0], 1)
times = np.arange(-10, 41) / 100
course = np.exp(-((times - 0.15) ** 2) / (2 * 0.03**2))
shown = draw.permutation(np.repeat(np.arange(80), 3))
signal = (features[shown] @ weights.T)[:, :, None] * course
epochs = mne.EpochsArray(
    (signal + draw.normal(size=signal.shape) * 2) * 1e-6,
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
# Trials are paired with pictures by name; the summary says how, and what was left out.

# %%
data = BrainDataset.from_epochs(
    folder / "sub-01-epo.fif", folder / "stimuli", windows=["P1", "N170"], image_column="picture", size=32, subject="01"
)
print(data.summary())

# %% [markdown]
# ## What each sensor prefers
#
# Along two axes that are named beforehand: the correlation of its responses with them. Beside it stands the noise
# ceiling; where that is low, nothing is claimed.

# %%
responses = data.mean_responses().double()
standard = (responses - responses.mean(0)) / responses.std(0)
axes = torch.from_numpy(features).double()
scores = (standard.T @ axes / (len(axes) - 1)).numpy()
found = preference_map(
    scores,
    axes=["red", "light above"],
    places=data.targets,
    evidence=data.noise_ceiling().r.numpy(),
    threshold=0.5,
    unit="correlation",
    evidence_unit="noise ceiling R",
)
print(found)
found.save(
    folder / "map", {"topography": found.topography(mne.read_epochs(folder / "sub-01-epo.fif", verbose="error").info)}
)

# %% [markdown]
# ## In time
#
# The same for every time point of one sensor of each side.

# %%
course = BrainDataset.from_epochs(
    folder / "sub-01-epo.fif",
    folder / "stimuli",
    windows="times",
    picks=["PO3", "PO4"],
    image_column="picture",
    size=32,
)
responses = course.mean_responses().double()
standard = (responses - responses.mean(0)) / responses.std(0)
in_time = preference_map(
    (standard.T @ axes / (len(axes) - 1)).numpy(),
    axes=["red", "light above"],
    places=course.targets,
    evidence=course.noise_ceiling().r.numpy(),
    threshold=0.5,
    unit="correlation",
    evidence_unit="noise ceiling R",
)
in_time.time_course().savefig(folder / "time_course.png", dpi=120)

# %% [markdown]
# ## The next stimuli
#
# An experiment starts from what is known, and writes the next block: pictures, PsychoPy's `conditions.csv`, a template
# of `events.tsv`. What comes back is told by trial id, here by the simulated sensor.

# %%
experiment = Experiment(data, backend, ["PO3 N170"], folder / "experiment", display=Display(size_px=256, size_deg=6.0))
block = experiment.ask(12, "mixed")
print((block.folder / "conditions.csv").read_text().splitlines()[:3])


def answer(images: torch.Tensor) -> torch.Tensor:
    """The simulated sensor, in µV, without noise."""
    images = torch.nn.functional.interpolate(images, size=32)
    return (
        ((images[:, 0] - images[:, 2]).mean((1, 2)) - red.mean()) / red.std() * weights[info.ch_names.index("PO3"), 0]
    )


values = answer(block.images)
told = {trial.trial_id: values[block.stimuli.index(trial.stimulus)].item() for trial in block.trials}
experiment.tell(told)
print(experiment.status())
