"""Settings: checked once, resolved from defaults and overrides, and named in every message."""

from dataclasses import FrozenInstanceError, fields
from typing import get_type_hints

import numpy as np
import pytest

from vislens_interp.config import SECTIONS, Config, EditConfig, FitConfig, Overrides, migrate, resolve


def test_the_keywords_are_the_settings():
    flat = {one.name for name in ("fit", "prior", "edit") for one in fields(SECTIONS[name])}
    assert set(get_type_hints(Overrides)) == flat | set(SECTIONS)
    for name in ("fit", "prior", "edit"):
        for setting, hint in get_type_hints(SECTIONS[name]).items():
            assert get_type_hints(Overrides)[setting] == hint, setting
    assert sum(len(fields(SECTIONS[name])) for name in ("fit", "prior", "edit")) == len(flat)  # no name twice


def test_later_overrides_win_and_defaults_stay():
    defaults = Config.of(epochs=7, optimize={"lr": 0.5, "steps": 9})
    config = resolve(defaults, {"epochs": 3, "optimize": {"steps": 4}}, {"epochs": 2, "edit": {"alpha": 0.5}})
    assert (config.fit.epochs, config.fit.lr, config.edit.alpha) == (2, 1e-4, 0.5)
    assert (config.optimize.lr, config.optimize.steps) == (0.5, 4)
    assert defaults.fit.epochs == 7
    assert config.replace(alpha=0.25).edit.alpha == 0.25
    assert Config.of(fit=FitConfig(epochs=5)).fit == FitConfig(epochs=5)
    with pytest.raises(FrozenInstanceError):
        config.fit.epochs = 1  # type: ignore[misc]


def test_a_config_survives_json():
    config = Config.of(modes=3, goal="mean", residual="fade", optimize={"strength": 0.5})
    assert Config.from_dict(config.to_dict()) == config


def test_several_modes_widen_a_default_block_only():
    defaults = Config.of(block_dim=1)
    assert resolve(defaults, {"modes": 3}).prior.block_dim == 6
    assert resolve(defaults, {"modes": 3, "block_dim": 4}).prior.block_dim == 4
    assert resolve(Config(), {"modes": 3}).prior.block_dim is None


def test_a_strength_of_its_own_after_an_optimisation():
    assert Config.of(strength=0.3).optimize_strength == 0.3
    assert Config.of(strength=0.3, optimize={"strength": 0.6}).optimize_strength == 0.6


def test_numbers_of_numpy_are_numbers():
    assert FitConfig(epochs=np.int64(3), lr=np.float32(0.5)).epochs == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epoch": 3}, "epoch= is no setting of the landscape. Closest: epochs"),
        ({"reach": 3.0}, "reach= is no setting of the landscape. It is called axis_scale_sd now"),
        ({"optimize_reach": 3.0}, r"Pass optimize=\{'prior_mean_scale': ...\}"),
        ({"optimize": {"stepz": 3}}, r"optimize\['stepz'\] is no setting of optimize. Closest: steps"),
        ({"optimize": {"reach": 3}}, r"It is called prior_mean_scale now"),
        ({"optimize": {"steps": 2.5}}, "optimize.steps=2.5 is a float; expected a whole number"),
        ({"fit": 3}, "fit=3 is a int; expected a mapping of settings, or a FitConfig"),
        ({"epochs": True}, "epochs=True is a bool; expected a whole number"),
    ],
    ids=str,
)
def test_names_and_types(overrides, message):
    with pytest.raises(TypeError, match=message):
        Config.of(**overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"strength": 1.5}, r"strength=1.5 must lie in \[0, 1\]"),
        ({"optimize": {"strength": -1.0}}, r"strength=-1.0 must lie in \[0, 1\]"),
        ({"shuffles": -1}, "shuffles=-1 must not be negative"),
        ({"goal": "local_mean", "mode": 1}, "mode=1 names a prior mean, to which goal='local_mean' does not lead"),
        ({"optimize": {"scale": "sd"}}, "scale='sd' is unknown; expected 'latent', 'spread' or 'response'"),
    ],
    ids=str,
)
def test_values(overrides, message):
    with pytest.raises(ValueError, match=message):
        Config.of(**overrides)


def test_an_old_goal_still_works_with_a_warning():
    with pytest.warns(FutureWarning, match="goal='uphill' is called 'surrogate_ascent' now"):
        assert Config.of(goal="uphill").edit == EditConfig(goal="surrogate_ascent")


def test_migration_leaves_todays_names_alone():
    today = Config.of(goal="local_mean", cross_talk_steps=1).to_dict()
    assert migrate(today) == today
    old = {"hold": 2, "goal": "near", "organise": False, "optimize_reach": 3.0, "epochs": 1}
    assert resolve(Config(), migrate(old)) == Config.of(
        cross_talk_steps=2, goal="local_mean", closed_form_init=False, optimize={"prior_mean_scale": 3.0}, epochs=1
    )
