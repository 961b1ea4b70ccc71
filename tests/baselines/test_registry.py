"""Methods by name."""

import pytest

from vislens_interp.baselines import METHODS, method
from vislens_interp.baselines.controls import Shuffled
from vislens_interp.method import LandscapeMethod


@pytest.mark.parametrize("name", METHODS)
def test_every_name_makes_a_method(name):
    made = method(name)
    assert callable(made.fit)
    assert callable(made.generate)
    assert made.__doc__


def test_settings_reach_the_method():
    assert method("centroids", alpha=0.3).alpha == 0.3
    assert method("edit", epochs=3).settings == {"epochs": 3}
    shuffled = method("shuffled", seed=4, epochs=3)
    assert isinstance(shuffled, Shuffled)
    assert isinstance(shuffled.method, LandscapeMethod)
    assert (shuffled.seed, shuffled.method.seed, shuffled.method.settings) == (5, 4, {"epochs": 3})


def test_what_is_not_there_is_named_with_what_is_near():
    with pytest.raises(ValueError, match=r"method='ridge_patern' is unknown; expected one of edit.*Closest: ridge_pat"):
        method("ridge_patern")
    with pytest.raises(TypeError, match=r"angl= is no setting of method 'ridge_pattern'. Closest: angle"):
        method("ridge_pattern", angl=3)
    with pytest.raises(TypeError, match=r"xyz= is no setting of method 'unedited'. Known: strength"):
        method("unedited", xyz=3)
    with pytest.raises(TypeError, match=r"technique='edit', but method 'optimize' stands for technique='optimize'"):
        method("optimize", technique="edit")
