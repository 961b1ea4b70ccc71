# %% [markdown]
# # Are these pictures to be believed?
#
# A picture of what a unit prefers is a claim: whoever sees it should be able to say how the unit treats photographs. An
# audit tests the claim, with tests that can fail. Here are three units: one whose pictures are to be believed, one
# whose recorded responses belong to other photographs, and one that was fooled, so that optimised pictures of it show
# something else. It needs no files and takes a minute.

# %%
import os
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from vislens_interp import FeatureLens, LayerTarget, ReferenceSet, zoo
from vislens_interp.audit.fooling import agreement, fool
from vislens_interp.audit.material import independent_judge
from vislens_interp.backends.base import get_backend
from vislens_interp.methods import method_by_name

folder = Path(os.environ.get("VISLENS_TUTORIALS") or tempfile.mkdtemp(prefix="vislens-")) / "09_audit"
folder.mkdir(parents=True, exist_ok=True)
print("figures go to", folder)
UNIT, DECOY = 122, 123

# %% [markdown]
# ## A unit that is to be believed
#
# The ConvNet is small, the edits take five steps, and the judge sees pictures at 128 px: for speed. `lens.audit()` lets
# the photographs judge that the fit held out: 36, too few to be sure of much. So a third of the photographs is kept for
# the audit here. Have as many as you can: with few, tests fail for want of evidence.

# %%
model = zoo.load("cifar10_convnet")
backend = get_backend("embedded", steps=5)
every = ReferenceSet.of_backend(backend)  # six crops of each photograph, the first of them whole
photographs = every.at([row for row in range(0, len(every), 3) if row % 18 >= 6])
others = every.images[list(range(0, len(every), 18))]
lens = FeatureLens(model, "conv3", UNIT, backend=backend).fit(photographs)
judge, _ = independent_judge(lens.target, 128)


def ascent(steps=24):
    """Activation maximisation in pixels, at the size that the network takes."""
    return method_by_name("pixel_maximization", steps=steps, size=32, lr=0.1)


honest = lens.audit(
    others, methods={"edit": "edit", "natural_images": "natural_images", "ascent": ascent()}, judge=judge
)
print(honest)
for row in honest.of("edit"):
    print(f"- {row.test}: {row.state} {row.number}. {row.meaning}")

# %% [markdown]
# A verdict is a list of tests, not a number. The judge is SqueezeNet: neither the network that is audited nor the
# one in which the edits were made. One test fails here, `paths`: an edit keeps most of the photograph that it starts
# from, and its activations go a small part of the way that those of top photographs go. `honest.save(folder)` writes a
# page and JSON.

# %%
honest.save(folder / "honest")

# %% [markdown]
# ## A unit that is not
#
# The same responses, dealt out to the wrong photographs, as happens when a table is sorted in another order than its
# images. Evidence refuses the fit, and its pictures do not tell how the unit treats photographs.

# %%
order = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(0))
wrong = FeatureLens(model, "conv3", UNIT, backend=backend)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library notices that the network answers otherwise
    wrong.fit(photographs, responses=lens.reference_set.responses[order])
print(wrong.evidence_[str(UNIT)])
untrue = wrong.audit(others, methods=["natural_images"], judge=judge)
print(untrue)

# %% [markdown]
# ## A unit that was fooled
#
# Geirhos et al. (2024) built networks whose optimised pictures show anything, while photographs are answered as
# before. Here a detector in the layer tells photographs from pictures that ascents make, and switches the unit to
# another channel for these.

# %%
learned = lens.reference_set.learned()
natural = learned.images[:]
made = []
for unit in (UNIT, DECOY):
    target = LayerTarget(model, "conv3", unit)
    for steps in (1, 24):
        maker = ascent(steps).fit(target, backend, learned.with_responses(target.responses(natural)))
        made.append(maker.generate(natural[:8], {0: "increase"}, seeds=range(8)).images)
fooled = fool(lens.target, natural, torch.cat(made), construction="switch", decoy=DECOY)
print(f"responses to photographs that nobody used: r = {agreement(lens.target, fooled, others):.6f}")

deceived = FeatureLens(fooled, backend=backend).fit(photographs)
caught = deceived.audit(others, methods={"natural_images": "natural_images", "ascent": ascent()}, judge=judge)
print(caught)
print("the landscape learnt the same:", torch.equal(deceived.landscape_.responses, lens.landscape_.responses))

# %% [markdown]
# The ascent climbs what the detector switched to. A landscape learns from responses to photographs, which are the same
# bits: its edits of the fooled unit are those of the honest one. That is a reason to use them, and it holds of every
# method that learns from photographs.

# %%
shown = {
    "honest unit, edit": (honest, "edit"),
    "honest unit, top photographs": (honest, "natural_images"),
    "wrong photographs, top photographs": (untrue, "natural_images"),
    "honest unit, ascent": (honest, "ascent"),
    "fooled unit, ascent": (caught, "ascent"),
}
figure, axes = plt.subplots(len(shown), 6, figsize=(8, 8.6))
figure.subplots_adjust(left=0.01, right=0.99, top=0.96, bottom=0.01, hspace=0.25, wspace=0.05)
for row, (title, (result, method)) in zip(axes, shown.items(), strict=True):
    for place, axis in enumerate(row):
        axis.imshow(result.pictures[method][place].permute(1, 2, 0).numpy())
        axis.set_axis_off()
    test = result.of(method)[0]
    row[0].set_title(f"{title}: {test.test} {test.state}, {test.number}", loc="left", fontsize=9)
figure.savefig(folder / "pictures.png", dpi=110)
