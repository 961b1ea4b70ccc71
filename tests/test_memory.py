"""Memory that a process keeps for itself."""

import os
import platform
import subprocess
import sys

import pytest

ASKS = """
import resource, torch
from vislens_interp.memory import keep_freed_memory
{keep}
torch.ones(2**22).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(keep):
    """Pages that a process asks the system for, in twenty rounds of 64 MiB."""
    command = [sys.executable, "-c", ASKS.format(keep=keep)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}  # glibc's own
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc, which the settings are of")
def test_a_process_that_keeps_its_memory_asks_for_it_less_often():
    assert pages("assert keep_freed_memory()") * 2 < pages("")
