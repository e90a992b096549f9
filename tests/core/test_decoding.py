"""Types are decoded by several threads at once, also for the first time."""

from __future__ import annotations

import subprocess
import sys

# Threads change over in the middle of what msgspec asks of a type: the hash of an annotation takes its time.
_FOUR_THREADS = """
import sys, threading, time, typing
sys.path[:] = {path!r}
import msgspec
from cloner_core.decoding import settle_types
from cloner_core.facts import Facts
from serverbench.scene import facts

told = msgspec.json.encode(facts("52:54:00:00:00:01"))
settle_types()
plain = typing._AnnotatedAlias.__hash__
def slow(self):
    time.sleep(0.01)
    return plain(self)
typing._AnnotatedAlias.__hash__ = slow
decoded = []
def decode():
    decoded.append(msgspec.json.decode(told, type=Facts))
threads = [threading.Thread(target=decode) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert decoded == [facts("52:54:00:00:00:01")] * 4
"""


def test_four_threads_decode_a_type_for_the_first_time() -> None:
    script = _FOUR_THREADS.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    # Without `settle_types` it ends by SIGSEGV.
    assert done.returncode == 0, done.stderr
