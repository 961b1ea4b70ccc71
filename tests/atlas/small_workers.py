"""Work that goes wrong on a worker, for test_executors.py; each takes the arguments of ``run_shard``."""

import os
import signal
from pathlib import Path

from vislens_interp.atlas import run
from vislens_interp.atlas.run import run_shard


def dies_at_first(folder, number, *rest):
    """``run_shard`` on a machine that goes away while it makes shard 0 for the first time."""
    mark = Path(folder) / ".died"
    if number == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run_shard(folder, number, *rest)


def fails_for_unit_2(folder, number, *rest):
    """``run_shard`` with a unit that cannot be painted."""
    paint = run.paint

    def refuse(loop, inputs, directions, **size):
        fit = run._maker(folder, run.read_manifest(Path(folder))["fit"]["key"], None).fit
        if any((directions == fit.directions[fit.column_of[2]]).all(1)):
            raise ValueError("unit 2 cannot be painted")
        return paint(loop, inputs, directions, **size)

    run.paint = refuse
    try:
        return run_shard(folder, number, *rest)
    finally:
        run.paint = paint
