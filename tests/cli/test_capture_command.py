"""Capturing over the API: published whole, sent once, and a dry run leaves the server as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clibench.desk import Desk
from cloner_cli.capture import InexactError, conclude
from cloner_cli.invocation import Invocation
from cloner_core.errors import ExitStatus
from cloner_core.image.version import VersionRecord
from serverbench.scene import LAYOUT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "golden"
    for folder in ("etc/ssh", "usr/bin", "boot/efi/EFI"):
        (root / folder).mkdir(parents=True)
    (root / "etc/hostname").write_text("golden\n")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "etc/ssh/ssh_host_ed25519_key").write_text("secret of the golden machine")
    (root / "usr/bin/big").write_bytes(os.urandom(3 << 20))
    return root


def capture(desk: Desk, tree: Path, *more: str) -> Any:
    return desk.json("new-image", "--root", str(tree), "--image", "debian", "--disklayout", "simple", *more)


def test_a_captured_tree_is_the_next_version(desk: Desk, tree: Path) -> None:
    first = capture(desk, tree, "--message", "the first")
    assert (first["number"], first["inexact"]) == (1, [])
    (tree / "etc/motd").write_text("news\n")
    second = capture(desk, tree)
    assert (second["number"], second["digest"] != first["digest"]) == (2, True)
    details = desk.json("image-details", "--image", "debian:1")
    assert (details["digest"], details["detail"]["message"]) == (first["digest"], "the first")
    assert "debian:2" in desk.run("image-list").stdout


def test_what_the_server_has_is_not_sent_again(desk: Desk, tree: Path) -> None:
    assert capture(desk, tree)["new_stored_bytes"] > 3 << 20
    again = capture(desk, tree)
    assert again["new_packs"] == 0


def test_the_same_tree_is_the_same_version_whatever_is_said_of_it(desk: Desk, tree: Path) -> None:
    assert capture(desk, tree, "-m", "one")["digest"] == capture(desk, tree, "-m", "two")["digest"]


def test_a_dry_run_reads_all_and_leaves_the_server_as_it_was(desk: Desk, tree: Path) -> None:
    before, stored = desk.scene.state_dump(), desk.stored()
    told = capture(desk, tree, "--dry-run")
    assert (told["dry_run"], told["number"]) == (True, None)
    assert (desk.scene.state_dump(), desk.stored()) == (before, stored)
    assert told["digest"] == capture(desk, tree)["digest"]


def test_an_index_that_cannot_be_used_is_told_unless_everything_is_read_anyway(desk: Desk, tree: Path) -> None:
    words = ("new-image", "--root", str(tree), "--image", "debian", "--disklayout", "simple")
    for more, is_told in (((), False), ((), True), (("--rehash",), False)):
        told = desk.run(*words, *more)
        assert told.exit_code == 0
        assert ("every file is read" in told.stderr) == is_told
        (desk.indexes / "debian.index").write_bytes(b"garbage")


def test_a_dry_run_with_a_new_layout_keeps_no_layout(desk: Desk, tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_text(LAYOUT.replace('"simple"', '"new"'))
    words = ["new-image", "--root", str(tree), "--image", "debian", "-l", "new", "--disklayout-file", str(path)]
    assert desk.json(*words, "--dry-run")["number"] is None
    assert [view["name"] for view in desk.json("disklayout-list")] == ["simple"]
    assert desk.json(*words)["number"] == 1
    assert [view["name"] for view in desk.json("disklayout-list")] == ["new", "simple"]


def test_the_identity_of_the_golden_machine_is_left_out_and_said(desk: Desk, tree: Path) -> None:
    result = desk.run("new-image", "--root", str(tree), "--image", "debian", "--disklayout", "simple")
    assert "ssh_host_ed25519_key" in result.stderr
    assert "debian:1" in result.stdout


def test_an_exclude_that_names_nothing_is_reported(desk: Desk, tree: Path) -> None:
    words = ["new-image", "--root", str(tree), "--image", "debian", "-l", "simple", "--exclude-paths"]
    assert "/etc/motd names nothing" in desk.run(*words, "/etc/motd").stderr
    assert "names nothing" not in desk.run(*words, "/usr/bin/*").stderr


def test_files_that_kept_changing_end_with_their_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    record = VersionRecord(
        image="debian",
        number=7,
        version="ab" * 32,
        signature="0" * 128,
        public_key="0" * 64,
        inodes=1,
        data_bytes=1,
        published_at="",
        inexact=("var/log/\x1bsyslog",),
    )
    nothing: list[bytes] = []
    notes = SimpleNamespace(
        vanished=nothing, sockets=nothing, snapshots=[], mount_points=nothing, dropped_evm=0, index=(), recalled=0
    )
    captured = SimpleNamespace(
        record=record, inodes=1, data_bytes=1, new_packs=0, new_stored_bytes=0, notes=notes, unmatched_excludes=()
    )
    with pytest.raises(InexactError, match=r"var/log/\\x1bsyslog") as caught:
        conclude(Invocation(), cast(Any, captured), None, None, is_dry=False)
    assert caught.value.exit_status == ExitStatus.INEXACT
    assert "debian:7" in capsys.readouterr().out


def test_what_a_tree_lacks_to_boot_is_said_in_one_sentence(desk: Desk, tree: Path) -> None:
    words = ["new-image", "--root", str(tree), "--image", "x", "--disklayout", "simple", "--dry-run"]
    assert "would not boot: it lacks a kernel (/boot/vmlinuz-VERSION) and a signed GRUB (" in desk.run(*words).stderr


def test_what_the_lint_found_is_told_and_kept_with_the_version(desk: Desk, tree: Path) -> None:
    setting = tree / "etc/initramfs-tools/conf.d/driver-policy"
    setting.parent.mkdir(parents=True)
    setting.write_text("MODULES=dep\n")
    words = ["new-image", "--root", str(tree), "--image", "debian", "--disklayout", "simple"]
    said = desk.run(*words).stderr
    assert "note: hostonly-initramfs: /etc/initramfs-tools/conf.d/driver-policy: each clone on other hardware" in said
    assert "note: 2 files left out or emptied, as identity of this machine: /etc/machine-id, /etc/ssh/ssh_host" in said
    detail = desk.json("image-details", "--image", "debian")["detail"]
    kinds = {finding["kind"]: finding["grade"] for finding in detail["findings"]}
    assert kinds == {"machine-id": "identity", "ssh-host-key": "identity", "hostonly-initramfs": "advice"}
    assert "  /etc/initramfs-tools/conf.d/driver-policy" in desk.run("image-details", "--image", "debian").stdout
    assert capture(desk, tree)["findings"] == detail["findings"]


def test_what_clones_resume_from_is_held_against_the_layout(desk: Desk, tree: Path, tmp_path: Path) -> None:
    (tree / "etc/fstab").write_text("UUID=1111-aa none swap sw 0 0\n")
    (tree / "etc/default").mkdir()
    (tree / "etc/default/grub").write_text('GRUB_CMDLINE_LINUX="resume=UUID=1111-aa"\n')
    path = tmp_path / "bare.json"
    path.write_text("\n".join(line for line in LAYOUT.splitlines() if "swap" not in line).replace("simple", "bare"))
    words = ["new-image", "--root", str(tree), "--image", "debian"]

    def kinds(*more: str) -> set[str]:
        told = desk.json(*words, *more, "--update-conflict", "commandline")
        return {finding["kind"] for finding in told["findings"]}

    assert "stale-resume" not in kinds("-l", "simple")
    assert "stale-resume" in kinds("-l", "bare", "--disklayout-file", str(path), "--dry-run")
    assert "stale-resume" in kinds("-l", "bare", "--disklayout-file", str(path))
    assert "stale-resume" in kinds("-l", "bare")


def test_secrets_are_refused_with_every_path_until_they_are_allowed_or_left_out(desk: Desk, tree: Path) -> None:
    for name, text in {
        "root/.ssh/id_ed25519": "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n",
        "etc/munge/munge.key": "hunter2",
    }.items():
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text(text)
    words = ["new-image", "--root", str(tree), "--image", "debian", "--disklayout", "simple"]
    before = desk.scene.state_dump()
    for more in ((), ("--dry-run",)):
        refused = desk.run(*words, *more, "--json")
        told = json.loads(refused.stderr.splitlines()[-1])
        assert (refused.exit_code, told["status"]) == (4, 4)
        assert [fault.partition(":")[0] for fault in told["faults"]] == [
            "/root/.ssh/id_ed25519",
            "/etc/munge/munge.key",
        ]
        assert "--allow-secrets" in told["hint"]
        assert "hunter2" not in refused.stderr
    assert desk.scene.state_dump() == before
    taken = desk.run(*words, "--allow-secrets")
    assert taken.exit_code == 0
    assert "note: cluster-key: a secret, and in the image because --allow-secrets was said: /etc/munge" in taken.stderr
    given = ["--exclude-paths", "/root/.ssh/id_*,/etc/munge/munge.key", "--update-conflict", "commandline"]
    left = desk.run(*words, *given)
    assert left.exit_code == 0
