"""Snapshots of a running system: on real subvolumes, and what is asked of LVM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

import cloner_agent
from cloner_agent.capture.mounts import Boundaries, Mount
from cloner_agent.capture.snapshot import _Live, _Maker, _Volume
from cloner_agent.host import Completed, ToolError
from cloner_core.sizes import GIB

SYSTEM = """
set -e
disk=$1/disk; root=$1/root; mkdir $1/top $root
mount -o loop $disk $1/top; device=$(losetup -nO NAME -j $disk)
for name in @ @home @/nested @/nested/deep @/covered; do btrfs -q subvolume create $1/top/$name; done
mount -o subvol=@ $device $root; mkdir $root/home; mount -o subvol=@home $device $root/home
for name in file home/file nested/file nested/deep/file covered/file; do echo before > $root/$name; done
touch -d @1000000000 $root/nested
mkdir $root/proc $root/run $root/dev $root/tmp
for folder in bin sbin lib lib64 usr dev $2; do mkdir -p $root/$folder; mount --rbind /$folder $root/$folder; done
for folder in run tmp covered; do mount -t tmpfs tmpfs $root/$folder; done
mount -t proc proc $root/proc
echo hidden > $root/covered/file
PYTHONPATH=$4 exec chroot $root $3 -c "$5"
"""
LOOK = """
import os, signal, sys, time
from pathlib import Path
from cloner_agent.capture.snapshot import snapshotted
from cloner_agent.capture.survey import survey
from cloner_agent.host import run

def left():
    return sorted(name for folder in ("/", "/home") for name in os.listdir(folder) if "cloner-snapshot" in name)

if not os.fork():
    with snapshotted(run):
        os._exit(0)  # as a kill would
os.wait()
print(len(left()))
names = ["file", "home/file", "nested/file", "nested/deep/file"]
with snapshotted(run) as view:
    for name in names:
        Path("/", name).write_text("after")
    print([(view.root / name).read_text().strip() for name in names])
    print((view.root / "nested").stat().st_mtime)
    excludes = ("/bin", "/sbin", "/lib", "/lib64", "/usr", "/nested/deep")
    told = survey(view.root, excludes, None, allow_secrets=False, closed=view.closed)
    print([one.path for one in told.mounts], told.data_bytes, view.live, view.troubles)
for ending in (signal.SIGHUP, signal.SIGTERM):
    try:
        with snapshotted(run):
            os.kill(os.getpid(), ending)
            time.sleep(60)
    except KeyboardInterrupt:
        print(ending.name, left())
print(left(), [Path("/", name).read_text() for name in names])
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_system_on_btrfs_is_seen_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    os.truncate(tmp_path / "disk", 256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", tmp_path / "disk"], check=True, capture_output=True)
    checkout = Path(cloner_agent.__file__).parents[2]
    argv: list[str | Path] = ["unshare", "-m", "sh", "-c", SYSTEM, "sh", tmp_path, str(checkout)[1:]]
    argv += [sys.executable, ":".join(sys.path), LOOK]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    killed, before, mtime, surveyed, hung_up, ended, after = done.stdout.splitlines()
    assert killed == "2", "the snapshots of / and /home that a kill leaves"
    assert before == str(["before"] * 4)
    assert mtime == "1000000000.0", "a nested subvolume put in its place is no change"
    # Three files: what is beneath the mount on /covered is not seen on the running system either.
    assert surveyed == f"['/', '/home'] {3 * len('before' + chr(10))} () []"
    assert (hung_up, ended) == ("SIGHUP []", "SIGTERM []"), "who loses the terminal leaves no snapshot"
    assert after == f"[] {['after'] * 4}"


VOLUME = {
    "vg_name": "vg0",
    "lv_name": "root",
    "lv_path": "/dev/vg0/root",
    "lv_size": str(8 * GIB),
    "vg_free": str(20 * GIB),
    "lv_layout": "linear",
}


class Lvm:
    """Stands for the tools of LVM: answers what it has, and keeps what it was asked."""

    def __init__(self, *volumes: dict[str, str], is_stuck: bool = False) -> None:
        self.volumes = volumes
        self.is_stuck = is_stuck
        self.asked: list[str] = []

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        if argv[0] == "lvs":
            if not self.volumes:
                raise ToolError(argv, 127, "no such program")
            return Completed(tuple(argv), 0, json.dumps({"report": [{"lv": list(self.volumes)}]}), "", 0.0)
        self.asked.append(" ".join(argv))
        if self.is_stuck and argv[0] == "lvremove":
            raise ToolError(argv, 5, "Logical volume is in use.")
        return Completed(tuple(argv), 0, "", "", 0.0)


def snapshot(lvm: Lvm, device: bytes = b"/dev/vg0/root") -> tuple[object, list[str]]:
    with ExitStack() as made:
        maker = _Maker(lvm, Boundaries({}, frozenset()), made)
        source = maker.snapshot(Mount(b"/", b"254:0", b"/", "ext4", device))
    return source, maker.troubles


def test_a_volume_gets_a_snapshot_with_room_for_a_fifth_of_it() -> None:
    lvm, name = Lvm(VOLUME), f"cloner-snapshot-{os.getpid()}-1"
    assert snapshot(lvm) == (_Volume(f"/dev/vg0/{name}"), [])
    room = 8 * GIB // 5
    assert lvm.asked == [
        f"lvcreate --yes --snapshot --size {room}b --name {name} vg0/root",
        f"lvremove --yes vg0/{name}",
    ]


def test_a_thin_volume_needs_no_room() -> None:
    lvm = Lvm(VOLUME | {"lv_layout": "thin,sparse", "vg_free": "0"})
    snapshot(lvm)
    assert "--setactivationskip n" in lvm.asked[0]
    assert "--size" not in lvm.asked[0]


@pytest.mark.parametrize(
    ("volumes", "device", "why"),
    [
        ((VOLUME | {"vg_free": "1048576"},), b"/dev/vg0/root", "has 1.0 MiB left"),
        ((VOLUME,), b"/dev/sda2", "neither a subvolume of btrfs nor a volume of LVM"),
        ((), b"/dev/sda2", "neither a subvolume of btrfs nor a volume of LVM"),
    ],
)
def test_where_no_snapshot_can_be_made_it_is_said(volumes: tuple[dict[str, str], ...], device: bytes, why: str) -> None:
    lvm = Lvm(*volumes)
    source, _ = snapshot(lvm, device)
    assert isinstance(source, _Live)
    assert why in source.why
    assert lvm.asked == []


def test_a_snapshot_that_stays_is_told() -> None:
    _, (trouble,) = snapshot(Lvm(VOLUME, is_stuck=True))
    assert trouble.startswith(f"the snapshot vg0/cloner-snapshot-{os.getpid()}-1 is left: ")
    assert trouble.endswith("Logical volume is in use.")


def test_snapshots_of_captures_that_are_no_more_are_removed() -> None:
    mine, dead = f"cloner-snapshot-{os.getpid()}-1", "cloner-snapshot-4194305-1"  # above the highest pid there is
    lvm = Lvm(*(VOLUME | {"lv_name": name} for name in ("root", mine, dead, "cloner-snapshot")))
    with ExitStack() as made:
        _Maker(lvm, Boundaries({}, frozenset()), made).remove_leftovers([])
    assert lvm.asked == [f"lvremove --yes vg0/{dead}"]
