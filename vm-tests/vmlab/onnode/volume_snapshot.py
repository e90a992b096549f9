"""A system on volumes of LVM (ext4 on one, xfs on another) of which a snapshot is taken while it changes.

The system is a copy of the one that runs, seen through chroot(8): what is snapshot is what is mounted on /.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cloner_agent.capture.snapshot import snapshotted
from cloner_agent.host import run
from vmlab.onnode.reporting import tell

_SYSTEM = Path("/system")
_COPIED = ("usr", "etc", "bin", "sbin", "lib", "lib64")
_FILES = (Path("/here"), Path("/srv/here"))


def main() -> None:
    """Build the system and go on in it."""
    if sys.argv[1:] == ["inside"]:
        _inside()
        return
    run(("pvcreate", "--yes", "/dev/vda"))
    run(("vgcreate", "group", "/dev/vda"))
    for name, size, kind in (("root", "700M", "ext4"), ("srv", "320M", "xfs")):
        run(("lvcreate", "--yes", "-Wy", "--name", name, "--size", size, "group"))
        run((f"mkfs.{kind}", "-q", f"/dev/group/{name}"))
    _SYSTEM.mkdir()
    run(("mount", "-t", "ext4", "/dev/group/root", str(_SYSTEM)))
    run(("cp", "-a", *(f"/{name}" for name in _COPIED if os.path.lexists(f"/{name}")), str(_SYSTEM)), timeout_s=240)
    for name in ("proc", "sys", "dev", "run", "srv", "tmp"):
        (_SYSTEM / name).mkdir()
    run(("mount", "-t", "xfs", "/dev/group/srv", f"{_SYSTEM}/srv"))
    for name in ("proc", "sys", "dev", "run"):
        run(("mount", "--rbind", f"/{name}", f"{_SYSTEM}/{name}"))
    os.chroot(_SYSTEM)
    os.chdir("/")
    os.execv(sys.executable, (sys.executable, __file__, "inside"))


def _inside() -> None:
    _write("before")
    if (child := os.fork()) == 0:
        with snapshotted(run):
            os._exit(9)  # as kill -9 would end a capture
    os.waitpid(child, 0)
    tell("left", _volumes())
    with snapshotted(run) as view:
        _write("after")
        os.sync()
        tell("during", _volumes())
        tell("seen", [(view.root / str(path)[1:]).read_text() for path in _FILES])
        tell("live", view.live)
        tell("troubles", view.troubles)
    tell("after", _volumes())
    tell("now", [path.read_text() for path in _FILES])


def _write(text: str) -> None:
    for path in _FILES:
        path.write_text(text)


def _volumes() -> list[str]:
    """Return the names of all volumes, without what tells one capture from another."""
    names = run(("lvs", "--noheadings", "-o", "lv_name")).stdout.split()
    return sorted("snapshot" if name.startswith("cloner-snapshot-") else name for name in names)


if __name__ == "__main__":
    main()
