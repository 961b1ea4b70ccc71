"""Where benchmarks that are running look for parts of :mod:`benchmarks.common.script`."""

from benchmarks.common.script import parser  # noqa: F401
