# %% [markdown]
# # Compare methods
#
# A picture that drives a unit proves little by itself: noise may drive it, too. What counts is how a method does beside
# others on the same unit, from the same pictures, with the same noise and the same scorer. That is one call here.
#
# Figures and tables go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

from vislens_interp import FeatureLens, ReferenceSet, zoo
from vislens_interp.methods import METHODS
from vislens_interp.methods.activation_maximization import ActivationMaximization

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "05_compare_methods"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

# %% [markdown]
# ## Two units
#
# One unit says nothing about units, so this lens points at two, and each is moved alone; a result to publish needs
# dozens. (`Comparison.join` puts comparisons by several lenses into one.)
#
# Every eighth reference photograph of the package and no shuffled control, to be quick. Without the control the
# evidence counts as weak, which the summary says, and every table and figure after it. `lens.fit()` takes all crops.

# %%
lens = FeatureLens(zoo.load("efficientnet_lite2"), "blocks.3", unit=[17, 40])
lens.fit(ReferenceSet.of_backend(lens.backend).at(range(0, 2118, 8)), shuffles=0)
print(str(lens))

# %% [markdown]
# ## The methods
#
# All of these are known by name, and each can be given with settings of its own instead:

# %%
print(", ".join(METHODS))

# %% [markdown]
# Six of them are compared. `edit` is this library's; `difference_of_means` moves a picture along one direction;
# activation maximisation climbs the unit's gradient from noise, here for 8 steps instead of its published 512.
# `natural_images` shows the reference photographs that drive the unit most. `random_images` and `unedited` are
# controls: what cannot beat them has shown nothing. (`"shuffled"`, this library's edit after a fit on shuffled
# responses, is the hardest control, and takes another fit.)

# %%
methods = {
    "edit": "edit",
    "difference_of_means": "difference_of_means",
    "activation_max": ActivationMaximization(steps=8, chunk=2),
    "natural_images": "natural_images",
    "random_images": "random_images",
    "unedited": "unedited",
}

# %% [markdown]
# ## Compare
#
# Two photographs that no fit has seen are moved both ways. The rest of what the fit held out judges, in the features of
# another network. Pictures are finished before they are judged: rounded to 8 bits. `folder=` keeps every finished
# method, so that the same call goes on after an interruption. More `seeds=` repeat methods that draw noise.

# %%
judge = zoo.load("squeezenet1_0")


def features(images):
    """Pooled last features of a network that neither the lens nor the backend uses: (N, 512)."""
    return judge.features(judge.preprocess(images)).mean((2, 3))


start, _ = lens.reference_set.held_out(2)
comparison = lens.compare(start, methods, seeds=(0,), embedding=features, folder=folder / "parts")
print(comparison)

# %% [markdown]
# ## The table
#
# A row for each method, direction and measure, with a 95 % interval: units are drawn anew first, then pictures, then
# seeds. A change is counted the wanted way, in SDs of the unit's responses to the reference pictures: a decrease that
# went up is negative.

# %%
print(comparison.to_markdown(folder / "scores.md", ["response_change_from_input", "predictivity"]))
comparison.to_csv(folder / "scores.csv")
comparison.to_latex(folder / "scores.tex")

# %% [markdown]
# **Predictivity** asks what pictures are for: from them alone, which of two natural pictures drives the unit more?
# Guessing tells 50 % right. The unit's favourites among natural pictures are the bar: people have so far told more from
# them than from synthetic pictures (Borowski et al. 2021; Zimmermann et al. 2021). The judge here is SqueezeNet, which
# has no part in lens or backend.
#
# Two methods are compared in pairs, for they share units, pictures and seeds. Where the interval holds 0, these data do
# not tell them apart.

# %%
for row in comparison.difference("edit", "random_images", ["response_change_from_input"]):
    print(f"{row['method']}, {row['direction']}: {row['mean']:+.2f} [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]")

# %% [markdown]
# ## Look at them
#
# Numbers are no substitute. A number under a picture is the unit's change against the input.

# %%
figure = comparison.pictures_figure()
figure.savefig(folder / "pictures.png")
figure

# %% [markdown]
# ## All in one figure
#
# Read across, not down one column: a large response at no similarity is another picture, and a high similarity without
# a response is no answer. Budgets differ, and the line under the figure says how much.

# %%
figure = comparison.figure()
figure.savefig(folder / "scores.png")
figure
