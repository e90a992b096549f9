"""What a machine says when it asks for something to boot, whatever the route it asks by.

Responsible for the closed sets (route, firmware) and for the one form a MAC address has. Must not decide anything:
that is `cloner_pxe.decision`.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from cloner_core.errors import InvalidError

MAC_FORM = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}\Z")


class Route(StrEnum):
    """The door by which a request comes in."""

    DHCP = "dhcp"
    PROXYDHCP = "proxydhcp"  # beside a site's own DHCP, and everything that reaches port 4011
    TFTP = "tftp"
    HTTP_SCRIPT = "http-script"  # iPXE asks for its script
    HTTP_BOOT = "http-boot"  # firmware or iPXE asks for a loader over HTTP
    GRUB_CFG = "grub-cfg"


class Firmware(StrEnum):
    """The families of firmware that need a loader of their own."""

    BIOS = "bios"
    X64_UEFI = "x64-uefi"
    ARM64_UEFI = "arm64-uefi"
    UNSUPPORTED = "unsupported"


# IANA "Processor Architecture Types" (RFC 5970 §3.3). 9 is EFI byte code by the book; firmware says it for x64.
_FIRMWARE_OF_ARCH = {
    0: Firmware.BIOS,
    7: Firmware.X64_UEFI,
    9: Firmware.X64_UEFI,
    16: Firmware.X64_UEFI,
    11: Firmware.ARM64_UEFI,
    19: Firmware.ARM64_UEFI,
}
_HTTP_ARCHS = frozenset(range(15, 21))


def normal_mac(text: str) -> str:
    """Return `text` as six lower-case pairs joined by colons.

    Accepts colons (iPXE's `${net0/mac}`), hyphens (`:hexhyp`) and the bare 12 digits.
    Raises InvalidError for anything else.
    """
    digits = text.lower()
    if len(digits) == 17 and digits[2] in ":-":
        digits = digits.replace(digits[2], ":")
    elif len(digits) == 12:
        digits = ":".join(digits[at : at + 2] for at in range(0, 12, 2))
    if not MAC_FORM.match(digits):
        raise InvalidError(
            f"{text[:40]!r} is not a MAC address", hint="write six pairs of hex digits, 52:54:00:12:34:56"
        )
    return digits


class BootRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One question a machine asked; everything in it was said by the machine and proves nothing."""

    route: Route
    mac: str = ""  # six pairs joined by colons; "" where the route cannot know (TFTP, HTTP Boot)
    arch: int | None = None  # option 93 (RFC 4578 §2.1); None when the machine did not say
    vendor_class: str = ""  # option 60
    user_class: str = ""  # option 77
    file: str = ""  # name asked for, on the routes that ask by name
    machine_uuid: str = ""  # option 97 or iPXE's ${uuid}
    ipxe_features: tuple[int, ...] = ()  # sub-options of option 175; iPXE always says some

    @property
    def firmware(self) -> Firmware:
        """The firmware family; a missing option 93 means BIOS (RFC 4578 §2.1 made it mandatory only later)."""
        if self.arch is None:
            return Firmware.BIOS
        return _FIRMWARE_OF_ARCH.get(self.arch, Firmware.UNSUPPORTED)

    @property
    def is_ipxe(self) -> bool:
        """Whether iPXE is asking. It says `PXEClient` in option 60 as firmware does, so that tells nothing."""
        return self.user_class == "iPXE" or bool(self.ipxe_features)

    @property
    def is_http_boot(self) -> bool:
        """Whether firmware wants a URL (UEFI 2.10 §24.7.2)."""
        return self.vendor_class.startswith("HTTPClient") or (self.arch in _HTTP_ARCHS and not self.is_ipxe)

    @property
    def wants_boot(self) -> bool:
        """Whether this is a boot client at all, not an operating system renewing its address."""
        return self.is_ipxe or self.is_http_boot or self.vendor_class.startswith("PXEClient")
