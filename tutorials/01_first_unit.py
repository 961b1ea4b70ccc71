# %% [markdown]
# # A first unit
#
# A convolution layer of a classifier has many channels. Each answers to something in a picture, and nobody has written
# down to what. Here one of them is asked: channel 16 of `conv3`, in a small network that travels with this package.
#
# Everything needed is in the package: the network, a landscape to move pictures in, and a set of small pictures to
# learn from. The pictures are synthetic (a diffusion model made them), so that none of them is anybody's photograph.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

from vislens_interp import FeatureLens, list_units, zoo

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "01_first_unit"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

# %% [markdown]
# ## Which units are there?
#
# A network has layers, and a layer has units: the channels of a map, or the features of a vector.

# %%
model = zoo.load("cifar10_convnet")
for info in list_units(model):
    print(f"{info.name or '(output)':<14} {info.kind:<12} {info.shape!s:<14} {info.n_units} units")

# %% [markdown]
# ## Fit
#
# A lens points at a unit. Fitting shows the reference pictures to the network, reads the unit's response to each, and
# organises a *landscape*: a place for every picture, such that one direction of it means "more response".
#
# One epoch and one control are enough for a first look. Leave both out for the settings that a benchmark chose.

# %%
lens = FeatureLens(model, "conv3", unit=16, backend="cifar10")
lens.fit(epochs=1, shuffles=1)
print(str(lens))

# %% [markdown]
# ## Is there anything to see?
#
# Ask this before looking at a picture. The fit held some reference pictures out. If the landscape knows the unit, then
# a picture's position in it predicts the response to that picture, and does so better than a landscape that was fitted
# on shuffled responses. If it does not, this says **WEAK EVIDENCE**, and so does every figure.

# %%
evidence = lens.evidence_["16"]
print("held-out correlation", round(evidence.correlation, 2))
print("p against shuffled responses", round(evidence.p_value, 3))
print("worth looking at?", "no: " + "; ".join(evidence.reasons) if evidence.weak else "yes")

# %% [markdown]
# ## What does the unit prefer?
#
# Four held-out pictures are moved both ways. `"increase"` should drive the unit more, `"decrease"` less. A small
# diffusion model then adds the detail that the landscape's decoder leaves out; `strength` says how much it may change.
#
# The network sees every picture again. What counts is the change against the *unedited* picture, which went through the
# same decoder and the same diffusion: decoding alone already moves the response a little.

# %%
pictures, names = lens.reference_set.held_out(4)
result = lens.visualize(pictures, strength=0.1)
for direction, change in result.response_change.items():
    print(f"{direction}: {change.mean():+.2f} SD on average, each {[round(value, 2) for value in change.tolist()]}")
print()
print(result.summary())
result.figure().savefig(folder / "visualize.png")

# %% [markdown]
# ## How much is how much?
#
# `alpha` is how far a picture goes: 0 stays, 1 arrives where the unit's favourites live. A minus sign goes the other
# way. A response that climbs step by step says more than two end points. (`strength=0` leaves the diffusion out, which
# makes this quick.)

# %%
doses = lens.visualize(pictures, alphas=[0.5], strength=0)
for alpha, change in zip(doses.dose_response[0], doses.dose_response[1].mean(1).tolist(), strict=True):
    print(f"alpha {alpha:+.1f}: response {change:+.2f} SD")
doses.dose_response_figure().savefig(folder / "sweep.png")

# %% [markdown]
# ## From nothing
#
# The landscape also knows where preferred pictures lie without starting from one. Samples are rougher than edits: no
# real picture holds them in place.

# %%
import matplotlib.pyplot as plt  # noqa: E402

from vislens_interp.images import to_pil  # noqa: E402


def show(images, file):
    figure, axes = plt.subplots(1, len(images), figsize=(1.2 * len(images), 1.3))
    for axis, picture in zip(axes, to_pil(images), strict=True):
        axis.imshow(picture)
        axis.set_axis_off()
    figure.savefig(folder / file)
    plt.close(figure)


show(lens.sample(8, "increase", strength=0), "sample.png")

# %% [markdown]
# ## The reality check
#
# Which reference pictures drive the unit most, untouched? If what was made looks nothing like these, doubt it.

# %%
top = lens.top_images(8)
print("strongest responses", [round(value, 3) for value in top.responses.tolist()])
show(top.images, "top_images.png")

# %% [markdown]
# ## Keep it
#
# A result is saved with its pictures, numbers, settings and seeds. A lens is saved without the network, which is
# checked when it is loaded: other weights are refused.

# %%
print("result:", result.save(folder / "unit16"))
path = lens.save(folder / "unit16.safetensors")
again = FeatureLens.load(path, model)
same = again.visualize(pictures, strength=0).responses["increase"]
assert same.equal(lens.visualize(pictures, strength=0).responses["increase"])
print("lens:", path)
