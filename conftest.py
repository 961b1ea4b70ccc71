"""What every test and docstring example shares: the real files, threads, one seed, and skips that say why."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch


def _data_folder() -> Path | str:
    """The folder of real files, or the reason why there is none."""
    value = os.environ.get("VISLENS_DATA")
    if not value:
        return "VISLENS_DATA is not set: it should name the folder of real files (docs/data.md)"
    if not Path(value).is_dir():
        return f"VISLENS_DATA={value!r} is no folder"
    return Path(value).resolve()


def pytest_configure(config):
    # One for each of pytest-xdist's workers: more of them than cores wait for one another.
    torch.set_num_threads(1 if hasattr(config, "workerinput") else 2)


def pytest_collection_modifyitems(items):
    folder = _data_folder()
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False"))
        if item.get_closest_marker("data") and isinstance(folder, str):
            item.add_marker(pytest.mark.skip(reason=folder))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Random numbers do not depend on the tests that ran before; VISLENS_TEST_SEED asks for others."""
    seed = int(os.environ.get("VISLENS_TEST_SEED", "0"))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries that draw from the global state)
    torch.manual_seed(seed)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real files; without it the test is skipped."""
    folder = _data_folder()
    if isinstance(folder, str):
        pytest.skip(folder)
    return folder
