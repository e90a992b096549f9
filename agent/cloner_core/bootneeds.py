"""What an initramfs must have for this machine and this layout to boot, what it lacks, and how it is made anew.

Pure: tables and lists in, words and commands out. Only what is known to be needed is asked for: a device whose driver
the image's kernel does not know by any of its names is none of ours to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from cloner_core.bootfiles.image import shell_assignments
from cloner_core.initrd import Initrd
from cloner_core.kernelmodules import ModuleTable, normal
from cloner_core.plan.encryption import early
from cloner_core.plan.values import Plan

_PARITY = {"raid5": "raid456", "raid6": "raid456"}  # drivers/md/raid5.c
_CONFIGURATIONS = ("conf/", "cryptroot/", "etc/cmdline.d/", "etc/conf.d/", "etc/crypttab", "etc/mdadm", "etc/fstab")
HOSTONLY_FILES = (
    "/etc/dracut.conf",
    "/etc/dracut.conf.d/*.conf",
    "/usr/lib/dracut/dracut.conf.d/*.conf",
    "/etc/initramfs-tools/initramfs.conf",
    "/etc/initramfs-tools/conf.d/*",
    "/etc/mkinitcpio.conf",
    "/etc/mkinitcpio.conf.d/*.conf",
)
_HOOKS = re.compile(rb"^[ \t]*HOOKS=(.*)$", re.MULTILINE)  # an array, which is no plain value


@dataclass(frozen=True, slots=True)
class BoundDevice:
    """A device of this machine that a driver of the running kernel serves."""

    what: str  # "disk /dev/nvme0n1"
    driver: str  # as sysfs calls it
    module: str = ""  # that it is in; "" when it is built in here
    modalias: str = ""
    is_needed: bool = True  # to boot; a network card is needed only by an initramfs that uses the network


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that an initramfs must have."""

    what: str  # for people
    modules: tuple[str, ...] = ()  # one of these, with all it depends on
    programs: tuple[str, ...] = ()  # or one of these
    is_needed: bool = True


def device_needs(
    devices: Sequence[BoundDevice], table: ModuleTable, drivers: Mapping[str, Set[str]]
) -> tuple[Need, ...]:
    """Return what drives `devices` in the image's kernel; `drivers` are `drivers_of` their modaliases."""
    needs: dict[tuple[str, ...], Need] = {}
    for device in devices:
        named = {normal(name) for name in (device.module, device.driver) if name}
        known = {name for name in drivers.get(device.modalias, ()) if table.has(name)}
        # The module of the running kernel, where the image's has it too; else whatever says it drives the device.
        chosen = named & known or known or {name for name in named if table.has(name)}
        if chosen:
            need = Need(f"{device.what} ({device.driver})", tuple(sorted(chosen)), is_needed=device.is_needed)
            needs.setdefault(need.modules, need)
    return tuple(needs.values())


def layout_needs(plan: Plan) -> tuple[Need, ...]:
    """Return what the filesystems that an initramfs mounts and the containers it opens ask for, with all beneath."""
    found: dict[str, Need] = {}
    for mount in plan.mounts:
        if mount.mount in ("/", "/usr"):
            found.setdefault(mount.filesystem, Need(f"filesystem {mount.filesystem}", (mount.filesystem,)))
            for need in _stack_needs(plan, mount.device):
                found.setdefault(need.what, need)
    for crypt in early(plan):
        for need in _stack_needs(plan, crypt.device):
            found.setdefault(need.what, need)
    return tuple(found.values())


def _stack_needs(plan: Plan, device: str) -> Iterator[Need]:
    for array in plan.arrays:
        if array.device == device:
            yield Need(f"array of level {array.level}", (_PARITY.get(array.level, array.level),))
            yield Need("arrays (mdadm)", programs=("mdadm",))
            for member in array.members:
                yield from _stack_needs(plan, member)
    for group in plan.groups:
        if any(group.device(volume) == device for volume in group.volumes):
            yield Need("volume groups", ("dm_mod",))
            yield Need("volume groups (lvm)", programs=("lvm",))
            for physical in group.physical:
                yield from _stack_needs(plan, physical)
    for crypt in plan.crypts:
        if crypt.device == device:
            yield Need("encryption", ("dm_crypt",))
            yield Need("encryption (cryptsetup)", programs=("cryptsetup", "systemd-cryptsetup"))
            if crypt.unlock.way == "tpm2":
                yield Need("its TPM (clevis)", programs=("clevis-decrypt-tpm2", "systemd-cryptsetup"))
            yield from _stack_needs(plan, crypt.backing)


def lacks(needs: Iterable[Need], initrd: Initrd, release: str, table: ModuleTable) -> tuple[tuple[Need, str], ...]:
    """Return each of `needs` that `initrd` does not meet, with what it lacks ("nvme, nvme_core")."""
    present = initrd.modules(release)
    uses_network = any(table.paths.get(name, "").startswith("kernel/drivers/net/") for name in present)
    found = []
    for need in needs:
        if not need.is_needed and not uses_network:
            continue
        if need.programs:
            if not any(_has_program(initrd, name) for name in need.programs):
                found.append((need, need.programs[0]))
            continue
        missing = min((table.lacking(name, present) for name in need.modules), key=len)
        if missing:
            found.append((need, ", ".join(sorted(missing))))
    return tuple(found)


def _has_program(initrd: Initrd, name: str) -> bool:
    return initrd.has_program(name) or any(f"{folder}/systemd/{name}" in initrd.files for folder in ("usr/lib", "lib"))


INITRAMFS_HINT = (
    "install what is missing on the golden node, make its initramfs for any machine (MODULES=most, or dracut"
    " --no-hostonly) and capture again"
)
NO_TOOL = "and the image has no tool to make it anew"


def lacking_words(lacking: Iterable[tuple[Need, str]]) -> tuple[str, ...]:
    """Return what `lacks` found, in words."""
    return tuple(f"it lacks {what} for {need.what}" for need, what in lacking)


def initramfs_text(release: str, initramfs: str, why: str) -> str:
    """Return `why` with the initramfs (no leading slash) and the kernel that it is about."""
    return f"the initramfs of kernel {release} (/{initramfs}): {why}"


def is_configuration(path: str) -> bool:
    """Whether a file of an initramfs may name filesystems that it waits for."""
    return path.startswith(_CONFIGURATIONS)


def embedded(initrd: Initrd, replaced: Iterable[str]) -> tuple[str, ...]:
    """Return the files of `initrd` that still name one of the `replaced` identifiers (lower case)."""
    old = [identifier.encode() for identifier in replaced if len(identifier) > len("1A2B-3C4D")]
    return tuple(sorted(path for path, text in initrd.kept.items() if any(one in text.lower() for one in old)))


@dataclass(frozen=True, slots=True)
class Rebuild:
    """How an image makes an initramfs anew."""

    argv: tuple[str, ...]
    drop_in: str = ""  # a file of settings for this one run, absolute in the clone; "" none
    content: bytes = b""
    environment: tuple[tuple[str, str], ...] = (("TMPDIR", "/var/tmp"),)


REBUILDERS = ("/usr/sbin/mkinitramfs", "/usr/bin/dracut", "/usr/sbin/dracut", "/usr/bin/mkinitcpio")
"""The programs that `rebuild_of` looks for."""


def rebuild_of(present: Set[str], release: str, initramfs: str) -> Rebuild | None:
    """Return how the image makes `initramfs` (absolute) for the kernel `release`; None when it has no tool for that.

    `present` are those of REBUILDERS that the image has. Sources: update-initramfs(8), initramfs.conf(5), dracut(8),
    mkinitcpio(8).
    """
    if "/usr/sbin/mkinitramfs" in present:
        is_usual = initramfs == f"/boot/initrd.img-{release}"
        return Rebuild(
            ("update-initramfs", "-u", "-k", release) if is_usual else ("mkinitramfs", "-o", initramfs, release),
            drop_in="/etc/initramfs-tools/conf.d/zz-cloner",
            # Of "dep" it would be made for what the cage shows of this machine, which is no disk.
            content=b"MODULES=most\n",
        )
    if dracut := next((path for path in ("/usr/bin/dracut", "/usr/sbin/dracut") if path in present), ""):
        return Rebuild(
            (dracut, "--force", "--no-hostonly", "--no-hostonly-cmdline", "--kver", release, initramfs),
            environment=(("TMPDIR", "/var/tmp"), ("DRACUT_NO_XATTR", "1")),
        )
    if "/usr/bin/mkinitcpio" in present:
        # Not -P: its presets leave out what the running machine does not show ("autodetect").
        return Rebuild(("/usr/bin/mkinitcpio", "-S", "autodetect", "-k", release, "-g", initramfs))
    return None


def hostonly(texts: Mapping[str, bytes]) -> str:
    """Return the file that has initramfs images made for one machine alone; "" when they serve any.

    `texts` are those of HOSTONLY_FILES that exist, by path.
    """
    dracut, tools, hooks = ("", False), ("", False), ("", False)
    for path in sorted(texts, key=lambda path: ("/usr/lib/" not in path, path.count("/"), path)):
        fields = shell_assignments(texts[path])
        if "dracut" in path and (said := fields.get("hostonly")):
            dracut = path, said.strip() in ("yes", "1", "true")
        elif "mkinitcpio" in path and (lines := _HOOKS.findall(texts[path])):
            hooks = path, b"autodetect" in lines[-1]
        elif "initramfs-tools" in path and (said := fields.get("MODULES")):
            tools = path, said == "dep"
    return next((path for path, is_hostonly in (dracut, tools, hooks) if is_hostonly), "")
