"""The global random states that other people's code draws from: seen, and put back."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
import torch

SEEDS = 2**32
"""Seeds are below this, which all generators take: NumPy's limit."""
NOISE_SEEDS = 2**63
"""Noise seeds of images are below this: torch alone draws from them."""


def check_seed(seed: object, argument: str = "seed", below: int = SEEDS) -> int:
    """A seed as an int, or an error before any work.

    Args:
        seed: What was given.
        argument: Its name in the message.
        below: What it has to be less than.

    Raises:
        ValueError: It is no whole number of at least 0 below that.

    >>> check_seed(np.int64(3))
    3
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < below:
        raise ValueError(f"{argument}={seed!r}; expected a whole number from 0 to {below - 1}, such as 0.")
    return int(seed)


def check_seeds(seeds: int | Sequence[int] | np.ndarray | torch.Tensor) -> int | list[int]:
    """One noise seed, or a sequence of them, as :func:`check_seed` takes each."""
    if isinstance(seeds, (np.ndarray, torch.Tensor)) and seeds.ndim == 1:
        seeds = seeds.tolist()
    if isinstance(seeds, Sequence) and not isinstance(seeds, str):
        return [check_seed(seed, "seeds", NOISE_SEEDS) for seed in seeds]
    return check_seed(seeds, "seeds", NOISE_SEEDS)


def random_states() -> tuple[Any, ...]:
    """The same afterwards if nobody drew random numbers of Python, NumPy or torch (on the CPU) meanwhile."""
    name, keys, place, *_ = np.random.get_state()  # noqa: NPY002 (what a model's own code may draw from)
    return random.getstate(), name, np.asarray(keys).tobytes(), place, torch.get_rng_state().numpy().tobytes()


@contextmanager
def kept_random_state(*, seed: int | None = None) -> Iterator[None]:
    """Afterwards the random state of torch (CPU and CUDA), NumPy and Python is as it was.

    Args:
        seed: Of all of them inside; None leaves them as they are.
    """
    cpu, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 (the state that other people's code draws from)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        if seed is not None:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
        yield
    finally:
        torch.set_rng_state(cpu)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
