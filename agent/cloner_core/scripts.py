"""Scripts of an image: what a deploy runs before it touches a disk, and in the finished clone.

Values, their rules and the environment they are told; must not run anything. A set of scripts never changes: each
change is a new set with the next number, and a task keeps the one it was armed with.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec
from blake3 import blake3

MAX_BYTES = 64 << 10  # of one script
MAX_SCRIPTS = 32
MAX_SET_BYTES = 128 << 10  # of all together: the set travels with every task
MAX_TIMEOUT_S = 24 * 3600
DEFAULT_TIMEOUT_S = 600
DEFAULT_ORDER = 50
MAX_ORDER = 999
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PRE_INTERPRETERS = ("/bin/sh", "/usr/bin/sh", "/usr/bin/python3")
"""What the agent's initramfs has; a post-script is run by what its image has."""


class ScriptType(StrEnum):
    """When a script runs, and where."""

    PRE = "pre"  # in the agent's initramfs, before the first destructive step
    POST = "post"  # confined in the finished clone, before it is checked


class OnFailure(StrEnum):
    """What becomes of a deploy whose script fails."""

    FAIL = "fail"  # it ends
    NOTE = "note"  # it goes on, and the receipt says so


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One script. It is no place for secrets: whoever may read the image's scripts reads it."""

    type: ScriptType
    name: str
    content: str
    order: int = DEFAULT_ORDER  # the lower the earlier; alike ones by name
    on_failure: OnFailure = OnFailure.FAIL
    timeout_s: int = DEFAULT_TIMEOUT_S

    @property
    def digest(self) -> str:
        """BLAKE3 (hex) of its content."""
        return blake3(self.content.encode(errors="surrogatepass")).hexdigest()


class ScriptSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All scripts of an image, as they were at one time."""

    number: int = 0  # of the image's sets, from 1; 0 there never was one
    scripts: tuple[Script, ...] = ()

    def of_type(self, kind: ScriptType) -> tuple[Script, ...]:
        """Return those of one type, in the order they run."""
        return tuple(sorted((s for s in self.scripts if s.type is kind), key=lambda s: (s.order, s.name)))


class ScriptSetView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set as an admin sees it."""

    image: str
    version: int  # of the image: the set is for it, and for those after it until one has a set of its own
    number: int
    digest: str  # of the whole set
    created_s: float
    author: str
    scripts: tuple[Script, ...]


class ScriptChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One change of an image's scripts; what it leaves is the next set."""

    put: Script | None = None  # in the place of the one of its type and name
    remove: tuple[ScriptType, str] | None = None  # type and name
    number: int | None = None  # refused unless this is the newest set; None: whatever it is


class ScriptRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came of one script, for the receipt."""

    type: ScriptType
    name: str
    digest: str
    status: int  # exit status; 128 + N: killed by signal N; -1: it could not be run, or overran its time limit
    seconds: float


def set_digest(scripts: Sequence[Script]) -> str:
    """Return the BLAKE3 (hex) of a set."""
    return blake3(msgspec.json.encode(tuple(scripts), order="deterministic")).hexdigest()


def changed(scripts: Sequence[Script], change: ScriptChange) -> tuple[Script, ...]:
    """Return what `change` makes of `scripts`, in the order they run; `script_faults` has not looked at it yet."""
    gone = change.remove
    if change.put is not None:
        gone = change.put.type, change.put.name
    kept = [script for script in scripts if (script.type, script.name) != gone]
    if change.put is not None:
        kept.append(change.put)
    return tuple(sorted(kept, key=lambda script: (script.type is ScriptType.POST, script.order, script.name)))


def script_faults(scripts: Sequence[Script]) -> list[str]:
    """Return every fault of a set."""
    faults = [f"{n} scripts are given, at most {MAX_SCRIPTS} are taken"] if (n := len(scripts)) > MAX_SCRIPTS else []
    total = sum(len(script.content.encode(errors="surrogatepass")) for script in scripts)
    if total > MAX_SET_BYTES:
        faults.append(f"the scripts are {total} bytes together, at most {MAX_SET_BYTES} are taken")
    twice = Counter((script.type, script.name) for script in scripts)
    faults += [f"{kind} '{name}' is given {count} times" for (kind, name), count in twice.items() if count > 1]
    for script in scripts:
        faults += [f"{script.type} '{script.name}': {fault}" for fault in _faults(script)]
    return faults


def interpreter(script: Script) -> str:
    """Return the program that the first line of `script` names; "" when it names none."""
    first = script.content.partition("\n")[0]
    words = first.removeprefix("#!").split(maxsplit=1)
    return words[0] if first.startswith("#!") and words else ""


def _faults(script: Script) -> Iterator[str]:
    if not _NAME.fullmatch(script.name):
        yield "want a name of letters, digits, '.', '_' and '-', at most 64"
    if not 0 <= script.order <= MAX_ORDER:
        yield f"order {script.order} is not from 0 to {MAX_ORDER}"
    if not 1 <= script.timeout_s <= MAX_TIMEOUT_S:
        yield f"a time limit of {script.timeout_s} s is not from 1 to {MAX_TIMEOUT_S}"
    size = len(script.content.encode(errors="surrogatepass"))
    if size > MAX_BYTES:
        yield f"is {size} bytes long, at most {MAX_BYTES} are taken"
    if "\0" in script.content:
        yield "is a binary, not a script: it has a NUL byte"
        return
    first, has_end, _ = script.content.partition("\n")
    program = interpreter(script)
    if not program.startswith("/"):
        yield "the first line names no interpreter: want '#!/bin/sh', or another absolute path"
    elif first.endswith("\r"):
        yield "has the line ends of Windows, with which no interpreter is found: convert it (dos2unix)"
    elif not has_end:
        yield "has nothing after its first line"
    elif script.type is ScriptType.PRE and program not in PRE_INTERPRETERS:
        yield f"'{program}' is not in the agent's initramfs, which has {', '.join(PRE_INTERPRETERS)}"


def script_environment(script: Script, told: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of `script`: what is `told` of the deploy, and what the script is itself."""
    return {**told, "CLONER_SCRIPT": script.name, "CLONER_TYPE": script.type.value}
