# %% [markdown]
# # An fMRI laboratory: surface maps in, preferences on the brain out
#
# Single-trial betas on fsaverage5 become a data set of regions, and what each region prefers along named axes is drawn
# back onto the surface, with the noise ceiling beside. The betas are **simulated**, so that the answer is known, and
# the regions' names say it. Nothing is downloaded: nilearn ships fsaverage5.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import torch
from nilearn.datasets import load_fsaverage
from nilearn.surface import SurfaceImage

from vislens_interp import zoo
from vislens_interp.backends.base import get_backend
from vislens_interp.brain import Backbone, BrainDataset, InSilicoEncoder, preference_map
from vislens_interp.images import to_pil

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "07_fmri_lab"
(folder / "stimuli").mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

# %% [markdown]
# ## A recording, as a laboratory has it
#
# 150 photographs, each shown twice; a surface file for each hemisphere with a map for each trial; a table of events;
# and regions as numbers on the vertices, here patches of the sphere.

# %%
photographs = get_backend("embedded", size=64).reference_images()
pictures = photographs[list(range(0, 1800, 12))]  # one crop of every second photograph
for row, picture in enumerate(to_pil(pictures)):
    picture.save(folder / "stimuli" / f"scene{row:03d}.png")

meshes = load_fsaverage("fsaverage5")
centres = np.array([[0, -1, 0], [0, -0.6, -0.8], [0, 0.2, -1], [0, 1, 0.2]])
centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
regions = {}
for side in ("left", "right"):
    points = meshes["sphere"].parts[side].coordinates
    near = points / np.linalg.norm(points, axis=1, keepdims=True) @ centres.T
    regions[side] = np.where(near.max(1) > 0.85, near.argmax(1) + 1, 0)
names = {1: "colour", 2: "upper field", 3: "both", 4: "silent"}

red = (pictures[:, 0] - pictures[:, 2]).mean((1, 2))
above = pictures[:, :, :32].mean((1, 2, 3)) - pictures[:, :, 32:].mean((1, 2, 3))
features = torch.stack([(one - one.mean()) / one.std() for one in (red, above)], 1).numpy()
weights = np.array([[0, 0], [1.0, 0], [0, 1.0], [0.7, 0.7], [0, 0]])  # of no region, and of the four
draw = np.random.default_rng(0)
shown = draw.permutation(np.repeat(np.arange(150), 2))
shared = draw.normal(size=(len(weights), len(shown)))  # noise that a region's vertices have in common
files = {}
for side, numbers in regions.items():
    betas = (weights @ features[shown].T + shared)[numbers] + draw.normal(size=(len(numbers), len(shown))) * 4
    arrays = [
        nibabel.gifti.GiftiDataArray(trial.astype(np.float32), datatype="NIFTI_TYPE_FLOAT32") for trial in betas.T
    ]
    files[side] = folder / f"hemi-{side[0].upper()}_betas.func.gii"
    nibabel.save(nibabel.GiftiImage(darrays=arrays), files[side])
events = pd.DataFrame({"onset": np.arange(300) * 4.0, "duration": 2.0})
events["stim_file"] = [f"scene{row:03d}.png" for row in shown]
events.to_csv(folder / "events.tsv", sep="\t", index=False)

# %% [markdown]
# ## A data set of regions
#
# Events pair trials with pictures by name. The silent region was planted without any response, and has the lowest noise
# ceiling. It is not 0: of two repetitions a ceiling is rough, so that the map below asks for 0.6.

# %%
data = BrainDataset.from_surface(
    SurfaceImage(meshes["inflated"], files),
    folder / "events.tsv",
    folder / "stimuli",
    labels=regions,
    targets=names,
    size=64,
    subject="sub-01",
)
print(data.summary())
print("noise ceilings:", data.noise_ceiling())

# %% [markdown]
# ## The map
#
# Grey is what is weakly supported, whatever its score; the last row shows the evidence itself. The first row shows one
# axis a region, the one with the higher score: only the rows below it show that the region "both" prefers both.

# %%
responses = data.mean_responses().double()
standard = (responses - responses.mean(0)) / responses.std(0)
scores = (standard.T @ torch.from_numpy(features).double() / (len(features) - 1)).numpy()
found = preference_map(
    scores,
    axes=["red", "light above"],
    places=data.targets,
    evidence=data.noise_ceiling().r.numpy(),
    threshold=0.6,
    unit="correlation",
    evidence_unit="noise ceiling R",
)
print(found)
surface = found.surface(regions=regions, targets=names)
found.save(folder / "map", {"surface": surface})
surface

# %% [markdown]
# ## From here
#
# The data set is like any other: an encoder learns it, and a region becomes a unit of a lens (tutorial 03).

# %%
encoder = InSilicoEncoder(Backbone(zoo.load("cifar10_convnet"), grid=4), force=True).fit(data)
print(encoder.summary())
