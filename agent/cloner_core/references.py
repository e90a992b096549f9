"""Rewriting what an image calls its filesystems, in a closed list of files.

Pure text in, text out. Only whole identifiers are replaced, only in these files: anything cleverer guesses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from cloner_core.fstab import image_references
from cloner_core.plan.dracut import without_absent
from cloner_core.plan.values import Plan, PlannedMount
from cloner_core.steps import Reference

FSTAB = "/etc/fstab"
_GRUB_CONFIGS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
_DEFAULTS = ("/etc/default/grub", "/etc/default/grub.d/*.cfg")
ENVIRONMENTS = ("/boot/grub/grubenv", "/boot/grub2/grubenv", "/boot/efi/EFI/*/grubenv")
"""Variables of GRUB; those of Enterprise Linux 8 have a kernel command line among them ("kernelopts")."""
_ENTRIES = ("/boot/loader/entries/*.conf", "/boot/efi/loader/entries/*.conf", "/efi/loader/entries/*.conf")
_COMMAND_LINES = (*_DEFAULTS, "/etc/kernel/cmdline", *_ENTRIES, *ENVIRONMENTS)
_RESUME = "/etc/initramfs-tools/conf.d/resume"

REWRITTEN_FILES = (
    FSTAB,
    "/etc/crypttab",
    *_COMMAND_LINES,
    *_GRUB_CONFIGS,
    "/boot/efi/EFI/*/grub.cfg",
    _RESUME,
    "/etc/dracut.conf.d/*.conf",
)
"""The closed list; "*" stands for one name without a slash."""

_HEX = "0-9A-Fa-f"
# A UUID is a token of its own anywhere; "gnulinux-simple-UUID" is a menu's name and stays, as grubenv names it too.
_LONG = re.compile(rf"(?<![{_HEX}A-Za-z-])[{_HEX}]{{8}}(?:-[{_HEX}]{{4}}){{3}}-[{_HEX}]{{12}}(?![{_HEX}A-Za-z-])")
# A FAT serial is too short for that: only where something says that a UUID comes.
_SHORT = re.compile(
    rf"((?<![A-Z])UUID=[\"']?|by-uuid/|fs[-_]uuid(?:[ \t]+-[^ \t\n]+)*[ \t]+[\"']?)"
    rf"([{_HEX}]{{4}}-[{_HEX}]{{4}})(?![{_HEX}A-Za-z-])"
)
_ROOT = re.compile(r"(?<![\w.-])root=[\"']?(UUID|PARTUUID)=([0-9A-Fa-f-]+)")


def mapping_of(plan: Plan, references: Iterable[Reference], texts: Mapping[str, bytes]) -> dict[str, str]:
    """Return old identifier → new one, from the plan's `references` and from what the image's own `texts` say.

    `texts` are the files of `REWRITTEN_FILES` that exist, by path. What fstab mounts at a mount point of the layout
    and what a kernel command line calls root is known to be that filesystem, whatever its identifier.
    """
    found = {reference.old.lower(): reference.new for reference in references}
    for path, content in texts.items():
        if path == FSTAB:
            found.update({one.old.lower(): one.new for one in image_references(content, plan.entries)})
        elif path in _GRUB_CONFIGS or is_listed(path, _COMMAND_LINES):
            for kind, old in _ROOT.findall(content.decode("latin-1")):
                found.setdefault(old.lower(), plan.root.uuid if kind == "UUID" else plan.root.part_uuid)
    ours = {volume.uuid for volume in plan.volumes} | {partition.part_uuid for partition in plan.partitions}
    return {old: new for old, new in found.items() if new and old != new.lower() and old not in ours}


def rewrite(path: str, content: bytes, mapping: Mapping[str, str], plan: Plan | None = None) -> bytes:
    """Return `content` of the file `path` with every whole identifier of `mapping` replaced, and nothing else.

    Keys of `mapping` are lower case; identifiers are found in any case. With `plan` command lines also lose what tells
    dracut to wait for devices that the clone does not have. Raises ValueError for a path not in the closed list.
    """
    if not is_listed(path):
        raise ValueError(f"'{path}' is not in the closed list of files whose references are rewritten")
    text = content.decode("latin-1")  # one character a byte: what is not ASCII passes through
    text = _LONG.sub(lambda match: mapping.get(match[0].lower(), match[0]), text)
    text = _SHORT.sub(lambda match: match[1] + mapping.get(match[2].lower(), match[2]), text)
    written = text.encode("latin-1")
    if plan is None or not is_listed(path, (*_COMMAND_LINES, *_GRUB_CONFIGS)):
        return written
    written = without_absent(written, plan)
    # A file of GRUB's variables keeps its size, which is that of its place on the disk: grub-core/lib/envblk.c.
    return written.ljust(len(content), b"#") if is_listed(path, ENVIRONMENTS) else written


def is_listed(path: str, patterns: Sequence[str] = REWRITTEN_FILES) -> bool:
    """Whether `path` is one of `patterns`, where "*" stands for one name."""
    return any(re.fullmatch(re.escape(one).replace(r"\*", r"[^/]+"), path) for one in patterns)


def root_faults(path: str, content: bytes, root: PlannedMount, label: str = "") -> list[str]:
    """Return the kernel command lines in `content` that name another root than `root`; for the final check."""
    wanted = {f"UUID={root.uuid}"}
    if root.part_uuid:
        wanted.add(f"PARTUUID={root.part_uuid}")
    if root.device.startswith("/dev/mapper/"):
        wanted |= device_names(root.device)
    if label:
        wanted.add(f"LABEL={label}")
    faults = []
    for line in content.decode("utf-8", "replace").splitlines():
        words = line.replace("kernelopts=", "options ", 1).split() if line.startswith("kernelopts=") else line.split()
        if words and words[0] in ("linux", "linuxefi", "linux16", "options"):
            named = [word.removeprefix("root=").strip("\"'") for word in words if word.startswith("root=")]
            faults += [f"{path}: root={name} is not the clone's root" for name in named if not _names(name, wanted)]
    return faults


def device_names(mapping: str) -> set[str]:
    """Return what a mapping ("/dev/mapper/vg0-root") is called by people and their tools: "/dev/vg0/root" as well."""
    parts = [part.replace("--", "-") for part in re.split(r"(?<!-)-(?!-)", mapping.removeprefix("/dev/mapper/"))]
    return {mapping, f"/dev/{'/'.join(parts)}"} if len(parts) == 2 else {mapping}


def _names(name: str, wanted: set[str]) -> bool:
    by_path = re.sub(r"^/dev/disk/by-(uuid|partuuid|label)/", lambda match: match[1].upper() + "=", name)
    return "$" in name or by_path in wanted
