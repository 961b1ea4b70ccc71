# %% [markdown]
# # A first unit
#
# A convolution layer of a classifier has many channels. Each answers to something in a picture, and nobody has written
# down to what. Here one of them is asked: channel 17 of `blocks.4` in EfficientNet-Lite2, trained on ImageNet.
#
# Everything needed is in the package: the network, and free photographs to learn from and to edit.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

from vislens_interp import FeatureLens, ReferenceSet, list_units, zoo

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "01_first_unit"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

# %% [markdown]
# ## Which units are there?
#
# A network has layers, and a layer has units: the channels of a map, or the features of a vector. These are the stages.

# %%
model = zoo.load("efficientnet_lite2")
for info in list_units(model):
    if info.name.count(".") < 2:
        print(f"{info.name or '(output)':<14} {info.kind:<14} {info.shape!s:<16} {info.n_units} units")

# %% [markdown]
# ## Fit
#
# A lens points at a unit. Fitting shows the reference photographs to the network, reads the unit's response to each,
# and organises a *landscape*: a place for every picture, such that one direction of it means "more response".
#
# The package brings 2,118 crops of 353 photographs. Every tenth is enough for a first look; `lens.fit()` takes all, and
# `lens.fit("folder/")` takes yours.

# %%
lens = FeatureLens(model, "blocks.4", unit=17)
lens.fit(ReferenceSet.of_backend(lens.backend).at(range(0, 2118, 10)))
print(str(lens))

# %% [markdown]
# ## Is there anything to see?
#
# Ask this before looking at a picture. The fit held some reference pictures out. If the landscape knows the unit, then
# a picture's position in it predicts the response to that picture, and does so better than a landscape that was fitted
# on shuffled responses. If it does not, this says **WEAK EVIDENCE**, and so does every figure.

# %%
evidence = lens.evidence_["17"]
print("held-out correlation", round(evidence.correlation, 2))
print("p against shuffled responses", round(evidence.p_value, 3))
print("worth looking at?", "no: " + "; ".join(evidence.reasons) if evidence.weak else "yes")

# %% [markdown]
# ## What does the unit prefer?
#
# `visualize()` starts from the unit's eight *prototypes*: four reference photographs that drive it, then four that do
# not, chosen together so that likeness to them tells most of the unit's responses. What the first four share, and the
# others have not, is the first guess at what the unit sees. (`visualize("folder/")` takes photographs of yours.)
#
# Each is moved both ways. `"increase"` should drive the unit more, `"decrease"` less. The change of pixels is limited,
# so that a photograph stays one, and the network is not asked while the picture changes. What changes in all eight is
# the second guess.
#
# Afterwards it sees every picture again. What counts is the change against the *unedited* picture, at `alpha` 0.
# `alphas` adds half an edit: a response that climbs step by step says more than two end points.

# %%
result = lens.visualize(alphas=[0.5])
for direction, change in result.response_change.items():
    print(f"{direction}: {change.mean():+.2f} SD on average, each {[round(value, 2) for value in change.tolist()]}")
print()
print(result.summary())
for alpha, change in zip(result.dose_response[0], result.dose_response[1].mean(1).tolist(), strict=True):
    print(f"alpha {alpha:+.1f}: response {change:+.2f} SD")
figure = result.figure()
figure.savefig(folder / "visualize.png")
figure

# %%
figure = result.dose_response_figure()
figure.savefig(folder / "sweep.png")
figure

# %% [markdown]
# ## In words
#
# Which of ImageNet's classes rise and fall along the edit? They are read from the embedding of another network, which
# has never seen this unit. A word is shown only if it beats the strongest words of landscapes for shuffled responses;
# often there is none, and then it says so.

# %%
print(result.words["increase"])
for word in result.words["increase"].rising:
    print(f"{word.rank}. {word.word}: score {word.score:.2f}, {word.margin:.2f} above the shuffled landscapes")

# %% [markdown]
# ## The reality check
#
# Which reference photographs drive the unit most, untouched? If what was made looks nothing like these, doubt it.

# %%
import matplotlib.pyplot as plt  # noqa: E402

from vislens_interp.images import to_pil  # noqa: E402

top = lens.top_images(8)
print("strongest responses", [round(value, 3) for value in top.responses.tolist()])
figure, axes = plt.subplots(1, 8, figsize=(9.6, 1.3))
for axis, picture in zip(axes, to_pil(top.images), strict=True):
    axis.imshow(picture)
    axis.set_axis_off()
figure.savefig(folder / "top_images.png")
plt.close(figure)
figure

# %% [markdown]
# ## Keep it
#
# A result is saved with its pictures, numbers, words, settings and seeds. A lens is saved without the network, which is
# checked when it is loaded: other weights are refused.

# %%
print("result:", result.save(folder / "unit17"))
path = lens.save(folder / "unit17.safetensors")
again = FeatureLens.load(path, model)
assert again.evidence_ == lens.evidence_
print("lens:", path)
result
