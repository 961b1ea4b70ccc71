# %% [markdown]
# # Which method should I believe?
#
# A picture of what a unit prefers is worth what it was compared with. Here one unit is asked by several methods: the
# same pictures, the same seeds, the same judge. Three move pictures as the unit's responses say; the last is a control that
# knows nothing.
#
# Figures go to the folder that `VISLENS_TUTORIALS` names, or to a new temporary one.

# %%
import os
import tempfile
from pathlib import Path

import torch

from vislens_interp import FeatureLens, zoo

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "05_compare_methods"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)

lens = FeatureLens(zoo.load("cifar10_convnet"), "conv3", unit=16, backend="cifar10")
lens.fit(epochs=1, shuffles=0)  # no shuffled fit: quick, and said in every figure as weak evidence
print(lens.summary())

# %% [markdown]
# ## A judge that made nothing
#
# How alike two pictures are has to be asked elsewhere than in the unit's own network, or in the landscape. With a
# trained network at hand, give its features. This tutorial brings no second one, so it looks at colours on a coarse
# grid: crude, but nobody's.


# %%
def colours(images):
    return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)


# %% [markdown]
# ## Compare
#
# `methods` are names, or methods with settings of their own; `"optimize"`, which climbs the unit's gradient,
# and `"shuffled"`, a landscape of responses that belong to other pictures, take longer: add them. One seed and six pictures make this quick, and the intervals wide. Each finished method is kept in
# `folder`: interrupt this, run it again, and it goes on.
#
# `natural_images`, the top pictures that drive the unit most, belongs into every such table. It is not in this one: the
# reference pictures here are synthetic, and a lens refuses to call them natural. Fit on photographs, and it is there.

# %%
pictures, _ = lens.example_images(6)
comparison = lens.compare(
    pictures,
    ["edit", "ridge_pattern", "difference_of_means", "unedited"],
    seeds=(0,),
    features=colours,
    folder=folder / "kept",
)
print(comparison.to_markdown(folder / "table.md"))

# %% [markdown]
# ## Read it
#
# The notes below the table come first. Are the budgets equal? An optimiser asks the network for every picture again and
# again; an edit never does. How far did the edits turn? Then the control: what `unedited`
# reaches, the pipeline does by itself.
#
# A difference is paired: the same picture and the same seed. One unit says nothing about other units, and the notes say
# so. `Comparison.join([...])` puts several lenses together; the intervals are then over units.

# %%
for method in comparison.methods[1:]:
    print("edit minus", method, comparison.difference("edit", method, "increase", "response_change"))
comparison.to_csv(folder / "table.csv")

# %% [markdown]
# ## Look at it
#
# Numbers first, pictures then, for the eye believes too easily.

# %%
comparison.scores_figure().savefig(folder / "scores.png")
comparison.figure().savefig(folder / "pictures.png")
