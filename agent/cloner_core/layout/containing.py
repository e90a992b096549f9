"""What partitions, arrays and volumes hold, in a document: reading, and writing back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast

from cloner_core.layout.reading import Reader, is_count, join
from cloner_core.layout.types import (
    ArrayMember,
    Content,
    EspCopy,
    Filesystem,
    Kept,
    Luks,
    Nothing,
    PhysicalVolume,
    Role,
    Subvolume,
    Swap,
    Unlock,
    mounts_of,
)

KINDS: Final = ("ext4", "xfs", "btrfs", "vfat")
UNLOCKS: Final = ("tpm2", "passphrase", "random")
_ROLES: Final[dict[type[Content], Role]] = {
    Swap: "swap",
    ArrayMember: "raid",
    PhysicalVolume: "lvm",
    Luks: "luks",
    EspCopy: "esp",
}
MAX_PCR = 23  # TCG PC Client Platform Firmware Profile: registers 0 to 23


def read_content(reader: Reader, raw: object, path: str) -> Content:
    """Return the content `raw` describes; for one that cannot be told something stands in that no rule judges."""
    kind = raw.get("type") if isinstance(raw, dict) else None
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        reader.fault(f"{path}.type", f"{kind!r} is not one of {', '.join(_READERS)}")
        reader.bad.add(path)
        return Swap()
    return read(reader, cast(Mapping[str, Any], raw), path)


def content_document(content: Content) -> dict[str, Any]:
    """Return `content` as a document holds it."""
    written: dict[str, Any] = {"type": _TYPES[type(content)]}
    for name in content.__struct_fields__:
        value = getattr(content, name)
        match value:
            case Filesystem() | Swap() | PhysicalVolume():
                written[name] = content_document(value)
            case Unlock(way=way, pcrs=pcrs):
                written[name] = {"way": way, "pcrs": list(pcrs)} if pcrs else way
            case tuple():
                if value:
                    written[name] = [_subvolume_document(one) for one in value]
            case _ if value not in ("", "defaults") or (name == "mount" and isinstance(content, Filesystem)):
                written[name] = value
    return written


def role_of(content: Content) -> Role:
    """Return the role a partition with `content` has when its document names none."""
    return "root" if "/" in mounts_of(content) else _ROLES.get(type(content), "data")


def _subvolume_document(one: Subvolume) -> dict[str, str]:
    pairs = {"name": one.name, "mount": one.mount, "options": "" if one.options == "defaults" else one.options}
    return {name: value for name, value in pairs.items() if value}


def _filesystem(reader: Reader, raw: Mapping[str, Any], path: str) -> Filesystem:
    is_btrfs = raw.get("kind") == "btrfs" and bool(raw.get("subvolumes"))
    required = ("kind",) if is_btrfs else ("kind", "mount")
    optional = ("type", "mount", "label", "options", "source_uuid", "subvolumes")
    fields = reader.fields(raw, path, required=required, optional=optional)
    return Filesystem(
        kind=cast(Literal["ext4", "xfs", "btrfs", "vfat"], reader.choice(fields, "kind", path, KINDS, stand_in="ext4")),
        mount=reader.text(fields, "mount", path, default="" if is_btrfs else None),
        label=reader.text(fields, "label", path, default=""),
        options=reader.text(fields, "options", path, default="defaults"),
        source_uuid=reader.text(fields, "source_uuid", path, default=""),
        subvolumes=reader.items(fields, "subvolumes", path, _subvolume(reader), is_needed=False),
    )


def _subvolume(reader: Reader) -> Callable[[object, str], Subvolume]:
    def read(raw: object, path: str) -> Subvolume:
        fields = reader.fields(raw, path, required=("name",), optional=("mount", "options"))
        return Subvolume(
            name=reader.text(fields, "name", path),
            mount=reader.text(fields, "mount", path, default=""),
            options=reader.text(fields, "options", path, default="defaults"),
        )

    return read


def _swap(reader: Reader, raw: Mapping[str, Any], path: str) -> Swap:
    fields = reader.fields(raw, path, optional=("type", "label", "source_uuid"))
    return Swap(
        label=reader.text(fields, "label", path, default=""),
        source_uuid=reader.text(fields, "source_uuid", path, default=""),
    )


def _member(reader: Reader, raw: Mapping[str, Any], path: str) -> ArrayMember:
    return ArrayMember(reader.text(reader.fields(raw, path, required=("array",), optional=("type",)), "array", path))


def _volume(reader: Reader, raw: Mapping[str, Any], path: str) -> PhysicalVolume:
    return PhysicalVolume(reader.text(reader.fields(raw, path, required=("group",), optional=("type",)), "group", path))


def _luks(reader: Reader, raw: Mapping[str, Any], path: str) -> Luks:
    required = ("name", "unlock", "content")
    fields = reader.fields(raw, path, required=required, optional=("type", "source_uuid"))
    where = join(path, "content")
    content = read_content(reader, fields["content"], where) if "content" in fields else None
    if not isinstance(content, Filesystem | Swap | PhysicalVolume):
        if content is not None:
            reader.fault(f"{where}.type", "what is encrypted is a filesystem, swap or lvm")
        reader.bad.add(where)
        content = Swap()
    return Luks(
        name=reader.text(fields, "name", path),
        unlock=_unlock(reader, fields.get("unlock"), join(path, "unlock")),
        content=content,
        source_uuid=reader.text(fields, "source_uuid", path, default=""),
    )


def _unlock(reader: Reader, raw: object, path: str) -> Unlock:
    if raw is None:
        reader.bad.add(path)
        return Unlock("tpm2")
    fields = reader.fields({"way": raw} if isinstance(raw, str) else raw, path, required=("way",), optional=("pcrs",))
    way = reader.choice(fields, "way", path, UNLOCKS, stand_in="tpm2")
    pcrs = fields.get("pcrs", [])
    if not isinstance(pcrs, list) or not all(is_count(one) and one <= MAX_PCR for one in pcrs):
        reader.fault(join(path, "pcrs"), f"is not a list of numbers from 0 to {MAX_PCR}")
        pcrs = []
    return Unlock(cast(Literal["tpm2", "passphrase", "random"], way), tuple(sorted(set(pcrs))))


def _esp_copy(reader: Reader, raw: Mapping[str, Any], path: str) -> EspCopy:
    fields = reader.fields(raw, path, optional=("type", "label"))
    return EspCopy(label=reader.text(fields, "label", path, default=""))


def _kept(reader: Reader, raw: Mapping[str, Any], path: str) -> Kept:
    fields = reader.fields(raw, path, required=("number",), optional=("type", "mount", "options"))
    return Kept(
        number=reader.count(fields, "number", path, least=1, most=128),
        mount=reader.text(fields, "mount", path, default=""),
        options=reader.text(fields, "options", path, default="defaults"),
    )


def _nothing(reader: Reader, raw: Mapping[str, Any], path: str) -> Nothing:
    reader.fields(raw, path, optional=("type",))
    return Nothing()


_READERS: Final[dict[str, Callable[[Reader, Mapping[str, Any], str], Content]]] = {
    "filesystem": _filesystem,
    "swap": _swap,
    "raid": _member,
    "lvm": _volume,
    "luks": _luks,
    "esp-copy": _esp_copy,
    "kept": _kept,
    "none": _nothing,
}
_TYPES: Final[dict[type[Content], str]] = {
    Filesystem: "filesystem",
    Swap: "swap",
    ArrayMember: "raid",
    PhysicalVolume: "lvm",
    Luks: "luks",
    EspCopy: "esp-copy",
    Kept: "kept",
    Nothing: "none",
}
