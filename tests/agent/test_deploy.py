"""A whole deploy onto a loop device, and every refusal before it: real files and devices, only the network is false."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentbench.golden import GOLDEN_UUID, make_golden
from agentbench.loop import LoopDisk, NodePrograms, loop_disk, target_directory
from agentbench.scene import facts, layout, task
from agentbench.store_server import Key, StoreServer
from cloner_agent.attempt import Tools
from cloner_agent.console import Console
from cloner_agent.deploy import Deploy
from cloner_agent.efivars import EfiVars
from cloner_agent.failures import failure_of
from cloner_agent.host import run
from cloner_agent.machine import Machine
from cloner_agent.probe import probe
from cloner_agent.reporter import Reporter
from cloner_core.efi import LoadOption, build_load_option, build_order, parse_order
from cloner_core.errors import ClonerError
from cloner_core.facts import Facts
from cloner_core.layout import Layout
from cloner_core.messages import (
    BeatReply,
    Cause,
    Failure,
    Fault,
    HelloReply,
    HostKey,
    Secret,
    Stage,
    Vaulted,
)
from cloner_core.sizes import MIB

pytestmark = pytest.mark.root
MACHINE_ID = "0123456789abcdef0123456789abcdef"
PXE = LoadOption("UEFI PXEv4", bytes.fromhex("030b2500") + bytes(33) + bytes.fromhex("7fff0400"))
VAULTED = Vaulted(
    machine_id=MACHINE_ID,
    host_keys=(
        HostKey(
            "ed25519",
            Secret("-----BEGIN OPENSSH PRIVATE KEY-----\nNODE01\n-----END OPENSSH PRIVATE KEY-----\n"),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDdUYXJhbnR1bGFUYXJhbnR1bGFUYXJhbnR1bGFU",
        ),
    ),
    random_seed=Secret("5a" * 512),
)


class _Rebooted(Exception):
    """Stands for the restart, from which a real deploy does not return."""


@dataclass
class Node:
    """A machine with one loop disk, its firmware variables, a server, and a deploy that can be run."""

    server: StoreServer
    programs: NodePrograms
    disk: LoopDisk
    spare: LoopDisk  # seen by the deploy when named in `others`
    target: Path
    efivars: Path
    layout: Layout
    changes: dict[str, Any]
    order: BeatReply = field(default_factory=BeatReply)
    server_key: bytes = b""
    others: tuple[str, ...] = ()

    def probe(self) -> Facts:
        """Tell the truth about the disk, and say the machine is a UEFI one with a serial number on it."""
        names = {self.disk.name, *self.others}
        found = probe(self.programs, disk_names=names.__contains__).disks
        mine = [
            msgspec.structs.replace(d, serial="CL1" if d.path == self.disk.device else "X", is_mounted=False)
            for d in found
        ]
        return facts(*mine)

    def deploy(self) -> Failure | None:
        """Run it; None when it came to the restart."""
        one = task(self.layout, version=self.server.ref, **self.changes)
        self.server.hello_reply = HelloReply(Secret("c"), one, 0.0, 1.0)
        self.server.vault = VAULTED

        def reboot() -> None:
            raise _Rebooted

        reporter = Reporter(Console(io.StringIO()), order=lambda: self.order)
        tools = Tools(
            server=self.server,
            run=self.programs,
            reporter=reporter,
            probe=self.probe,
            packs=lambda _: self.server,
            server_key=self.server_key or self.server.key.public_key,
            machine=Machine(reboot=reboot),
            target=str(self.target),
            efivars=EfiVars(self.efivars),
            workers=2,
        )
        deploy = Deploy(tools, claim="claim", public_key=bytes(32))
        try:
            deploy.run()
        except _Rebooted:
            return None
        except (ClonerError, OSError) as error:
            return failure_of(error, reporter.stage, is_destroyed=deploy.record.is_destroyed)
        raise AssertionError("a deploy returned")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    efivars = tmp_path / "efivars"
    efivars.mkdir()
    variables = EfiVars(efivars)
    variables.write("Boot0004", build_load_option(PXE))
    variables.write("BootOrder", build_order((4,)))
    variables.write("BootCurrent", build_order((4,)))
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
        yield Node(server, NodePrograms(tmp_path / "esp"), disk, spare, target, efivars, layout(), {})


def test_a_deploy_ends_with_a_clone_that_is_itself(node: Node, tmp_path: Path) -> None:
    failure = node.deploy()
    assert failure is None, failure.message
    assert [word for word in node.server.said if word != "beat"] == [
        "hello", "verify", "plan", "identity", "commit", "receipt", "rebooting",
    ]  # fmt: skip
    (body,) = node.server.receipts
    assert body.machine_id == MACHINE_ID
    assert [time.stage for time in body.stages] == list(Stage)[:-1]
    assert body.bytes_read_back >= 3 * MIB
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
    assert not (clone / ".cloner-work").exists()
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
    "aborted": (lambda n: _set(n, order=BeatReply(order="abort", reason="no")), Stage.VERIFY, Cause.ABORTED),
}


@pytest.mark.parametrize(("spoil", "stage", "cause"), REFUSALS.values(), ids=REFUSALS)
def test_it_is_refused_before_a_bit_of_the_disk_changed(
    node: Node, spoil: Callable[[Node], object], stage: Stage, cause: Cause
) -> None:
    spoil(node)
    before = node.disk.sha256()
    failure = node.deploy()
    assert failure is not None
    assert (failure.stage, failure.cause, failure.is_destroyed) == (stage, cause, False)
    assert failure.hint or cause is Cause.ABORTED
    assert node.disk.sha256() == before
    assert "commit" not in node.server.said
    assert "receipt" not in node.server.said
    assert not {"sfdisk", "wipefs --all"} & {" ".join(argv[:2]) for argv in node.programs.ran if "--json" not in argv}


def test_an_identifier_of_this_deploy_on_another_disk_is_refused_unchanged(node: Node) -> None:
    node.others = (node.spare.name,)
    run(("mkfs.ext4", "-q", "-U", GOLDEN_UUID, node.spare.device))
    before = node.disk.sha256(), node.spare.sha256()
    failure = node.deploy()
    assert failure is not None
    assert (failure.cause, failure.is_destroyed) == (Cause.FOREIGN_UUID, False)
    assert (node.disk.sha256(), node.spare.sha256()) == before


def test_no_other_disk_is_written_to(node: Node) -> None:
    node.others = (node.spare.name,)
    before = node.spare.sha256()
    assert node.deploy() is None
    assert node.spare.sha256() == before


def test_a_disk_in_use_is_refused_unchanged(node: Node, tmp_path: Path) -> None:
    before = node.disk.sha256()
    holder = os.open(node.disk.device, os.O_RDONLY | os.O_EXCL)
    try:
        failure = node.deploy()
    finally:
        os.close(holder)
    assert failure is not None
    assert (failure.stage, failure.cause, failure.is_destroyed) == (Stage.GUARD, Cause.DEVICE_BUSY, False)
    assert node.disk.sha256() == before


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
