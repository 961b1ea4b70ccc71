# %% [markdown]
# # Any model
#
# A unit is whatever a layer of a network says with one number a picture: a channel of a map, a feature of a token, a
# class score, a direction that you found yourself. Here five of them are read and shown, each in a line or two.
#
# The networks travel with this package and are trained: EfficientNet-Lite2 and SqueezeNet on ImageNet, and a small
# vision transformer on 64-pixel pictures. Any other works the same: `timm.create_model("vit_small_patch16_224",
# pretrained=True)`.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

import torch
from torchvision.models import SqueezeNet1_0_Weights

from vislens_interp import Direction, FeatureLens, ReferenceSet, list_units, read_responses, zoo

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "02_any_model"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

lite, squeeze, vit = (zoo.load(name) for name in ("efficientnet_lite2", "squeezenet1_0", "vit_tiny64"))

# %% [markdown]
# ## What is where
#
# `list_units` runs the network once and follows what each axis of each layer's output holds. A transformer's layers
# give tokens, (images, tokens, features): `NLC`, the channels last. One token, before those of the patches, is the
# class token.

# %%
for info in list_units(vit):
    if info.name in ("", "patch_embed.proj", "blocks.2", "blocks.2.mlp.fc1", "head"):
        print(f"{info.name or '(output)':<18} {info.kind:<18} {info.shape!s:<13} {info.layout:<5} {info.n_units} units")

# %% [markdown]
# ## A direction
#
# A probe, a concept vector or a sparse autoencoder's feature is a linear read-out of a layer. This one is made from
# pictures: the mean activation of SqueezeNet's `features.5` for warm photographs (more red than blue) minus that for
# cool ones. The photographs travel with the package; every tenth crop is taken.

# %%
LAYER = "features.5"
reference = ReferenceSet.of_backend(FeatureLens(squeeze, LAYER, unit=0).backend).at(range(0, 2118, 10))
pictures = reference.images[:200]
warmth = (pictures[:, 0] - pictures[:, 2]).mean((1, 2))
channels = read_responses(squeeze, LAYER, list(range(256)), pictures)
order = warmth.argsort()
warm = Direction(channels[order[-50:]].mean(0) - channels[order[:50]].mean(0), name="warm")
found = read_responses(squeeze, LAYER, warm, pictures)
print("correlation with the pictures' warmth", round(torch.corrcoef(torch.stack([found, warmth]))[0, 1].item(), 2))

# %% [markdown]
# ## Five lenses
#
# An int is a channel, pooled over the map or the tokens. `token=` reads one token instead: a number, or `"cls"`. A
# tuple such as `(0, 17)` means what Captum's neuron selectors mean: here token 0, feature 17. A class score has a name
# if the labels are known.

# %%
LABELS = SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["categories"]
lenses = {
    "CNN channel\nLite2 blocks.3, 17": FeatureLens(lite, "blocks.3", unit=17),
    "ViT channel\nblocks.6, 17": FeatureLens(vit, "blocks.6", unit=17),
    "ViT token\nblocks.6, cls, 17": FeatureLens(vit, "blocks.6", unit=17, token="cls"),
    "class score\nSqueezeNet, castle": FeatureLens(squeeze, unit="castle", labels=LABELS),
    "direction\nfeatures.5, warm": FeatureLens(squeeze, LAYER, unit=warm),
}
for lens in lenses.values():
    print(str(lens).splitlines()[0])

token = read_responses(vit, "blocks.6", (0, 17), pictures[:20])
assert torch.allclose(lenses["ViT token\nblocks.6, cls, 17"].target.responses(pictures[:20])[:, 0], token, atol=1e-5)

# %% [markdown]
# ## One of them moved
#
# From here everything is as in the first tutorial, whatever the unit is. The direction, fitted on the same photographs:
# what it prefers should be warmer than what went in.

# %%
lens = lenses["direction\nfeatures.5, warm"]
lens.fit(reference)
start, _ = lens.reference_set.held_out(4)
result = lens.visualize(start)
print(result.summary())
result.figure().savefig(folder / "warm.png")
redness = {way: (images[:, 0] - images[:, 2]).mean().item() for way, images in result.images.items() if way != "inputs"}
print("red less blue:", {way: round(value, 3) for way, value in redness.items()})

# %% [markdown]
# ## All five
#
# For each unit the four photographs of sixty that drive it most, and where in the first of them it looks: integrated
# gradients, which Captum computes (`lens.attribute`) and draws.

# %%
import matplotlib.pyplot as plt  # noqa: E402
from captum.attr import visualization  # noqa: E402

from vislens_interp.images import to_pil  # noqa: E402

figure, axes = plt.subplots(len(lenses), 5, figsize=(6.5, 6), layout="constrained")
for line, (name, lens) in zip(axes, lenses.items(), strict=True):
    top = lens.top_images(4, pictures[:60])
    look = lens.attribute(top.images[:1], n_steps=8)
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
figure
