"""Ray as an executor: the one engine of docs/atlas.md that brings none of its own."""

from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from typing import Any

from vislens_interp.validation import missing_library


class RayExecutor:
    """Tasks of a Ray cluster in the form of ``concurrent.futures``, for ``Atlas.save(executor=...)``.

    Args:
        options: Of ``ray.remote``, such as ``num_cpus=1`` or ``max_retries=0``. Ray itself repeats a task whose worker
            died, three times if nothing else is said.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: There is no cluster; ``ray.init()`` starts or joins one.
    """

    def __init__(self, **options: object) -> None:
        try:
            ray = import_module("ray")
        except ImportError as error:
            raise missing_library("RayExecutor needs ray", "cluster") from error
        if not ray.is_initialized():
            raise RuntimeError(
                "RayExecutor found no Ray cluster; expected one that this process has joined. Call ray.init() before."
            )
        self._remote: Callable[[Any], Any] = ray.remote(**options) if options else ray.remote

    def submit(self, work: Callable[..., object], /, *arguments: object) -> Future:
        """Start ``work(*arguments)`` on a worker."""
        return self._remote(work).remote(*arguments).future()
