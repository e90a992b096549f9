"""Starts a command of the kit: `kit-start.py MODULE:FUNCTION ARGUMENTS…` calls it.

Must not do anything a program that it starts would inherit: those are the node's own.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys
from pathlib import Path


def find_library(name: str) -> str | None:
    """Return the kit's own library; Python's search asks the ldconfig of the node."""
    found = sorted(Path(sys.prefix, "lib/x86_64-linux-gnu").glob(f"lib{name}.so*"))
    return str(found[0]) if found else None


ctypes.util.find_library = find_library
# OpenSSL reads its settings now: those of the node may name modules for another OpenSSL.
os.environ["OPENSSL_CONF"] = os.devnull
importlib.import_module("ssl")
del os.environ["OPENSSL_CONF"]
del sys.argv[0]
module, _, function = sys.argv[0].partition(":")
sys.exit(getattr(importlib.import_module(module), function)())
