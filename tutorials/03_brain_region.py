# %% [markdown]
# # A region of a brain
#
# A brain region is a unit of a network that predicts its responses. Here the brain is **simulated**, so that it is
# known what its regions answer to: one to red, one to either of two unlike things, one to light in the upper left.
# Its data lie in files of the layout in which NSD was published for the Algonauts challenge; with the real files only
# the folder changes.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

import torch

from vislens_interp import FeatureLens, LayerTarget, zoo
from vislens_interp.backends.base import get_backend
from vislens_interp.brain import Backbone, InSilicoEncoder, load_algonauts, simulate_algonauts

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "03_brain_region"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

# %% [markdown]
# ## Recordings
#
# 1,200 small synthetic pictures, each shown three times; signal and noise are equally large in one showing.

# %%
backend = get_backend("cifar10")
pictures = backend.reference_images()
truth = simulate_algonauts(folder / "simulated", pictures[:1200], rois=["OFA", "FFA-1", "PPA"], snr=1.0, repetitions=3)
data = load_algonauts(folder / "simulated", subject=1, size=32)
print(data)

# %% [markdown]
# ## Maker and judge
#
# Two encoders on disjoint halves of the pictures: a ridge regression from all layers of a network that knows nothing
# of the planted truth. One will make pictures; the other, which learnt from other recordings, will judge them.

# %%
backbone = Backbone(zoo.load("cifar10_convnet"), grid=4)
maker, judge = InSilicoEncoder.fit_pair(backbone, data)
print(maker.summary())
print("best possible R:", {name: round(share**0.5, 2) for name, share in truth.ceiling(3).items()})

# %% [markdown]
# ## A lens on a region
#
# From here a region is a unit like any other. The judge reads the pictures, and so does the planted truth, which only
# a simulation has.

# %%
start = pictures[1600:1612]
changes, made = {}, {}
for place, region in enumerate(truth.targets):
    lens = FeatureLens(maker, unit=region, backend="cifar10")
    lens.fit(pictures[:300], epochs=1, shuffles=1, w_consistency=0)
    result = lens.visualize(start, strength=0, judge=LayerTarget(judge, None, region))
    print(result.summary().splitlines()[3], "\n", result.summary().splitlines()[4])
    made[region] = result
    with torch.no_grad():
        read = {key: truth(images)[:, place] for key, images in result.images.items()}
    changes[region] = {way: (read[way] - read["unedited"]).mean().item() for way in ("increase", "decrease")}
    print(
        f"{region}: {changes[region]['increase']:+.2f} and {changes[region]['decrease']:+.2f} SD in the planted truth"
    )

# %% [markdown]
# ## The figure
#
# For each region six pictures, what it prefers instead and what silences it. Below each row: the change in the judge,
# and in the planted truth.

# %%
import matplotlib.pyplot as plt  # noqa: E402

from vislens_interp.images import to_pil  # noqa: E402

figure, axes = plt.subplots(3 * len(made), 6, figsize=(5.6, 9.2), layout="constrained")
for block, (region, result) in enumerate(made.items()):
    for line, key in enumerate(("unedited", "increase", "decrease")):
        row = axes[3 * block + line]
        for axis, picture in zip(row, to_pil(result.images[key][:6]), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        if key == "unedited":
            row[0].set_ylabel(f"{region}\n{', '.join(truth.tuning[region].features)}", fontsize=7)
        else:
            said = f"judge {result.response_change[key].mean():+.1f} SD\ntruth {changes[region][key]:+.1f} SD"
            row[0].set_ylabel(f"{key}\n{said}", fontsize=7)
made["OFA"].figure().savefig(folder / "ofa.png", dpi=120)
figure.savefig(folder / "regions.png", dpi=150)
plt.close(figure)
figure
