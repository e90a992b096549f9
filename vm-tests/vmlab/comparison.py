"""Judges a clone by the golden tree it was made of: what may differ is a closed list.

Foreign tools compare. Must not read disks (`offline` does).
"""

from __future__ import annotations

from collections.abc import Collection, Set
from pathlib import Path

from vmlab import host

# All that may differ between a clone that never booted and the golden tree: identity, rewritten references, boot
# files, and the one-shot that reports the first boot. Captured empty or not at all: the golden machine's own.
IDENTITY = {
    "etc/cloner/",
    "etc/cloner/image.json",
    "etc/hostid",
    "etc/hostname",
    "etc/hosts",
    "etc/machine-id",
    "etc/ssh/ssh_host_ecdsa_key",
    "etc/ssh/ssh_host_ecdsa_key-cert.pub",
    "etc/ssh/ssh_host_ecdsa_key.pub",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key-cert.pub",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/ssh/ssh_host_rsa_key",
    "etc/ssh/ssh_host_rsa_key-cert.pub",
    "etc/ssh/ssh_host_rsa_key.pub",
    "etc/ssh/sshd_config.d/05-cloner.conf",
    "etc/systemd/network/05-cloner-0.network",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
}
REWRITTEN = {"etc/fstab", "boot/grub/", "boot/grub/grub.cfg"}
ONE_SHOT = {
    "etc/systemd/system/cloner-confirm.service",
    "etc/systemd/system/multi-user.target.wants/cloner-confirm.service",
    "usr/lib/cloner/",
    "usr/lib/cloner/confirm",
    "var/lib/cloner/",
    "var/lib/cloner/confirm",
}
MAY_DIFFER = IDENTITY | REWRITTEN | ONE_SHOT


def unexpected_differences(golden: Path, clone: Path, *, also: Collection[str] = ()) -> list[str]:
    """Return what tells a clone that never ran from the golden tree and is not on the list: rsync's itemized lines.

    `also` names what a golden tree has of its own besides.
    """
    allowed = MAY_DIFFER | set(also)
    return [line for line in differences(golden, clone) if not is_expected(line, allowed)]


def differences(golden: Path, clone: Path) -> list[str]:
    """Return what rsync would change to make the clone the golden tree: its itemized lines."""
    # The mount point of the ESP is a filesystem of its own, compared by mtools; lost+found is mkfs's.
    argv = ["rsync", "-aHAXSn", "--numeric-ids", "--checksum", "--delete", "--itemize-changes"]
    text = host.run([*argv, "--exclude=/lost+found", f"{golden}/", f"{clone}/"], timeout_s=600)
    return [line for line in text.splitlines() if line]


def is_expected(line: str, allowed: Set[str]) -> bool:
    """Whether one itemized line is on the list: a listed path, or a directory that holds one."""
    flags, _, path = line.partition(" ")
    path = path.strip()
    if path in allowed:
        return True
    holds_one = any(listed.startswith(path.removeprefix("./")) for listed in allowed)
    is_esp = path == "boot/efi/"  # the mount point beneath the ESP's own filesystem
    # One that is in one of the two alone: what else is in it has a line of its own.
    is_single = (flags == "*deleting" and path.endswith("/")) or flags == "cd+++++++++"
    return (flags == ".d..t......" and (holds_one or is_esp)) or (is_single and holds_one)


def esp_faults(esp: dict[str, bytes], tree: Path) -> list[str]:
    """Return what is wrong with the files of a clone's ESP: the image's own loaders, a configuration, nothing else."""
    shim = (tree / "usr/lib/shim/shimx64.efi.signed").read_bytes()
    grub = (tree / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed").read_bytes()
    wanted = {
        "efi/debian/shimx64.efi": shim,
        "efi/debian/grubx64.efi": grub,
        "efi/boot/bootx64.efi": shim,
        "efi/boot/grubx64.efi": grub,
    }
    folded = {path.lower(): content for path, content in esp.items()}
    faults = [f"{path} is not the image's" for path, content in wanted.items() if folded.get(path) != content]
    if b"search" not in folded.get("efi/debian/grub.cfg", b""):
        faults.append("efi/debian/grub.cfg does not search for the root")
    rest = set(folded) - set(wanted)
    unwanted = {path for path in rest if not path.endswith(("grub.cfg", "mmx64.efi", "bootx64.csv"))}
    # shim's fallback program rewrites BootOrder, and what lies in the staging folder was never committed.
    unwanted |= {path for path in rest if "fbx64" in path or ".cloner-staging" in path}
    return faults + [f"{path} does not belong there" for path in sorted(unwanted)]
