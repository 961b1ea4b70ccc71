"""Where benchmarks that are running look for parts of :mod:`benchmarks.common.script`."""

from benchmarks.common.script import RESULTS, ROOT, provenance, provenance_line  # noqa: F401
