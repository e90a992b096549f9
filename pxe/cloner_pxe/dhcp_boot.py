"""The fields of DHCP that are about booting: what firmware and iPXE say, and where each of them looks for the answer.

Pure; the one place that knows the options of PXE 2.1, UEFI HTTP Boot and iPXE.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from cloner_pxe.decision import AnyAnswer, HttpBootUri, Loader
from cloner_pxe.dhcp_packet import Option, Packet, sub_options
from cloner_pxe.request import BootRequest, Route

# Option 43 for PXE: sub-option 6 (discovery control) = 8, "use the boot file of this very offer".
PXE_VENDOR = b"\x06\x01\x08\xff"
# Option 175 for iPXE: sub-option 176 (no-pxedhcp) = 1, else it waits 3 s for a ProxyDHCP that never comes.
IPXE_NO_PROXY = b"\xb0\x01\x01"


def boot_request(packet: Packet, route: Route) -> BootRequest:
    """Return what `packet` says about booting, in the words of the decision."""
    arch = packet.options.get(Option.ARCH, b"")
    user_class = packet.text(Option.USER_CLASS)
    # RFC 3004 puts a length before each class; iPXE sends the bare word.
    if user_class.endswith("iPXE") and len(user_class) == 5:
        user_class = "iPXE"
    uuid = packet.options.get(Option.MACHINE_UUID, b"")
    return BootRequest(
        route=route,
        mac=packet.mac,
        arch=int.from_bytes(arch[:2], "big") if len(arch) >= 2 else None,
        vendor_class=packet.text(Option.VENDOR_CLASS),
        user_class=user_class,
        machine_uuid=uuid[1:].hex() if len(uuid) == 17 else "",
        ipxe_features=tuple(sub_options(packet.options.get(Option.IPXE, b""))),
    )


def with_boot(packet: Packet, answer: AnyAnswer) -> Packet:
    """Add the boot file, twice: shim and old ROMs read the field `file`, others option 67 alone."""
    options = dict(packet.options)
    if isinstance(answer, Loader):
        server, file = IPv4Address(answer.next_server), answer.file.encode()
        options |= {Option.TFTP_SERVER: str(server).encode(), Option.BOOT_FILE: file}
        return replace(packet, siaddr=server, sname=str(server).encode(), file=file, options=options)
    if isinstance(answer, HttpBootUri):
        # Firmware drops an HTTP Boot offer without this option 60 (UEFI 2.10 §24.7.3.1).
        uri = answer.uri.encode()
        options |= {Option.VENDOR_CLASS: b"HTTPClient", Option.BOOT_FILE: uri}
        return replace(packet, file=uri, options=options)
    return packet
