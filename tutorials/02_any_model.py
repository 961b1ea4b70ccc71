# %% [markdown]
# # Any model
#
# A unit is whatever a layer of a network says with one number a picture: a channel of a map, a feature of a token, a
# class score, a direction that you found yourself. Here five of them are read and shown, each in a line or two.
#
# The convolution network travels with this package and is trained. The vision transformer here is made on the spot
# with **random weights**, because nothing is downloaded: what it prefers means little, where to point a lens is the
# same. For a trained one write `timm.create_model("vit_small_patch16_224", pretrained=True)`, and leave `preprocess=`
# out.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

import timm
import torch

from vislens_interp import Direction, FeatureLens, Preprocess, list_units, read_responses, zoo
from vislens_interp.backends.base import get_backend

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "02_any_model"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

convnet = zoo.load("cifar10_convnet")
torch.manual_seed(0)
vit = timm.create_model(
    "vit_tiny_patch16_224", pretrained=False, img_size=32, patch_size=4, depth=3, embed_dim=96, num_heads=3
).eval()
pixels = Preprocess(32, [0.5], [0.5])

# %% [markdown]
# ## What is where
#
# `list_units` runs the network once and follows what each axis of each layer's output holds. A transformer's layers
# give tokens, (images, tokens, features): `NLC`, the channels last. One token, before those of the patches, is the
# class token.

# %%
for info in list_units(vit, preprocess=pixels):
    if info.name in ("", "patch_embed.proj", "blocks.2", "blocks.2.mlp.fc1", "head"):
        print(f"{info.name or '(output)':<18} {info.kind:<18} {info.shape!s:<12} {info.layout:<5} {info.n_units} units")

# %% [markdown]
# ## A direction
#
# A probe, a concept vector or a sparse autoencoder's feature is a linear read-out of a layer. This one is made from
# pictures: the mean activation of `conv3` for warm pictures (more red than blue) minus that for cool ones.

# %%
pictures = get_backend("cifar10").reference_images()[:600]
warmth = (pictures[:, 0] - pictures[:, 2]).mean((1, 2))
channels = read_responses(convnet, "conv3", list(range(128)), pictures)
order = warmth.argsort()
warm = Direction(channels[order[-150:]].mean(0) - channels[order[:150]].mean(0), name="warm")
found = read_responses(convnet, "conv3", warm, pictures)
print("correlation with the pictures' warmth", round(torch.corrcoef(torch.stack([found, warmth]))[0, 1].item(), 2))

# %% [markdown]
# ## Five lenses
#
# An int is a channel, pooled over the map or the tokens. `token=` reads one token instead: a number, or `"cls"`. A
# tuple such as `(0, 17)` means what Captum's neuron selectors mean: here token 0, feature 17. A class score has a name
# if the labels are known.

# %%
LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
lenses = {
    "CNN channel\nconv3, 16": FeatureLens(convnet, "conv3", unit=16, backend="cifar10"),
    "ViT channel\nblocks.1, 17": FeatureLens(vit, "blocks.1", unit=17, preprocess=pixels, backend="cifar10"),
    "ViT token\nblocks.1, cls, 17": FeatureLens(
        vit, "blocks.1", unit=17, token="cls", preprocess=pixels, backend="cifar10"
    ),
    "logit\nfrog": FeatureLens(convnet, unit="frog", labels=LABELS, backend="cifar10"),
    "direction\nconv3, warm": FeatureLens(convnet, "conv3", unit=warm, backend="cifar10"),
}
for lens in lenses.values():
    print(str(lens).splitlines()[0])

token = read_responses(vit, "blocks.1", (0, 17), pictures, preprocess=pixels)
assert torch.allclose(lenses["ViT token\nblocks.1, cls, 17"].target.responses(pictures)[:, 0], token, atol=1e-6)

# %% [markdown]
# ## One of them moved
#
# From here everything is as in the first tutorial, whatever the unit is. The direction, with a short fit on the same
# pictures: what it prefers should be warmer than what went in.

# %%
lens = lenses["direction\nconv3, warm"]
lens.fit(pictures, epochs=1, shuffles=1)
start, _ = lens.reference_set.held_out(4)
result = lens.visualize(start, strength=0)
print(result.summary())
result.figure().savefig(folder / "warm.png")
redness = {way: (images[:, 0] - images[:, 2]).mean().item() for way, images in result.images.items() if way != "inputs"}
print("red less blue:", {way: round(value, 3) for way, value in redness.items()})

# %% [markdown]
# ## All five
#
# For each unit the four pictures of the reference set that drive it most, and where in the first of them it looks:
# integrated gradients, which Captum computes (`lens.attribute`) and draws. The transformer's rows show its 4 x 4
# patches: random weights look everywhere alike.

# %%
import matplotlib.pyplot as plt  # noqa: E402
from captum.attr import visualization  # noqa: E402

from vislens_interp.images import to_pil  # noqa: E402

figure, axes = plt.subplots(len(lenses), 5, figsize=(6.5, 6), layout="constrained")
for line, (name, lens) in zip(axes, lenses.items(), strict=True):
    top = lens.top_images(4, pictures)
    look = lens.attribute(top.images[:1], n_steps=16)
    for axis, picture in zip(line, to_pil(top.images), strict=False):
        axis.imshow(picture)
    heat = look.values[0].permute(1, 2, 0).numpy()
    visualization.visualize_image_attr(heat, sign="absolute_value", plt_fig_axis=(figure, line[-1]), use_pyplot=False)
    for axis in line:
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
axes[0, 0].set_title("drive it most", fontsize=8, loc="left")
axes[0, 4].set_title("it looks at", fontsize=8, loc="left")
figure.savefig(folder / "five_units.png", dpi=150)
plt.close(figure)
