"""The JSON Schema (2020-12) of layout documents, for editors and for other programs.

It says what a document may look like: every field, its kind and its words. What must go together (one root, members of
an array that exist) is `rules` alone; `cloner layout check` tells both.
"""

from __future__ import annotations

from typing import Any, Final

from cloner_core.layout.containing import KINDS, MAX_PCR, UNLOCKS
from cloner_core.layout.document import MAX_WEIGHT, METADATA, REST, ROLES, TABLES
from cloner_core.layout.reading import MAX_ITEMS
from cloner_core.layout.selecting import ORDERS, PATTERNS
from cloner_core.layout.stacking import LEAST_MEMBERS
from cloner_core.sizes import MAX_BYTES

SCHEMA_ID: Final = "urn:cloner:layout:1"
_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_SIZE: Final = r"^\s*[0-9]{1,19}(\.[0-9]{1,6})? ?(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)\s*$"

_Schema = dict[str, Any]


def layout_schema() -> _Schema:
    """Return the schema; equal at each call, for it is published as docs/layout.schema.json."""
    definitions = {
        "bytes": {
            "description": "512MiB, 1.5GiB, 2TB, or a number of bytes",
            "oneOf": [{"type": "string", "pattern": _SIZE}, {"type": "integer", "minimum": 0, "maximum": MAX_BYTES}],
        },
        "size": _size(),
        "match": _match(),
        "selector": _selector(),
        "filesystem": _filesystem(),
        "swap": _content("swap", "Swap space made new", {"label": _text("Label"), "source_uuid": _source()}),
        "raid": _content("raid", "A member of an array", {"array": _text("Id of the array")}, "array"),
        "lvm": _content("lvm", "A physical volume of a volume group", {"group": _text("Name of the group")}, "group"),
        "luks": _luks(),
        "esp-copy": _content("esp-copy", "A copy of the ESP on another disk", {"label": _text("Label")}),
        "kept": _kept(),
        "none": _content("none", "Not formatted: a BIOS boot partition, or room for later", {}),
        "partition": _partition(),
        "disk": _disk(),
        "array": _array(),
        "group": _group(),
        "volume": _volume(),
        "swapfile": _object(
            "A swap file made new",
            {"path": _text("Absolute path in the clone"), "size": _ref("bytes"), "size_bytes": _ref("bytes")},
            required=("path",),
        )
        | {"oneOf": [{"required": ["size"]}, {"required": ["size_bytes"]}]},
    }
    top = _object(
        "A layout: which disks of a node are used, how they are partitioned, and what is made on them",
        {
            "name": {"type": "string", "pattern": _NAME},
            "format": {"const": 1},
            "disks": _list("disk", least=1),
            "arrays": _list("array"),
            "groups": _list("group"),
            "swapfiles": _list("swapfile"),
            "untouched": _list("selector"),
        },
        required=("disks",),  # the command line gives a name to a document that says none
    )
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, "title": "Cloner disk layout"}
    return head | top | {"$defs": definitions}


def _object(description: str, properties: _Schema, *, required: tuple[str, ...] = ()) -> _Schema:
    made: _Schema = {"description": description, "type": "object", "additionalProperties": False}
    made["properties"] = properties
    return made | ({"required": list(required)} if required else {})


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/$defs/{name}"}


def _any_of(*names: str) -> _Schema:
    return {"oneOf": [_ref(name) for name in names]}


def _list(name: str, *, least: int = 0) -> _Schema:
    return {"type": "array", "items": _ref(name), "maxItems": MAX_ITEMS} | ({"minItems": least} if least else {})


def _text(description: str) -> _Schema:
    return {"description": description, "type": "string"}


def _source() -> _Schema:
    return _text("What the golden node calls it; references in the image are rewritten to the new identifier")


def _content(kind: str, description: str, properties: _Schema, *required: str) -> _Schema:
    return _object(description, {"type": {"const": kind}} | properties, required=("type", *required))


def _size() -> _Schema:
    bounds = {
        "min": _ref("bytes"),
        "max": _ref("bytes"),
        "min_bytes": _ref("bytes"),
        "max_bytes": _ref("bytes"),
        "weight": {"type": "integer", "minimum": 0, "maximum": MAX_WEIGHT},
    }
    share = _object("At least min, and a share by weight of what is left over, up to max", bounds)
    share["oneOf"] = [{"required": ["min"]}, {"required": ["min_bytes"]}]
    return {"oneOf": [{"const": REST}, _ref("bytes"), share]}


def _match() -> _Schema:
    texts = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MAX_ITEMS}
    return {
        "description": "Shell patterns, case counts: one, a list of which one must fit, or any and none of them",
        "oneOf": [{"type": "string"}, texts, _object("Patterns", {"any": texts, "none": texts})],
    }


def _selector() -> _Schema:
    number = {"type": "integer", "minimum": 1, "maximum": MAX_ITEMS}
    pick = _object(
        "Which of several disks that match alike",
        {"nth": number, "of": number, "by": {"enum": list(ORDERS)}},
        required=("nth", "of", "by"),
    )
    sizes = ("size_min", "size_max", "size_min_bytes", "size_max_bytes", "sector", "sector_bytes")
    properties = {name: _ref("match") for name in PATTERNS} | {name: _ref("bytes") for name in sizes}
    more: _Schema = {"rotational": {"type": ["boolean", "null"]}, "pick": {"oneOf": [pick, {"type": "null"}]}}
    return _object("Which disk is meant: all that is given must hold", properties | more)


def _filesystem() -> _Schema:
    subvolume = _object(
        "A subvolume of btrfs",
        {
            "name": _text("Path from the top of the filesystem: @home"),
            "mount": _text("Absolute path in the clone; without it is made and not mounted"),
            "options": _text("Mount options, without subvol"),
        },
        required=("name",),
    )
    properties = {
        "kind": {"enum": list(KINDS)},
        "mount": _text("Absolute path in the clone"),
        "label": _text("Label"),
        "options": _text("Fourth field of fstab(5)"),
        "source_uuid": _source(),
        "subvolumes": {"type": "array", "items": subvolume, "maxItems": MAX_ITEMS},
    }
    made = _content("filesystem", "A filesystem made new", properties, "kind")
    is_btrfs = {"properties": {"kind": {"const": "btrfs"}}, "required": ["kind", "subvolumes"]}
    return made | {"if": is_btrfs, "else": {"required": ["mount"]}}


def _luks() -> _Schema:
    registers = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MAX_PCR}}
    way = {"enum": list(UNLOCKS)}
    unlock = {"oneOf": [way, _object("With registers", {"way": way, "pcrs": registers}, required=("way",))]}
    properties = {
        "name": _text("Of the mapping: /dev/mapper/NAME"),
        "unlock": unlock,
        "content": _any_of("filesystem", "swap", "lvm"),
        "source_uuid": _source(),
    }
    return _content("luks", "A LUKS2 container made new for each node", properties, "name", "unlock", "content")


def _kept() -> _Schema:
    properties = {
        "number": {"type": "integer", "minimum": 1, "maximum": 128},
        "mount": _text("Where the clone mounts what is there"),
        "options": _text("Fourth field of fstab(5)"),
    }
    return _content("kept", "What is there stays", properties, "number")


def _partition() -> _Schema:
    contents = ("filesystem", "swap", "raid", "lvm", "luks", "esp-copy", "kept", "none")
    flag = {"type": "boolean"}
    properties = {
        "role": {"enum": list(ROLES)},
        "size": _ref("size"),
        "content": _any_of(*contents),
        "label": _text("Partition name of a GPT"),
        **dict.fromkeys(("logical", "active", "is_logical", "is_active"), flag),
    }
    made = _object("One partition, in the order given", properties, required=("content",))
    is_kept = {"properties": {"content": {"properties": {"type": {"const": "kept"}}}}}
    return made | {"if": is_kept, "else": {"required": ["size"]}}


def _disk() -> _Schema:
    properties = {
        "id": {"type": "string", "pattern": _NAME},
        "select": _ref("selector"),
        "table": {"enum": list(TABLES)},
        "partitions": _list("partition", least=1),
        "content": _any_of("filesystem", "swap", "raid", "lvm", "luks"),
    }
    made = _object("One disk", properties, required=("id",))
    is_bare = {"properties": {"table": {"const": "none"}}, "required": ["table"]}
    bare = {"required": ["content"], "properties": {"partitions": False}}
    return made | {
        "if": is_bare,
        "then": bare,
        "else": {"required": ["partitions"], "properties": {"content": {"type": "null"}}},
    }


def _array() -> _Schema:
    properties = {
        "id": _text("Name of the array"),
        "level": {"enum": list(LEAST_MEMBERS)},
        "metadata": {"enum": list(METADATA)},
        "chunk_kib": {"type": "integer", "minimum": 4, "maximum": 1 << 20},
        "content": _any_of("filesystem", "swap", "lvm", "luks"),
    }
    return _object("An md array over the members that name it", properties, required=("id", "level", "content"))


def _group() -> _Schema:
    properties = {
        "name": _text("Name of the volume group"),
        "extent_mib": {"type": "integer", "minimum": 1, "maximum": 1024},
        "volumes": _list("volume", least=1),
    }
    told = "An LVM volume group over the physical volumes that name it"
    return _object(told, properties, required=("name", "volumes"))


def _volume() -> _Schema:
    properties = {"name": _text("Name"), "size": _ref("size"), "content": _any_of("filesystem", "swap", "luks")}
    return _object("One logical volume", properties, required=("name", "size", "content"))
