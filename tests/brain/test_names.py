"""One name, or a number, where several names are expected."""

import numpy as np
import pytest
import torch
from torch import nn

from vislens_interp.brain import Experiment, OutsideEncoder, preference_map
from vislens_interp.brain.backbone import Backbone
from vislens_interp.brain.planted import plant
from vislens_interp.brain.readers.trials import name_targets, pair_by_name
from vislens_interp.brain.table import read_table
from vislens_interp.preprocess import Preprocess

IMAGES = torch.rand(4, 3, 8, 8)
CALLS = {
    "layers": lambda given: Backbone(nn.Conv2d(3, 4, 3), given, preprocess=Preprocess(8, [0.5], [0.5])),
    "channels": lambda given: OutsideEncoder(lambda x: x, given, size=8),
    "targets": lambda given: OutsideEncoder(lambda x: x, ["V4", "V"], size=8, targets=given),
    "names": lambda given: plant(given, IMAGES, 1.0),
    "axes": lambda given: preference_map(np.eye(2), axes=given, places=["a", "b"]),
    "places": lambda given: preference_map(np.eye(2), axes=["a", "b"], places=given),
    "axes of a map": lambda given: preference_map(np.eye(2), axes=["a", "b"], places=["c", "d"]).known_axes(given),
    "targets of a reader": lambda given: name_targets(given, ["a", "b"], "regions"),
    "names of a reader": lambda given: pair_by_name(["V4"], IMAGES[:2], source="events", names=given),
}


@pytest.mark.parametrize("given", ["V4", 3])
@pytest.mark.parametrize("call", CALLS)
def test_one_name_is_refused_where_several_are_expected(call, given):
    with pytest.raises(
        TypeError, match=f"{call.split()[0]}={given!r} is a {type(given).__name__}; expected a sequence"
    ):
        CALLS[call](given)


def test_targets_of_a_table_and_an_experiment(tmp_path):
    (tmp_path / "table.csv").write_text("image,V4\na.png,1\n")
    for given in ("V4", 3):
        for call in (
            lambda given=given: read_table(tmp_path / "table.csv", targets=given),
            lambda given=given: Experiment(IMAGES, "cifar10", given, tmp_path / "new"),
        ):
            with pytest.raises(TypeError, match=f"targets={given!r} is a {type(given).__name__}; expected a sequence"):
                call()
