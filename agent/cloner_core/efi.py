"""EFI boot entries as bytes: load options, device paths, boot orders, and the frame efivarfs puts around them.

A codec and nothing more; what to write is `nvram`. Every parser is total: firmware stores rubbish, so bytes that are
no load option raise InvalidError and never anything else. Source: UEFI 2.10 §3.1.3 (load options), §10.3 (device
paths), §3.3 (variables); kernel Documentation/filesystems/efivarfs.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

import msgspec

from cloner_core.errors import InvalidError

GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""Vendor GUID of BootOrder and its kin; efivarfs names files "BootOrder-GUID"."""
VARIABLE_ATTRIBUTES = 0x07  # non-volatile, boot service access, runtime access
LOAD_OPTION_ACTIVE = 0x01
MAX_VARIABLE_BYTES = 65536

_END = struct.pack("<BBH", 0x7F, 0xFF, 4)
_HARD_DRIVE = struct.Struct("<BBHIQQ16sBB")
_MEDIA, _MESSAGING = 0x04, 0x03
_MEDIA_HARD_DRIVE, _MEDIA_CD, _MEDIA_FILE_PATH = 0x01, 0x02, 0x04
_MEDIA_FIRMWARE_FILE, _MEDIA_FIRMWARE_VOLUME = 0x06, 0x07
_MESSAGING_USB, _MESSAGING_MAC = 0x05, 0x0B
_GPT, _GUID_SIGNATURE = 2, 2
_LOCAL = {
    (_MEDIA, _MEDIA_HARD_DRIVE),
    (_MEDIA, _MEDIA_CD),
    (_MEDIA, _MEDIA_FIRMWARE_FILE),
    (_MEDIA, _MEDIA_FIRMWARE_VOLUME),
    (_MESSAGING, _MESSAGING_USB),
}
_CATEGORY = 0x1F00


class HardDrive(msgspec.Struct, frozen=True):
    """A GPT partition as a device path names it."""

    number: int  # from 1
    start_sectors: int
    size_sectors: int
    guid: str  # lower case


class Node(msgspec.Struct, frozen=True):
    """One node of a device path; `data` without the four bytes of type, subtype and length."""

    kind: int
    subkind: int
    data: bytes


class LoadOption(msgspec.Struct, frozen=True):
    """One boot entry; the device path is kept as it was read, so that an unknown one is written back unchanged."""

    description: str
    device_path: bytes
    attributes: int = LOAD_OPTION_ACTIVE
    optional_data: bytes = b""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the first device path, without its end."""
        return tuple(_nodes(self.device_path))

    @property
    def hard_drive(self) -> HardDrive | None:
        """The GPT partition the entry loads from; None when it names none."""
        return next((drive for node in self.nodes if (drive := _hard_drive(node))), None)

    @property
    def loader(self) -> str:
        r"""The path of the loader, as "\\EFI\\debian\\shimx64.efi"; "" when the entry names none."""
        parts = [_text(node.data) for node in self.nodes if (node.kind, node.subkind) == (_MEDIA, _MEDIA_FILE_PATH)]
        return "".join(parts)

    @property
    def is_network(self) -> bool:
        """Whether the entry boots from a network interface (its device path has a MAC address node)."""
        return any((node.kind, node.subkind) == (_MESSAGING, _MESSAGING_MAC) for node in self.nodes)

    @property
    def is_local(self) -> bool:
        """Whether the entry starts a program of the firmware, or boots from a disk, an optical disc or USB.

        An entry that names nothing, and one that is an application (UEFI 2.10 §3.1.3), count as the firmware's.
        """
        if self.is_network:
            return False
        kinds = {(node.kind, node.subkind) for node in self.nodes}
        return not kinds or bool(kinds & _LOCAL) or self.attributes & _CATEGORY != 0


def disk_entry(description: str, drive: HardDrive, loader: str) -> LoadOption:
    """Return the short-form entry HD(…)/File(…), which firmware completes with the disk it finds the GUID on."""
    node = _HARD_DRIVE.pack(
        _MEDIA,
        _MEDIA_HARD_DRIVE,
        _HARD_DRIVE.size,
        drive.number,
        drive.start_sectors,
        drive.size_sectors,
        UUID(drive.guid).bytes_le,
        _GPT,
        _GUID_SIGNATURE,
    )
    path = _utf16(loader)
    file = struct.pack("<BBH", _MEDIA, _MEDIA_FILE_PATH, 4 + len(path)) + path
    return LoadOption(description=description, device_path=node + file + _END)


def parse_load_option(data: bytes) -> LoadOption:
    """Return the load option in `data`, the value of a Boot#### variable without efivarfs's attributes.

    Raises InvalidError when it is none.
    """
    if not 6 <= len(data) <= MAX_VARIABLE_BYTES:
        raise InvalidError(f"{len(data)} bytes are no load option")
    attributes, path_bytes = struct.unpack_from("<IH", data)
    end = 6
    while data[end : end + 2] != b"\0\0":
        end += 2
        if end + 2 > len(data):
            raise InvalidError("the description of a load option has no end")
    device_path = data[end + 2 : end + 2 + path_bytes]
    if len(device_path) != path_bytes:
        raise InvalidError(f"a load option promises {path_bytes} bytes of device path and has {len(device_path)}")
    for _ in _nodes(device_path):  # raises on a malformed node
        pass
    return LoadOption(
        description=data[6:end].decode("utf-16-le", "surrogatepass"),
        device_path=device_path,
        attributes=attributes,
        optional_data=data[end + 2 + path_bytes :],
    )


def build_load_option(option: LoadOption) -> bytes:
    """Return the value of the Boot#### variable for `option`."""
    head = struct.pack("<IH", option.attributes, len(option.device_path))
    return head + _utf16(option.description) + option.device_path + option.optional_data


def parse_order(data: bytes) -> tuple[int, ...]:
    """Return the entry numbers in a BootOrder, BootNext or BootCurrent value; an odd last byte is dropped."""
    return tuple(number for (number,) in struct.iter_unpack("<H", data[: len(data) // 2 * 2]))


def build_order(numbers: tuple[int, ...]) -> bytes:
    """Return the value of BootOrder for `numbers`, or of BootNext for a single one."""
    return struct.pack(f"<{len(numbers)}H", *numbers)


def entry_name(number: int) -> str:
    """Return the name of the variable of entry `number`: four upper-case hexadecimal digits (UEFI 2.10 §3.1)."""
    return f"Boot{number:04X}"


def unframe(content: bytes) -> bytes:
    """Return the value in the content of an efivarfs file, without its four bytes of attributes."""
    return content[4:]


def frame(value: bytes) -> bytes:
    """Return what must be written to an efivarfs file in one write so that the variable holds `value`."""
    return struct.pack("<I", VARIABLE_ATTRIBUTES) + value


def _nodes(device_path: bytes) -> Iterator[Node]:
    at = 0
    while at < len(device_path):
        if at + 4 > len(device_path):
            raise InvalidError("a device path ends inside a node")
        kind, subkind, length = struct.unpack_from("<BBH", device_path, at)
        if length < 4 or at + length > len(device_path):
            raise InvalidError(f"a device path node claims {length} bytes")
        if kind == 0x7F:  # the end of this instance; what follows belongs to another
            return
        yield Node(kind, subkind, device_path[at + 4 : at + length])
        at += length


def _hard_drive(node: Node) -> HardDrive | None:
    if (node.kind, node.subkind, len(node.data)) != (_MEDIA, _MEDIA_HARD_DRIVE, _HARD_DRIVE.size - 4):
        return None
    number, start, size, guid, table, signature = struct.unpack("<IQQ16sBB", node.data)
    if (table, signature) != (_GPT, _GUID_SIGNATURE):
        return None
    return HardDrive(number, start, size, str(UUID(bytes_le=guid)))


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass") + b"\0\0"


def _text(data: bytes) -> str:
    text = data[: len(data) // 2 * 2].decode("utf-16-le", "surrogatepass")
    return text.split("\0", 1)[0]
