"""A machine booted straight into our initramfs that runs a program of a test there, and tells what it found.

The place for what the kernel of the test machine lacks: arrays, volumes, encryption, btrfs and xfs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from cloner_core import newc
from cloner_initramfs import Cache
from vmlab import onnode
from vmlab.disk import Disk
from vmlab.errors import LabError
from vmlab.initramfs import initramfs
from vmlab.lab import Lab
from vmlab.machine import DirectBoot, Machine, Vm
from vmlab.onnode.reporting import MARK

_TAIL = 4000
_HOME = "usr/lib/cloner"
# /init runs it with cloner.probe=1 and switches the machine off.
_PROGRAM = f"{_HOME}/probe.py"


def run_on_node(
    lab: Lab,
    cache: Cache,
    program: str,
    disks: tuple[Disk, ...],
    *,
    name: str = "bench",
    files: Mapping[str, bytes] | None = None,
    flavour: str = "vm",
    more: tuple[str, ...] = (),
    deadline_s: float = 300,
) -> dict[str, object]:
    """Run `program` (a module of `vmlab.onnode`) on a machine with `disks`, and return what it told, by name.

    `files` (path without the leading slash: content) are in the initramfs too; `more` are arguments for QEMU.
    Raises LabError with the end of the console when the program ended with another status than 0.
    """
    home = Path(onnode.__file__).parent
    entries = [
        newc.file(_PROGRAM, (home / f"{program}.py").read_bytes()),
        newc.file(f"{_HOME}/vmlab/__init__.py", b""),
        *(
            newc.file(f"{_HOME}/vmlab/onnode/{one}", (home / one).read_bytes())
            for one in ("__init__.py", "making.py", "reporting.py")
        ),
        *(newc.file(path, content) for path, content in (files or {}).items()),
    ]
    layer = newc.pack(newc.with_parents(entries))
    built = initramfs(cache, lab.directory / f"{name}.initramfs", flavour=flavour, more=(layer,))
    direct = DirectBoot(built.kernel, built.image, "console=ttyS0 panic=-1 cloner.probe=1")
    with Machine(lab, Vm(name, disks=disks, direct=direct, reboots=False, more=more)) as machine:
        ended = machine.wait_for(r"cloner-init .*: probe ended with status (\d+)", deadline_s)
        machine.wait_off(30)
        said = machine.said()
    if ended[1] != "0":
        raise LabError(f"{program} ended with status {ended[1]} on the node:\n{said[-_TAIL:]}")
    return told(said)


def told(said: str) -> dict[str, object]:
    """Return what a program told, from all that was said on the console."""
    lines = re.findall(rf"^.*?{MARK}([\w-]+)=(.*)$", said, re.MULTILINE)
    return {name: json.loads(value) for name, value in lines}
