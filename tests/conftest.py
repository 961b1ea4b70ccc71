"""What every test shares: the real files, threads, and skips that say why."""

import os
from pathlib import Path

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


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real files; without it the test is skipped."""
    folder = _data_folder()
    if isinstance(folder, str):
        pytest.skip(folder)
    return folder
