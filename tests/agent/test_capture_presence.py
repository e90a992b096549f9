"""What fstab mounts is there when the running system is captured, or somebody said that it may be missing."""

from __future__ import annotations

import pytest

from cloner_agent.capture.presence import require_mounted
from cloner_core.errors import RefusedError

FSTAB = b"""
UUID=a / ext4 defaults 0 1
UUID=b /srv xfs defaults 0 2
UUID=c /data ext4 noauto,x-systemd.automount 0 2
UUID=d /spare ext4 nofail 0 2
UUID=e /later ext4 noauto 0 2
/srv/x /bound none bind 0 0
head:/home /home nfs defaults 0 0
UUID=f none swap sw 0 0
"""


def mountinfo(*mounts: tuple[str, str]) -> bytes:
    return b"".join(f"20 1 8:1 / {path} rw - {kind} source rw\n".encode() for path, kind in mounts)


class Machine:
    """Mounts what is touched and stands in `demand`."""

    def __init__(self, *mounts: tuple[str, str], demand: str = "") -> None:
        self.mounts = list(mounts)
        self.demand = demand

    def read(self) -> bytes:
        return mountinfo(*self.mounts)

    def touch(self, path: str) -> None:
        if path != f"{self.demand}/.":
            raise OSError
        self.mounts.append((self.demand, "ext4"))

    def require(self, *excludes: str) -> tuple[str, ...]:
        return require_mounted(FSTAB, excludes, read=self.read, touch=self.touch)


def test_what_is_mounted_on_demand_is_asked_for() -> None:
    machine = Machine(("/", "ext4"), ("/srv", "xfs"), ("/data", "autofs"), ("/spare", "ext4"), demand="/data")
    assert machine.require() == ()
    assert machine.mounts[-1] == ("/data", "ext4")
    machine = Machine(("/", "ext4"), ("/srv", "xfs"), ("/data", "ext4"), ("/efi", "autofs"), demand="/efi")
    assert machine.require() == ("/spare",)
    assert machine.mounts[-1] == ("/efi", "ext4")


def test_what_is_not_there_is_refused_by_name_unless_it_may_be_missing() -> None:
    machine = Machine(("/", "ext4"), ("/data", "autofs"))
    with pytest.raises(RefusedError, match=r"/srv \(from UUID=b\), /data \(from UUID=c\), and nothing") as told:
        machine.require()
    assert "--exclude-paths /srv,/data" in told.value.hint
    assert machine.require("/srv", "/d*") == ("/spare",)
    assert machine.require("/srv", "/data", "/spare") == ()
