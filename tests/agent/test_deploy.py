"""A whole deploy onto a loop device, and every refusal before it: real files and devices, only the network is false."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentbench.golden import GOLDEN_UUID, make_golden
from agentbench.loop import loop_disk, target_directory
from agentbench.node import MACHINE_ID, Node, make_node
from agentbench.scene import layout
from agentbench.store_server import Key, StoreServer
from cloner_agent.efivars import EfiVars
from cloner_agent.host import run
from cloner_core.efi import parse_order
from cloner_core.image.digest import digest
from cloner_core.layout import Layout
from cloner_core.messages import (
    DEPLOY_STAGES,
    SCRIPT_STAGES,
    BeatReply,
    Cause,
    Fault,
    Stage,
)
from cloner_core.scripts import Script, ScriptSet, ScriptType
from cloner_core.sizes import MIB

pytestmark = pytest.mark.root


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    server = StoreServer(tmp_path / "store", make_golden(tmp_path / "golden"))
    with (
        loop_disk(tmp_path / "disk", 256 * MIB) as disk,
        loop_disk(tmp_path / "spare", 256 * MIB) as spare,
        target_directory(tmp_path / "target") as target,
    ):
        # Something to lose: an old table and bytes in its middle.
        run(("sfdisk", "--quiet", "--no-reread", disk.device), stdin="label: gpt\nsize=10M\n")
        with disk.file.open("r+b") as file:
            file.seek(5 * MIB)
            file.write(os.urandom(MIB))
        yield make_node(tmp_path, server, disk, spare, target)


def test_a_deploy_ends_with_a_clone_that_is_itself(node: Node, tmp_path: Path) -> None:
    failure = node.deploy()
    assert failure is None, failure.message
    assert [word for word in node.server.said if word != "beat"] == [
        "hello", "verify", "plan", "identity", "commit", "receipt", "rebooting",
    ]  # fmt: skip
    (body,) = node.server.receipts
    assert body.machine_id == MACHINE_ID
    assert [time.stage for time in body.stages] == [stage for stage in DEPLOY_STAGES if stage not in SCRIPT_STAGES][:-1]
    assert body.bytes_read_back >= 3 * MIB
    names = [pack.digest for pack in node.server.version.pack_map.packs]
    assert (body.packs, body.packs_digest) == (len(names), digest(b"".join(names)).hex())
    assert [(rate.stage, rate.moved) for rate in body.rates or ()] == [
        (Stage.RESTORE, "received"), (Stage.RESTORE, "written"), (Stage.READBACK, "read"),
    ]  # fmt: skip
    assert all(rate.bytes > 0 and rate.mb_per_s > 0 for rate in body.rates or ())
    assert body.nvram_after[0].startswith("BootOrder 0004,")
    assert parse_order(EfiVars(node.efivars).all()["BootNext"]) != ()

    run(("mount", f"{node.disk.device}p3", str(node.target)))
    clone = node.target
    assert (clone / "etc/machine-id").read_text() == f"{MACHINE_ID}\n"
    assert (clone / "etc/hostname").read_text() == "node01\n"
    assert "10.0.0.1 printer" in (clone / "etc/hosts").read_text()
    key = clone / "etc/ssh/ssh_host_ed25519_key"
    assert "NODE01" in key.read_text()
    assert key.stat().st_mode & 0o777 == 0o600
    assert GOLDEN_UUID not in (clone / "etc/fstab").read_text()
    assert (clone / "usr/bin/su").stat().st_mode & 0o7777 == 0o4755
    assert os.getxattr(clone / "usr/bin/big", "user.note") == b"kept"
    assert (clone / "usr/bin/big").samefile(clone / "usr/bin/big2")
    assert (clone / "usr/bin/big").read_bytes() == (tmp_path / "golden/usr/bin/big").read_bytes()
    esp = node.programs.esp
    assert sorted(path.name for path in esp.iterdir()) == ["EFI"]
    assert (esp / "EFI/debian/shimx64.efi").read_bytes().startswith(b"MZ shim")
    assert (esp / "EFI/vendor/settings").read_bytes() == b"kept\n"


def test_an_image_with_a_kernel_and_nothing_else_boots_from_the_fallback_path_too(node: Node) -> None:
    assert node.deploy() is None
    fallback = node.programs.esp / "EFI/BOOT/BOOTX64.EFI"
    assert fallback.read_bytes().startswith(b"MZ shim")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def _selector(serial: str) -> Layout:
    return layout(serial=serial)


def _set(node: Node, **values: Any) -> None:
    for name, value in values.items():
        setattr(node, name, value)


def _spoil_ref(node: Node, **values: str) -> None:
    node.server.ref = msgspec.structs.replace(node.server.ref, **values)


REFUSALS: dict[str, tuple[Callable[[Node], object], Stage, Cause]] = {
    "flipped byte in a pack": (lambda n: _flip(n.server.pack_paths()[0]), Stage.VERIFY, Cause.CORRUPT),
    "missing pack": (lambda n: n.server.pack_paths()[0].unlink(), Stage.VERIFY, Cause.MISSING_PACK),
    "wrong signature of the version": (lambda n: _spoil_ref(n, signature="00" * 64), Stage.VERIFY, Cause.SIGNATURE),
    "wrong signature of the map": (
        lambda n: _spoil_ref(n, pack_map_signature="11" * 64),
        Stage.VERIFY,
        Cause.SIGNATURE,
    ),
    "signed by another server": (lambda n: _set(n, server_key=Key().public_key), Stage.VERIFY, Cause.SIGNATURE),
    "not even hexadecimal": (lambda n: _spoil_ref(n, signature="x"), Stage.VERIFY, Cause.SIGNATURE),
    "disk too small": (
        lambda n: _set(n, layout=layout(esp_bytes=64 * MIB, swap_bytes=200 * MIB)),
        Stage.PLAN,
        Cause.DISK_TOO_SMALL,
    ),
    "no disk matches": (lambda n: _set(n, layout=_selector("NONE")), Stage.PLAN, Cause.NO_DISK),
    "two disks match": (
        lambda n: _set(n, layout=_selector("*"), others=(n.spare.name,)),
        Stage.PLAN,
        Cause.AMBIGUOUS_DISK,
    ),
    "the disk is protected": (lambda n: n.changes.update(protected_serials=("CL1",)), Stage.PLAN, Cause.NO_DISK),
    "the server planned otherwise": (
        lambda n: n.server.refuse.update(plan=Fault(error="other plan", status=5)),
        Stage.PLAN,
        Cause.PLAN_MISMATCH,
    ),
    "the task ended": (
        lambda n: n.server.refuse.update(plan=Fault(error="ended", status=4)),
        Stage.PLAN,
        Cause.REFUSED,
    ),
    "another protocol": (
        lambda n: n.server.refuse.update(hello=Fault(error="protocol 2 here", status=2)),
        Stage.HELLO,
        Cause.PROTOCOL,
    ),
    "a pre-script refuses the machine": (
        lambda n: n.changes.update(scripts=ScriptSet(1, (Script(ScriptType.PRE, "no", "#!/bin/sh\nexit 1\n"),))),
        Stage.PRE_SCRIPT,
        Cause.SCRIPT,
    ),
    "aborted": (lambda n: _set(n, order=BeatReply(order="abort", reason="no")), Stage.VERIFY, Cause.ABORTED),
}


@pytest.mark.parametrize(("spoil", "stage", "cause"), REFUSALS.values(), ids=REFUSALS)
def test_it_is_refused_before_a_bit_of_the_disk_changed(
    node: Node, spoil: Callable[[Node], object], stage: Stage, cause: Cause
) -> None:
    spoil(node)
    before = node.disk.digest()
    failure = node.deploy()
    assert failure is not None
    assert (failure.stage, failure.cause, failure.is_destroyed) == (stage, cause, False)
    assert failure.hint or cause is Cause.ABORTED
    assert node.disk.digest() == before
    assert "commit" not in node.server.said
    assert "receipt" not in node.server.said
    assert not {"sfdisk", "wipefs --all"} & {" ".join(argv[:2]) for argv in node.programs.ran if "--json" not in argv}


@pytest.mark.parametrize("lost", ["boot/vmlinuz-6.1.0", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"])
def test_an_image_that_could_not_boot_is_refused_before_a_bit_of_the_disk_changed(
    node: Node, tmp_path: Path, lost: str
) -> None:
    golden = make_golden(tmp_path / "unbootable")
    (golden / lost).unlink()
    node.server = StoreServer(tmp_path / "unbootable-store", golden)
    before = node.disk.digest()
    failure = node.deploy()
    assert failure is not None
    assert (failure.stage, failure.cause, failure.is_destroyed) == (Stage.PLAN, Cause.NOT_BOOTABLE, False)
    assert failure.hint
    assert node.disk.digest() == before


def test_an_identifier_of_this_deploy_on_another_disk_is_refused_unchanged(node: Node) -> None:
    node.others = (node.spare.name,)
    run(("mkfs.ext4", "-q", "-U", GOLDEN_UUID, node.spare.device))
    before = node.disk.digest(), node.spare.digest()
    failure = node.deploy()
    assert failure is not None
    assert (failure.cause, failure.is_destroyed) == (Cause.FOREIGN_UUID, False)
    assert (node.disk.digest(), node.spare.digest()) == before


def test_no_other_disk_is_written_to(node: Node) -> None:
    node.others = (node.spare.name,)
    before = node.spare.digest()
    assert node.deploy() is None
    assert node.spare.digest() == before


def test_a_disk_in_use_is_refused_unchanged(node: Node, tmp_path: Path) -> None:
    before = node.disk.digest()
    holder = os.open(node.disk.device, os.O_RDONLY | os.O_EXCL)
    try:
        failure = node.deploy()
    finally:
        os.close(holder)
    assert failure is not None
    assert (failure.stage, failure.cause, failure.is_destroyed) == (Stage.GUARD, Cause.DEVICE_BUSY, False)
    assert node.disk.digest() == before


def test_a_commit_that_is_not_granted_leaves_a_disk_that_cannot_boot(node: Node) -> None:
    node.server.refuse["commit"] = Fault(error="the attempt was replaced", status=4)
    failure = node.deploy()
    assert failure is not None
    assert (failure.stage, failure.cause, failure.is_destroyed) == (Stage.COMMIT, Cause.REFUSED, True)
    assert not (node.programs.esp / "EFI").exists()
    assert "receipt" not in node.server.said


def test_a_pack_that_rots_between_check_and_fetch_is_never_written(node: Node) -> None:
    fetch = node.server.fetch

    def rotten(ordinal: int, pack: Any) -> tuple[bytes, bytes]:
        stored, placement = fetch(ordinal, pack)
        return stored[:-1] + bytes([stored[-1] ^ 1]), placement

    node.server.fetch = rotten  # type: ignore[method-assign]
    failure = node.deploy()
    assert failure is not None
    assert (failure.stage, failure.cause, failure.is_destroyed) == (Stage.RESTORE, Cause.CORRUPT, True)
    assert not (node.programs.esp / "EFI").exists()
