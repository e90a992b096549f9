"""Arrays, volumes and encryption are opened read-only, a key is in no command, and all is taken down again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cloner_agent.atrest.assembling import assembled
from cloner_agent.host import Completed, ToolError
from cloner_core.messages import Secret

KEY, FORMER = Secret("cbde fghi"), Secret("jkln rtuv")


class Disk:
    """A disk with a container in an array, and in it a group with one volume; `lsblk` shows what was opened."""

    def __init__(self, key: Secret | None, *, has_loops: bool = True) -> None:
        self._has_loops = has_loops
        self.opened: list[str] = []
        self.ran: list[tuple[str, ...]] = []
        self._key = key

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        self.ran.append(tuple(argv))
        assert not stdin
        match tuple(argv):
            case ("lsblk", *_):
                return self._said(json.dumps({"blockdevices": [self._tree()]}))
            case ("blkid", *_, path):
                kinds = {"vda": "linux_raid_member", "md127": "crypto_LUKS", "luks-aa": "LVM2_member"}
                kind = kinds.get(path.rsplit("/", 1)[-1], "ext4")
                return self._said(f"DEVNAME={path}\nTYPE={kind}\nUUID=aa\n\n")
            case ("losetup", "--find", *_):
                if not self._has_loops:
                    raise ToolError(argv, 1, "losetup: cannot find an unused loop device")
                return self._said("/dev/loop7\n")
            case ("blockdev", "--getsz", _):
                return self._said("2048\n")
            case ("dmsetup", "create", name, *_):
                self.opened.append(name)
            case ("mdadm", "--assemble", *words):
                conf = Path(words[words.index("--config") + 1]).read_text()
                assert conf.startswith("DEVICE /dev/mapper/cloner-over-vda\n"), (
                    "no member itself is given to the driver"
                )
                self.opened.append("md127")
            case ("cryptsetup", "open", *words):
                if self._key is None or Path(words[words.index("--key-file") + 1]).read_text() != self._key.value:
                    raise ToolError(argv, 2, "No key available with this passphrase.")
                self.opened.append("luks-aa")
            case ("lvm", "lvs", *_):
                rows = [("root", "linear"), ("root", "linear"), ("pool", "thin-pool"), ("mirror", "raid1")]
                told = [{"vg_name": "vg0", "lv_name": name, "segtype": kind} for name, kind in rows]
                return self._said(json.dumps({"report": [{"lv": told}]}))
            case ("lvm", "lvchange", "--activate", "y", *_):
                self.opened.append("vg0-root")
        return self._said("")

    def _said(self, text: str) -> Completed:
        return Completed((), 0, text, "", 0.0)

    def _tree(self) -> dict[str, object]:
        tree: dict[str, object] = {}
        for name in reversed(["vda", *self.opened]):
            home = "/dev" if name in ("vda", "md127") else "/dev/mapper"
            row: dict[str, object] = {"path": f"{home}/{name}", "name": name, "type": "disk", "size": 1 << 30}
            tree = row | ({"children": [tree]} if tree else {})
        return tree

    def said(self, *head: str) -> list[tuple[str, ...]]:
        return [argv for argv in self.ran if argv[: len(head)] == head]


def test_everything_is_opened_read_only_and_taken_down_in_turn(tmp_path: Path) -> None:
    disk = Disk(FORMER)
    with assembled(disk, ["/dev/vda"], lambda: (KEY, FORMER), memory=tmp_path) as assembly:
        assert "/dev/mapper/vg0-root" in assembly.blocks
        assert assembly.blocks["/dev/vda"].children == ("/dev/md127",), "an overlay is seen through"
        assert assembly.locked == []
    (array,), (group,) = disk.said("mdadm", "--assemble"), disk.said("lvm", "lvchange", "--activate", "y")
    assert "--readonly" in array
    assert 'read_only_volume_list=["vg0"]' in group[5]
    assert "metadata_read_only=1" in group[5]
    assert group[-1] == "vg0/root", "a pool and a mirror are written to when they are opened"
    tries = disk.said("cryptsetup", "open")
    assert ["--readonly" in argv for argv in tries] == [True, True], "the newest key first, then a former one"
    assert not [word for argv in disk.ran for word in argv if KEY.value in word or FORMER.value in word]
    assert not list((tmp_path / "keys").iterdir())
    (overlay,) = disk.said("dmsetup", "create")
    assert overlay[-1] == "0 2048 snapshot /dev/vda /dev/loop7 N 8"
    downs = [argv[:2] for argv in disk.ran[-5:]]
    closed = [("lvm", "lvchange"), ("cryptsetup", "close"), ("mdadm", "--stop")]
    assert downs == [*closed, ("dmsetup", "remove"), ("losetup", "--detach")]
    assert not list(tmp_path.glob("cloner-over-*"))


def test_what_no_key_opens_stays_closed_and_is_told(tmp_path: Path) -> None:
    disk = Disk(None)
    with assembled(disk, ["/dev/vda"], lambda: (KEY,), memory=tmp_path) as assembly:
        assert [block.path for block in assembly.locked] == ["/dev/md127"]
    with assembled(disk, ["/dev/vda"], tuple, memory=tmp_path) as assembly:
        assert len(assembly.locked) == 1


def test_a_mapping_gets_the_name_that_its_system_knows(tmp_path: Path) -> None:
    disk = Disk(KEY)
    with assembled(disk, ["/dev/vda"], lambda: (KEY,), memory=tmp_path) as assembly:
        assembly.rename({"/dev/md127": "cryptroot"})
        assert disk.said("dmsetup", "rename") == [("dmsetup", "rename", "luks-aa", "cryptroot")]
    assert disk.said("cryptsetup", "close") == [("cryptsetup", "close", "cryptroot")]


def test_without_an_overlay_no_array_is_given_to_the_driver(tmp_path: Path) -> None:
    disk = Disk(KEY, has_loops=False)
    with pytest.raises(ToolError), assembled(disk, ["/dev/vda"], lambda: (KEY,), memory=tmp_path):
        pass
    assert disk.said("mdadm") == []
    assert not list(tmp_path.glob("cloner-over-*"))
