"""/etc/crypttab of a clone: the image's own lines, with the devices of the layout in it.

Pure text in, text out. Read by systemd's generator and by Debian's scripts alike: crypttab(5) of both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from cloner_core.plan.values import PlannedCrypt
from cloner_core.steps import Opened
from cloner_core.unlocking import Means

CRYPTTAB = "/etc/crypttab"
_ENTRY = re.compile(r"\s*([^#\s]\S*)\s+(\S+)(?:\s+(\S+))?(?:\s+(\S+))?.*", re.DOTALL)
_WAITED_FOR = re.compile(r"(UUID|PARTUUID|LABEL|PARTLABEL)=|/dev/")


class Crypttab(msgspec.Struct, frozen=True):
    """A new crypttab and what an admin should know about it."""

    content: bytes
    notes: tuple[str, ...] = ()


def make_crypttab(content: bytes | None, wanted: Sequence[PlannedCrypt], means: Means) -> Crypttab:
    """Return the clone's crypttab: `content` of the image, None where it has none, with what is `wanted` in place."""
    kept, notes = [], []
    names = {crypt.name for crypt in wanted}
    devices = {crypt.uuid.lower() for crypt in wanted if crypt.uuid}
    for line in (content or b"").decode("utf-8", "surrogateescape").splitlines():
        match = _ENTRY.fullmatch(line)
        if match:
            if match[1] in names or match[2].removeprefix("UUID=").strip('"').lower() in devices:
                continue
            if _WAITED_FOR.match(match[2]) and not {"noauto", "nofail"} & set((match[4] or "").split(",")):
                notes.append(
                    f"{CRYPTTAB} still opens '{match[1]}' on {match[2]}, which the layout does not make: with nofail,"
                    " so that the boot does not wait for it (add it to the layout, or take it out of the image)"
                )
                options = f"{match[4]},nofail" if match[4] else "nofail"
                kept.append("\t".join((match[1], match[2], match[3] or "none", options)))
                continue
        kept.append(line)
    lines = [*kept, *(line_of(crypt, means) for crypt in wanted)]
    return Crypttab("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), tuple(notes))


def line_of(crypt: PlannedCrypt, means: Means) -> str:
    """Return the line of one device: name, device, key, options."""
    if crypt.is_fresh:
        options = f"swap,cipher=aes-xts-plain64,size=512,sector-size={crypt.sector_bytes}"
        return f"{crypt.name}\t{crypt.source}\t/dev/urandom\t{options}"
    options = "luks,discard"
    if crypt.is_early:
        # each ignores what it does not know: initramfs-tools has the one, systemd in an initramfs the other
        options += ",initramfs" if means.initramfs == "initramfs-tools" else ",x-initrd.attach"
    if crypt.unlock.way == "tpm2" and means.sealer == "systemd":
        options += ",tpm2-device=auto"
    return f"{crypt.name}\t{crypt.source}\tnone\t{options}"


def initramfs_list(containers: Sequence[Opened], means: Means) -> tuple[str, bytes]:
    """Return path and content of the list by which the image's kind of initramfs opens `containers`.

    Sources: cryptsetup-initramfs, hooks/cryptroot, crypttab_print_entry(); systemd-cryptsetup-generator(8), which in an
    initramfs reads /etc/crypttab.
    """
    if means.initramfs == "initramfs-tools":
        lines = [f"{one.name} UUID={one.uuid} none luks,discard,initramfs" for one in containers]
        return "cryptroot/crypttab", "".join(f"{line}\n" for line in lines).encode()
    by_systemd = ",tpm2-device=auto" if means.sealer == "systemd" else ""
    lines = [
        f"{one.name} UUID={one.uuid} none luks,discard,x-initrd.attach{by_systemd if one.way == 'tpm2' else ''}"
        for one in containers
    ]
    return "etc/crypttab", "".join(f"{line}\n" for line in lines).encode()
