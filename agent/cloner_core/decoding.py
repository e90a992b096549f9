"""What every program that decodes with msgspec must know: what its decoders raise, and when they may be used.

More than its own error: text that is not UTF-8 is a UnicodeDecodeError, and nesting without end a RecursionError.
Every reader of bytes from outside catches `UNREADABLE`.

A program with threads calls `settle_types` before it starts the second one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def settle_types() -> None:
    """Have msgspec look through every Struct that is defined by now; those of packages named `cloner_…`.

    It does so when a type is decoded for the first time, and hands the half-read type to a second thread that decodes
    it meanwhile (0.22.0: struct_info is set before it is filled), which ends the process by a segmentation fault.
    """
    for struct in set(_structs(msgspec.Struct)):
        if struct.__module__.startswith("cloner_"):
            # What msgspec cannot decode nobody decodes: values of ours that never leave the process.
            with contextlib.suppress(TypeError):
                msgspec.json.Decoder(struct)


def _structs(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for struct in base.__subclasses__():
        yield struct
        yield from _structs(struct)
