"""How processes of this machine use their memory."""

import ctypes
import subprocess
import sys

import pytest

WORK = """
import resource
from mantis.processes import keep_freed_memory
{first}
def allocate():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytes([1]) * 2**22 for _ in range(20)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
allocate()
print(sum(allocate() for _ in range(5)))
"""


def page_faults(first: str) -> int:
    """Page faults of a process that allocates and frees 80 MiB five times, after it has done so once."""
    command = [sys.executable, "-c", WORK.format(first=first)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_used_again() -> None:
    assert 10 * page_faults("keep_freed_memory()") < page_faults("")
