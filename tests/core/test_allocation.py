"""Freed memory is kept: the second buffer of some MiB costs no page faults."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

_MIB = 1 << 20
_FAULTS = """
import ctypes, resource, sys
PR_SET_THP_DISABLE = 41  # a page of 2 MiB would be one fault, whoever keeps it
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
from cloner_core.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def use(): bytes(bytearray(4 << 20))
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8): use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    told = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return int(subprocess.run((sys.executable, "-c", _FAULTS, how), check=True, capture_output=True, env=told).stdout)


def test_big_buffers_are_used_again_without_page_faults() -> None:
    pages = 8 * 2 * 4 * _MIB // resource.getpagesize()
    assert _faults("keep") < pages // 50
    assert _faults("leave") > pages // 3, "the allocator keeps them by itself: the call is not needed any more"
