"""Makes arrays, volume groups, encrypted and btrfs volumes on the disks of a node, then has the agent find them, let
go of them and wipe them, as a deploy does."""

from __future__ import annotations

import os
import time

from cloner_agent.holders import stop_holders
from cloner_agent.host import run
from cloner_agent.probe import probe
from vmlab.onnode.reporting import tell

CHOSEN = ("/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd", "/dev/vde")
KEPT = ("/dev/vdf", "/dev/vdg")
_LUKS = ("--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--batch-mode")
_KEY = "/run/key"


def main() -> None:
    """Tell facts before and after, and how long the tools took."""
    started = time.monotonic()
    _build()
    tell("built_s", round(time.monotonic() - started, 1))
    facts = probe(run)
    tell("before", facts.disks)
    for disk in facts.disks:
        if disk.path in CHOSEN:
            stop_holders(disk.path, run)
            old = sorted({found.device for found in disk.signatures} - {disk.path})
            run(("wipefs", "--all", "--force", "--lock=yes", *old, disk.path))
            # While udev looks at a partition the kernel would keep the table: it looks under this lock only.
            run(("udevadm", "lock", f"--device={disk.path}", "blockdev", "--rereadpt", disk.path))
    run(("udevadm", "settle", "--timeout=30"))
    tell("after", probe(run).disks)
    tell("arrays", run(("mdadm", "--examine", "--scan")).stdout)
    tell("groups", run(("vgs", "--noheadings", "-o", "vg_name")).stdout.split())
    tell("groups_in_dev", [group for group in ("nested", "secret") if os.path.lexists(f"/dev/{group}")])
    tell("mapped", sorted(set(os.listdir("/dev/mapper")) - {"control"}))


def _build() -> None:
    # A mirror of partitions on vda and vdb; on it a volume group; in it xfs, mounted.
    for disk in ("/dev/vda", "/dev/vdb"):
        run(("sfdisk", "--quiet", disk), stdin="label: gpt\nsize=200M, type=raid\nsize=50M\n")
    run(("udevadm", "settle"))
    mirror = ("--level=raid1", "--raid-devices=2", "--homehost=any", "--name=mirror", "--assume-clean")
    run(("mdadm", "--create", "/dev/md0", "--run", "--quiet", *mirror, "--bitmap=internal", "/dev/vda1", "/dev/vdb1"))
    run(("pvcreate", "--yes", "/dev/md0"))
    run(("vgcreate", "nested", "/dev/md0"))
    run(("lvcreate", "--yes", "-Wy", "--name", "data", "--size", "120M", "nested"))
    run(("mkfs.ext4", "-q", "/dev/nested/data"))
    run(("mkdir", "-p", "/mnt/data"))
    run(("mount", "/dev/nested/data", "/mnt/data"))
    # A volume group in an encrypted disk, swapped on.
    with open(_KEY, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as key:
        key.write(os.urandom(64))
    run(("cryptsetup", "luksFormat", *_LUKS, "--key-file", _KEY, "/dev/vdc"))
    run(("cryptsetup", "open", "--key-file", _KEY, "/dev/vdc", "vault"))
    run(("pvcreate", "--yes", "/dev/mapper/vault"))
    run(("vgcreate", "secret", "/dev/mapper/vault"))
    run(("lvcreate", "--yes", "-Wy", "--name", "swap", "--size", "64M", "secret"))
    run(("mkswap", "/dev/secret/swap"))
    run(("swapon", "/dev/secret/swap"))
    # One btrfs on two whole disks.
    run(("mkfs.btrfs", "-q", "-L", "pool", "-d", "raid1", "-m", "raid1", "/dev/vdd", "/dev/vde"))
    run(("mkdir", "-p", "/mnt/pool"))
    run(("mount", "-t", "btrfs", "-o", "device=/dev/vdd,device=/dev/vde", "/dev/vdd", "/mnt/pool"))
    run(("btrfs", "subvolume", "create", "/mnt/pool/@home"))
    # A volume group over one disk of the node and another, not in use.
    run(("pvcreate", "--yes", *KEPT))
    run(("vgcreate", "wide", *KEPT))
    run(("lvcreate", "--yes", "-Wy", "--name", "xfs", "--extents", "100%FREE", "wide"))
    run(("mkfs.xfs", "-q", "/dev/wide/xfs"))
    run(("mkdir", "-p", "/mnt/xfs"))
    run(("mount", "-t", "xfs", "/dev/wide/xfs", "/mnt/xfs"))
    run(("umount", "/mnt/xfs"))
    run(("vgchange", "--activate", "n", "wide"))


if __name__ == "__main__":
    main()
