"""Layout documents: what is read, what is refused, and that every fault is told at once."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_core.layout import Filesystem, Layout, Luks, Size, Swap, Unlock, layout_document, parse_layout
from cloner_core.sizes import GIB, MIB, document_bytes, format_bytes, parse_bytes


def document() -> dict[str, Any]:
    """Return a good document, fresh for each test to spoil."""
    return {
        "name": "debian",
        "disks": [
            {
                "id": "system",
                "select": {"serial": "CL*", "size_min": "4GiB"},
                "partitions": [
                    {
                        "role": "esp",
                        "size": "512MiB",
                        "content": {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi"},
                    },
                    {"role": "swap", "size": "1GiB", "content": {"type": "swap"}},
                    {
                        "role": "root",
                        "size": "rest",
                        "label": "root",
                        "content": {"type": "filesystem", "kind": "ext4", "mount": "/", "label": "root"},
                    },
                ],
            }
        ],
    }


def faults_of(raw: object) -> tuple[str, ...]:
    with pytest.raises(InvalidError) as caught:
        parse_layout(json.dumps(raw))
    return caught.value.faults


def test_a_document_becomes_a_layout() -> None:
    layout = parse_layout(json.dumps(document()))
    esp, swap, root = layout.disks[0].partitions
    assert layout.disks[0].select.size_min_bytes == 4 * GIB
    assert esp.size == Size(512 * MIB, 512 * MIB)
    assert esp.content == Filesystem(kind="vfat", mount="/boot/efi")
    assert swap.content == Swap()
    assert (root.size.max_bytes, root.size.weight, root.label) == (0, 1, "root")


def test_a_layout_written_and_read_again_is_equal() -> None:
    layout = parse_layout(json.dumps(document()))
    assert parse_layout(json.dumps(layout_document(layout))) == layout


def test_the_canonical_encoding_is_a_document_too() -> None:
    layout = parse_layout(json.dumps(document()))
    assert parse_layout(msgspec.json.encode(layout)) == layout
    assert msgspec.json.decode(msgspec.json.encode(layout), type=Layout) == layout


def test_five_mistakes_are_five_faults() -> None:
    raw = document()
    partitions = raw["disks"][0]["partitions"]
    partitions[0]["content"]["kind"] = "ext4"
    partitions[1]["size"] = "big"
    partitions[2]["content"]["mont"] = "/"
    raw["disks"][0]["select"]["size_max"] = "1GiB"
    raw["name"] = "Debian 12"
    faults = faults_of(raw)
    assert len(faults) == 5
    wanted = [
        "disks[0].partitions[1].size: 'big' is not a size",
        "disks[0].partitions[2].content.mont: unknown field",
        "name: 'Debian 12' is not a name",
        "disks[0].select: the least size is more than the greatest",
        "disks[0].partitions[0].content.kind: an esp is vfat, not ext4",
    ]
    for start in wanted:
        assert any(fault.startswith(start) for fault in faults), start


def spoil(*path: object, value: object = None) -> dict[str, Any]:
    """Return the good document with the value at `path` replaced, or removed when `value` is None."""
    raw: Any = document()
    place = raw
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    assert isinstance(raw, dict)
    return raw


PARTS = ("disks", 0, "partitions")


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        pytest.param(spoil("name"), "name: is missing", id="no name"),
        pytest.param(spoil("disks", value=[]), "disks: is empty", id="no disks"),
        pytest.param(spoil("format", value=2), "format: 2 is not a format", id="newer format"),
        pytest.param(spoil(*PARTS, 0), "disks: no partitions of role 'esp'", id="no esp"),
        pytest.param(spoil(*PARTS, 2), "disks: no partitions of role 'root'", id="no root"),
        pytest.param(spoil(*PARTS, 1, "role", value="wsap"), "'wsap' is not one of esp", id="role misspelt"),
        pytest.param(spoil(*PARTS, 2, "content", "mount", value="/srv"), "only the root is at '/'", id="root astray"),
        pytest.param(spoil(*PARTS, 0, "content", "mount", value="/boot/../x"), "not an absolute path", id="dots"),
        pytest.param(spoil(*PARTS, 0, "content", "mount", value="/proc"), "belongs to the kernel", id="/proc"),
        pytest.param(spoil(*PARTS, 0, "content", "label", value="efi"), "in upper case", id="vfat label"),
        pytest.param(spoil(*PARTS, 2, "label", value='x", uuid="'), "is not a partition name", id="script injection"),
        pytest.param(spoil(*PARTS, 2, "content", "options", value="rw\nx"), "not mount options", id="fstab injection"),
        pytest.param(spoil(*PARTS, 2, "content", "source_uuid", value="x"), "is not a UUID", id="source"),
        pytest.param(spoil(*PARTS, 1, "size", value="rest"), "2 partitions take the rest", id="two rests"),
        pytest.param(spoil(*PARTS, 1, "size", value=-1), "-1 is not a size", id="negative"),
        pytest.param(spoil(*PARTS, 1, "size", value="1KiB"), "less than 1 MiB", id="tiny"),
        pytest.param(
            spoil(*PARTS, 1, "size", value={"min": "2GiB", "max": "1GiB"}), "more than the greatest", id="min over max"
        ),
        pytest.param(spoil(*PARTS, 1, "size", value={"max": "1GiB"}), 'needs "min"', id="no min"),
        pytest.param(
            spoil(*PARTS, 1, "content", "type", value="btrfs"), "is not one of filesystem, swap", id="content type"
        ),
        pytest.param(spoil(*PARTS, 1, "content", value={"type": "swap", "x": 1}), "content.x: unknown", id="unknown"),
        pytest.param(spoil("disks", 0, "select", value=[]), "is a list; want an object", id="selector type"),
        pytest.param(spoil("disks", 0, "id", value=7), "disks[0].id: is a number; want text", id="id type"),
    ],
)
def test_one_mistake_is_one_fault(raw: dict[str, Any], fault: str) -> None:
    faults = faults_of(raw)
    assert len(faults) == 1, faults
    assert fault in faults[0]


def test_two_roots_are_told_by_role_and_by_mount() -> None:
    raw = document()
    raw["disks"][0]["partitions"].append({**raw["disks"][0]["partitions"][2], "size": "1GiB"})
    assert any("2 partitions of role 'root'" in fault for fault in faults_of(raw))
    assert any("'/' is mounted twice" in fault for fault in faults_of(raw))


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_hostile_text_is_refused_and_nothing_else(text: bytes | str) -> None:
    with pytest.raises(InvalidError):
        parse_layout(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just("rest"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "disks",
                    "id",
                    "select",
                    "partitions",
                    "role",
                    "size",
                    "content",
                    "type",
                    "mount",
                    "min",
                    "weight",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.lists(st.tuples(st.sampled_from(range(3)), st.sampled_from(["role", "size", "content", "label"]), JSON)))
def test_any_spoilt_partition_is_read_or_refused_with_paths(changes: list[tuple[int, str, object]]) -> None:
    raw = document()
    for index, field, value in changes:
        raw["disks"][0]["partitions"][index][field] = value
    faults: tuple[str, ...] = ("none: yet",)
    try:
        layout = parse_layout(json.dumps(raw))
    except InvalidError as error:
        faults = error.faults
    else:
        assert parse_layout(json.dumps(layout_document(layout))) == layout
    assert faults
    assert all(": " in fault for fault in faults)


@given(JSON)
def test_any_json_is_refused_with_faults(raw: object) -> None:
    assert faults_of(raw)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("512MiB", 512 << 20), ("1.5 GiB", 3 << 29), ("2TB", 2 * 10**12), ("4096B", 4096), ("0.5kB", 500)],
)
def test_sizes_are_read_as_written(text: str, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "5", "5 M", "5m", "-1GiB", "1e3MiB", "0.3B", "9999999999TiB", "1,5GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a size|whole number|more than"):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=1 << 61))
def test_a_size_in_a_document_is_exact(size_bytes: int) -> None:
    assert parse_bytes(document_bytes(size_bytes)) == size_bytes
    assert format_bytes(size_bytes)


def stacked() -> dict[str, Any]:
    """Return a good document with everything that lies on something else, fresh for each test to spoil."""
    raid = {"size": "rest", "content": {"type": "raid", "array": "system"}}
    esp = {"role": "esp", "size": "512MiB", "content": {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi"}}
    copy = {"role": "esp", "size": "512MiB", "content": {"type": "esp-copy"}}
    boot = {"size": "1GiB", "content": {"type": "filesystem", "kind": "ext4", "mount": "/boot"}}
    btrfs = {
        "type": "filesystem",
        "kind": "btrfs",
        "subvolumes": [{"name": "@", "mount": "/", "options": "compress=zstd"}, {"name": "@home", "mount": "/home"}],
    }
    sealed = {"type": "luks", "name": "crypt", "unlock": {"way": "tpm2", "pcrs": [7, 4, 7]}, "content": btrfs}
    return {
        "name": "stacked",
        "disks": [
            {"id": "a", "select": {"serial": "A"}, "partitions": [esp, boot, raid]},
            {"id": "b", "select": {"serial": ["B*", "C*"]}, "partitions": [copy, dict(raid)]},
        ],
        "arrays": [{"id": "system", "level": "raid1", "content": {"type": "lvm", "group": "vg0"}}],
        "groups": [{"name": "vg0", "volumes": [{"name": "root", "size": "rest", "content": sealed}]}],
        "swapfiles": [{"path": "/swapfile", "size": "1GiB"}],
        "untouched": [{"bus": "scsi", "rotational": True}],
    }


def spoilt(*path: str | int, value: object = ...) -> dict[str, Any]:
    """Return `stacked` with what is at `path` replaced by `value`, or taken away."""
    raw: Any = stacked()
    at = raw
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return dict(raw)


def test_what_lies_on_what_is_read_and_written_back() -> None:
    layout = parse_layout(json.dumps(stacked()))
    assert [partition.role for disk in layout.disks for partition in disk.partitions] == [
        "esp",
        "data",
        "raid",
        "esp",
        "raid",
    ]
    assert [path for path, _ in layout.filesystems()] == [
        "disks[0].partitions[0].content",
        "disks[0].partitions[1].content",
        "groups[0].volumes[0].content.content",
    ]
    sealed = layout.groups[0].volumes[0].content
    assert isinstance(sealed, Luks)
    assert sealed.unlock == Unlock("tpm2", (4, 7))
    assert parse_layout(json.dumps(layout_document(layout))) == layout
    assert parse_layout(msgspec.json.encode(layout)) == layout


ROOT = ("groups", 0, "volumes", 0, "content")


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        pytest.param(spoilt("arrays"), "there is no array 'system'", id="no array"),
        pytest.param(spoilt("arrays", 0, "level", value="raid4"), "'raid4' is not one of", id="level"),
        pytest.param(spoilt("arrays", 0, "level", value="raid5"), "has 2 members; raid5 needs 3", id="too few members"),
        pytest.param(spoilt("arrays", 0, "id", value="Sys"), "'Sys' is not a name", id="array name"),
        pytest.param(spoilt("arrays", 0, "chunk_kib", value=96), "not a power of two", id="chunk"),
        pytest.param(
            spoilt("arrays", 0, "content", value={"type": "raid", "array": "system"}), "is a filesystem", id="nested"
        ),
        pytest.param(spoilt("groups"), "there is no volume group 'vg0'", id="no group"),
        pytest.param(spoilt("groups", 0, "name", value="vg 0"), "is not a name that LVM takes", id="group name"),
        pytest.param(spoilt("groups", 0, "volumes", 0, "name", value="snapshot1"), "LVM takes", id="volume name"),
        pytest.param(spoilt("groups", 0, "volumes", value=[]), "groups[0].volumes: is empty", id="no volumes"),
        pytest.param(
            spoilt(*ROOT, "content", value={"type": "lvm", "group": "vg0"}), "cannot lie on a logical", id="cycle"
        ),
        pytest.param(spoilt(*ROOT, "unlock", value="random"), "for swap alone", id="random root"),
        pytest.param(spoilt(*ROOT, "unlock", value="keyfile"), "'keyfile' is not one of", id="unlock"),
        pytest.param(spoilt(*ROOT, "unlock"), "unlock: is missing", id="no unlock"),
        pytest.param(
            spoilt(*ROOT, "unlock", value={"way": "passphrase", "pcrs": [1]}), "only tpm2 has registers", id="pcrs"
        ),
        pytest.param(spoilt("disks", 0, "partitions", 1), "which GRUB could read", id="encrypted boot"),
        pytest.param(
            spoilt(*ROOT, "content", "subvolumes", 1, "name", value="/@home"),
            "without a slash in front",
            id="subvolume",
        ),
        pytest.param(spoilt(*ROOT, "content", "subvolumes", 1, "name", value="@"), "used twice", id="two of a name"),
        pytest.param(
            spoilt(*ROOT, "content", "subvolumes", 1, "options", value="subvol=@x"), "set by the name", id="subvol="
        ),
        pytest.param(spoilt(*ROOT, "content", "kind", value="xfs"), "xfs has none; want btrfs", id="xfs subvolumes"),
        pytest.param(
            spoilt(*ROOT, "content", "subvolumes", 1, "mount", value="/boot/efi/x"), "inside the esp", id="in the esp"
        ),
        pytest.param(spoilt("swapfiles", 0, "path", value="/boot/efi/swap"), "inside the esp", id="swap in the esp"),
        pytest.param(spoilt("swapfiles", 0, "size", value="1B"), "less than 1 MiB", id="swap size"),
        pytest.param(spoilt("untouched", 0, value={}), "would mean every disk", id="everything untouched"),
        pytest.param(spoilt("disks", 0, "select", "serial", value={"like": "A"}), "unknown field", id="operator"),
        pytest.param(spoilt("disks", 0, "select", "serial", value=[1]), "not a list of at most", id="pattern"),
        pytest.param(
            spoilt("disks", 0, "select", "pick", value={"nth": 3, "of": 2, "by": "path"}), "no number 3 of 2", id="pick"
        ),
        pytest.param(
            spoilt("disks", 1, "partitions", 0, "content", value={"type": "none"}), "do not go together", id="empty esp"
        ),
        pytest.param(spoilt("disks", 0, "table", value="none"), "unknown field", id="partitions without a table"),
        pytest.param(spoilt("disks", 0, "table", value="bsd"), "'bsd' is not one of gpt, mbr", id="table"),
    ],
)
def test_a_mistake_in_what_lies_on_what_is_told_with_its_path(raw: dict[str, Any], fault: str) -> None:
    assert any(fault in one for one in faults_of(raw)), faults_of(raw)


def test_a_misspelt_array_hides_no_root() -> None:
    raw = stacked()
    raw["arrays"][0]["content"] = {"type": "lmv"}
    assert faults_of(raw) == (
        "arrays[0].content.type: 'lmv' is not one of filesystem, swap, raid, lvm, luks, esp-copy, kept, none",
    )


def mbr(*partitions: dict[str, Any]) -> dict[str, Any]:
    return {"name": "bios", "disks": [{"id": "a", "table": "mbr", "partitions": list(partitions)}]}


def part(mount: str, **more: Any) -> dict[str, Any]:
    return {"size": "1GiB", "content": {"type": "filesystem", "kind": "ext4", "mount": mount}, **more}


@pytest.mark.parametrize(
    ("partitions", "fault"),
    [
        pytest.param([part("/"), part("/a"), part("/b"), part("/c"), part("/d")], "has 4 entries", id="five primaries"),
        pytest.param(
            [part("/", logical=True), part("/a"), part("/b", logical=True)], "must follow one another", id="apart"
        ),
        pytest.param([part("/", active=True), part("/a", active=True)], "more than one", id="two active"),
        pytest.param(
            [part("/"), {"logical": True, "content": {"type": "kept", "number": 5}}], "cannot be kept", id="kept"
        ),
        pytest.param([part("/"), part("/a", logical="yes")], "want true or false", id="flag"),
    ],
)
def test_an_mbr_has_its_limits(partitions: list[dict[str, Any]], fault: str) -> None:
    faults = faults_of(mbr(*partitions))
    assert len(faults) == 1
    assert fault in faults[0]


def test_four_primaries_or_three_and_logical_ones_are_fine() -> None:
    assert len(parse_layout(json.dumps(mbr(*map(part, ("/", "/a", "/b", "/c"))))).disks[0].partitions) == 4
    logical = [part(f"/l{index}", logical=True) for index in range(5)]
    assert len(parse_layout(json.dumps(mbr(part("/"), part("/a"), part("/b"), *logical))).disks[0].partitions) == 8
