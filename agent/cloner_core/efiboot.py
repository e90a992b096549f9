r"""Mending how a running system is booted: which loader of its ESP the firmware is to start, and what is copied where.

Pure; the ESPs are looked at, and changed, by `cloner_agent.efiboot`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec

from cloner_core.bootfiles import NotBootableError
from cloner_core.bootfiles.sources import SUFFIX
from cloner_core.bootfiles.unified import is_unified_name, newest
from cloner_core.nvram import OURS, Nvram

ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_HINT = "reinstall the boot loader: apt reinstall grub-efi-amd64-signed shim-signed, or bootctl install"


class Copy(msgspec.Struct, frozen=True):
    """One file of an ESP that is to be as one of the first ESP is."""

    source: str  # on the first ESP, relative, "EFI/debian/shimx64.efi"
    device: str  # of the ESP it goes to
    path: str  # there


def loader_of(files: Collection[str], nvram: Nvram, guids: Collection[str], arch: str, identity: str) -> str:
    """Return the loader to start among the `files` of the ESP, as spelt there.

    What an entry of ours for the ESPs with `guids` starts stays, where it is there. Else as a deploy would choose:
    systemd-boot, the shim or the GRUB of the distribution `identity`, those of another one, a unified kernel image.
    Raises NotBootableError when there is none.
    """
    spelt = {path.lower(): path for path in files}
    for _, option in sorted(nvram.entries.items()):
        drive = option.hard_drive
        if option.description.startswith(OURS) and drive is not None and drive.guid in guids:
            named = option.loader.replace("\\", "/").strip("/").lower()
            if named in spelt:
                return spelt[named]
    if arch not in SUFFIX:
        raise NotBootableError(f"no EFI loader is known for architecture '{arch}'")
    suffix = SUFFIX[arch]
    has_entries = any(re.fullmatch(r"loader/entries/[^/]+\.conf|efi/linux/[^/]+\.efi", path) for path in spelt)
    wanted = [f"efi/systemd/systemd-boot{suffix}.efi"] if has_entries else []
    wanted += [f"efi/{identity}/{name}{suffix}.efi" for name in ("shim", "grub")]
    for path in wanted:
        if path in spelt:
            return spelt[path]
    for name in ("shim", "grub"):
        others = sorted(path for path in spelt if re.fullmatch(rf"efi/(?!boot/)[^/]+/{name}{suffix}\.efi", path))
        if others:
            return spelt[others[0]]
    if unified := [path for path in files if is_unified_name(path)]:
        return newest(unified)
    raise NotBootableError("the EFI system partition has no boot loader", hint=_HINT)


def description_of(nvram: Nvram, guids: Collection[str], name: str) -> str:
    """Return how the entry is called: as ours for one of `guids` is called now, else by the system's `name`."""
    for _, option in sorted(nvram.entries.items()):
        drive = option.hard_drive
        if option.description.startswith(OURS) and drive is not None and drive.guid in guids:
            return re.sub(r", disk \d+$", "", option.description)
    return f"{OURS}{name}"


def fallback_of(loader: str, files: Collection[str], arch: str) -> dict[str, str]:
    """Return path on the ESP → the file there that it is to be a copy of, for firmware that forgets its entries.

    Beside shim go what it starts, and the configuration that names the root.
    """
    spelt = {path.lower(): path for path in files}
    suffix = SUFFIX[arch]
    folder, _, name = loader.rpartition("/")
    wanted = {f"EFI/BOOT/BOOT{suffix.upper()}.EFI": loader}
    beside = [f"grub{suffix}.efi", f"mm{suffix}.efi"] if name.lower().startswith("shim") else []
    for one in (*beside, "grub.cfg") if name.lower().startswith(("shim", "grub")) else ():
        if found := spelt.get(f"{folder}/{one}".lower()):
            wanted[f"EFI/BOOT/{one}"] = found
    return {spelt.get(path.lower(), path): source for path, source in wanted.items()}


def copies_of(fallback: Mapping[str, str], digests: Sequence[tuple[str, Mapping[str, bytes]]]) -> tuple[Copy, ...]:
    """Return what is to be copied: the fallback on the first ESP, and everything that the others have otherwise.

    `digests` are (device, digest by path) of each ESP, the first one first. Nothing is ever removed.
    """
    (first, have), *others = digests
    made = [Copy(source, first, path) for path, source in fallback.items() if have.get(path) != have[source]]
    wanted = {path: path for path in have} | dict(fallback)
    for device, there in others:
        folded = {path.lower(): digest for path, digest in there.items()}
        made += [
            Copy(source, device, path) for path, source in wanted.items() if folded.get(path.lower()) != have[source]
        ]
    return tuple(made)
