# %% [markdown]
# # A neuron of macaque V4
#
# A neuron is a unit like any other, if there are pictures and its responses to them. Here the pictures that a lens
# makes are natural ones of the same recording session, so that the neuron's own *recorded* responses say whether they
# are right: no model judges, and nothing is hallucinated.
#
# The recordings (Cowley et al. 2023) are not part of this package; `VISLENS_DATA` names the folder that holds
# `macaque_v4` and SqueezeNet (docs/data.md). The neuron below is the first of its session, not a chosen one.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torchvision.models import squeezenet1_0

from vislens_interp import FeatureLens, Preprocess
from vislens_interp.backends.retrieval import NetworkEmbedder, RetrievalBackend
from vislens_interp.brain.recorded import RecordedResponses
from vislens_interp.brain.v4 import v4_encoder

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "04_v4_neuron"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

data = Path(os.environ["VISLENS_DATA"])
session, neuron = data / "macaque_v4" / "201025", 0

# %% [markdown]
# ## Pictures and recordings
#
# 1,200 pictures and the neuron's mean spike count to each. The lens learns from one half; what it shows comes from
# the other.

# %%
from vislens_interp.training.data import pixels, read_images  # noqa: E402

pictures = pixels(read_images(session / "images.zip", 112)[0])
spikes = torch.from_numpy(np.load(session / "responses.npy")[neuron]).float()
order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
learnt, held_out = pictures[order[:600]], pictures[order[600:]]

# %% [markdown]
# ## A lens on the recordings
#
# The target looks recordings up. The backend embeds pictures by SqueezeNet (trained on ImageNet, not on the neuron),
# and turns an edited embedding into the held-out picture that lies nearest to it.

# %%
network = squeezenet1_0()
network.load_state_dict(load_file(data / "networks" / "imagenet_squeezenet1_0.safetensors"))
ready = Preprocess(112, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
embedder = NetworkEmbedder(network.features, ready).standardise_on(learnt)
backend = RetrievalBackend(embedder, held_out)

target = RecordedResponses(pictures, spikes[:, None], [f"neuron {neuron}"], name="recorded spikes")
lens = FeatureLens(target, backend=backend).fit(learnt)
print(str(lens))

# %% [markdown]
# ## What it prefers
#
# Twelve held-out pictures, each turned by 55 degrees both ways. Every picture below was shown to the animal, and the
# numbers are what the neuron answered, in SDs of its responses.

# %%
result = lens.visualize(held_out[:12])
print(result.summary())
result.figure(max_images=8).savefig(folder / "preferred.png", dpi=150)

# %% [markdown]
# ## A second judge, and the reality check
#
# The published network of this very neuron reads the same pictures. It was trained by others, on recordings of its
# own, but half of this session's pictures were used to map it to the neuron, so that it is no stranger to the noise.
# And the ten pictures that drive the neuron most, among those that the lens learnt from:

# %%
published = v4_encoder(session / "compact_models.safetensors", [neuron])
by_network = lens.visualize(held_out[:12], judge=published)
print(by_network.summary().splitlines()[-1])
for way in ("increase", "decrease"):
    recorded, predicted = result.response_change[way].mean(), by_network.response_change[way].mean()
    print(f"{way}: {recorded:+.2f} SD recorded, {predicted:+.2f} SD by the published network")

# %%
import matplotlib.pyplot as plt  # noqa: E402

from vislens_interp.images import to_pil  # noqa: E402

top = lens.top_images(10, learnt)
rows = {"shown": "inputs", "preferred": "increase", "suppressed": "decrease"}
figure, axes = plt.subplots(4, 10, figsize=(11, 5.2), layout="constrained")
for line, (label, key) in zip(axes, rows.items(), strict=False):
    for axis, picture, value in zip(line, to_pil(result.images[key][:10]), result.standardised[key], strict=False):
        axis.imshow(picture)
        axis.set_xlabel(f"{value:+.1f} SD", fontsize=8, labelpad=2)
    line[0].set_ylabel(label, fontsize=9)
strongest = lens.landscape_.scaler.standardise(top.responses[:, None])[:, 0]
for axis, picture, value in zip(axes[3], to_pil(top.images), strongest, strict=True):
    axis.imshow(picture)
    axis.set_xlabel(f"{value:+.1f} SD", fontsize=8, labelpad=2)
axes[3, 0].set_ylabel("drive it most", fontsize=9)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.suptitle(f"Neuron {neuron} of session 201025: recorded responses to natural pictures", fontsize=10)
figure.savefig(folder / "neuron.png", dpi=150)
plt.close(figure)
figure
