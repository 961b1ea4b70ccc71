"""Where benchmarks that are running look for parts of :mod:`benchmarks.common.script`."""

from benchmarks.common.script import publish, read, read_all, refuse_other_settings, save_cell  # noqa: F401
