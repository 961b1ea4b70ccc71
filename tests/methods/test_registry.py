"""Methods by name."""

import inspect

import pytest

from vislens_interp.methods import METHODS, method_by_name
from vislens_interp.methods.base import Method
from vislens_interp.methods.controls import Shuffled
from vislens_interp.methods.landscape import LandscapeEdit


@pytest.mark.parametrize("name", METHODS)
def test_every_name_makes_a_method(name):
    made = method_by_name(name)
    assert isinstance(made, Method)
    assert made.__doc__


def test_settings_reach_the_method():
    assert method_by_name("centroids", alpha=0.3).alpha == 0.3
    assert method_by_name("edit", epochs=3).settings() == {"epochs": 3}
    shuffled = method_by_name("shuffled", seed=4, epochs=3)
    assert isinstance(shuffled, Shuffled)
    assert isinstance(shuffled.method, LandscapeEdit)
    assert (shuffled.seed, shuffled.method.settings()) == (5, {"shuffles": 0, "seed": 4, "epochs": 3})


def test_what_is_not_there_is_named_with_what_is_near():
    with pytest.raises(ValueError, match=r"method='ridge_patern' is unknown; expected one of edit.*Closest: ridge_pat"):
        method_by_name("ridge_patern")
    with pytest.raises(TypeError, match=r"angl= is no setting of method 'ridge_pattern'. Closest: angle"):
        method_by_name("ridge_pattern", angl=3)
    with pytest.raises(TypeError, match=r"xyz= is no setting of method 'unedited'. Known: strength"):
        method_by_name("unedited", xyz=3)
    with pytest.raises(TypeError, match=r"parametrization='fourier', but method 'pixel_maximization' stands for"):
        method_by_name("pixel_maximization", parametrization="fourier")


SWITCHES = [
    (name, parameter.name)
    for name in METHODS
    for parameter in inspect.signature(type(method_by_name(name))).parameters.values()
    if "bool" in str(parameter.annotation)
]


def test_methods_have_switches():
    assert len(SWITCHES) >= 5


@pytest.mark.parametrize(("name", "switch"), SWITCHES)
@pytest.mark.parametrize("value", ["no", 0, 1.0])
def test_a_switch_is_true_or_false(name, switch, value):
    with pytest.raises(TypeError, match=f"{switch}={value!r}"):
        method_by_name(name, **{switch: value})


NUMBERS = [
    (name, setting)
    for name, entry in METHODS.items()
    for setting, known in inspect.signature(entry.load()).parameters.items()
    if type(known.default) in (int, float) or setting in ("angle", "population")
]


@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_a_number_is_a_number(name, setting):
    with pytest.raises((TypeError, ValueError), match=f"{setting}='3'.*expected"):
        method_by_name(name, **{setting: "3"})


def test_settings_that_are_no_config_are_refused():
    with pytest.raises(TypeError, match=r"config is a dict; expected a Config. Pass Config.of"):
        method_by_name("shuffled", config={"epochs": 3})
