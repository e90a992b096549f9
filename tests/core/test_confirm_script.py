"""The one-shot in the clone, run for real by bash against a server on loopback and a made-up system tree."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import threading
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from cloner_core.confirmation import (
    SCRIPT,
    SCRIPT_CONTENT,
    SETTINGS,
    UNIT,
    UNIT_CONTENT,
    WANTS,
    ConsoleLine,
    console_lines,
    console_proof,
    settings_content,
)
from cloner_core.messages import Confirm, ConfirmTo, Secret

pytestmark = pytest.mark.root  # starts a process and opens a socket on loopback

PART = "6a7eeea2-4e2a-4fd4-9723-030c3f336df6"


def tree(base: Path, port: int, way: Literal["phone-home", "console"] = "phone-home") -> None:
    """Lay out what the script reads and removes: / is on 254:3, which is vda3."""
    texts = {
        "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        "proc/sys/kernel/random/boot_id": "11111111-2222-4333-8444-555555555555\n",
        "proc/self/mountinfo": "20 1 0:5 / /proc rw - proc proc rw\n21 1 254:3 / / rw,relatime - ext4 /dev/vda3 rw\n",
        "sys/class/block/vda1/dev": "254:1\n",
        "sys/class/block/vda1/partition": "1\n",
        "sys/class/block/vda3/dev": "254:3\n",
        "sys/class/block/vda3/partition": "3\n",
    }
    for path, text in texts.items():
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_text(text)
    links = base / "dev/disk/by-partuuid"
    links.mkdir(parents=True)
    (links / "ffffffff-0000-4000-8000-000000000000").symlink_to("../../vda1")
    (links / PART).symlink_to("../../vda3")
    settings = settings_content(ConfirmTo("127.0.0.1", port, Secret("one-use-secret"), way, "7-1-abcd"))
    for path, content in ((SETTINGS, settings), (SCRIPT, SCRIPT_CONTENT), (UNIT, UNIT_CONTENT)):
        (base / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (base / path.lstrip("/")).write_bytes(content)
    (base / WANTS.lstrip("/")).parent.mkdir(parents=True)
    (base / WANTS.lstrip("/")).symlink_to("../cloner-confirm.service")


class Server:
    """Answers one connection after the other with the given status lines and keeps what it was sent."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.requests: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        for answer in self.answers:
            connection, _ = self.socket.accept()
            with connection:
                connection.settimeout(10)
                received = b""
                while b"\r\n\r\n" not in received or not received.endswith(b"}"):
                    received += connection.recv(4096)
                self.requests.append(received)
                connection.sendall(answer)

    def close(self) -> None:
        self.thread.join(timeout=30)
        self.socket.close()


def test_a_clone_reports_until_it_is_acknowledged_and_then_leaves_nothing_behind(tmp_path: Path) -> None:
    server = Server([b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"])
    tree(tmp_path, server.port)
    script = tmp_path / SCRIPT.lstrip("/")
    done = subprocess.run(
        ["bash", str(script), str(tmp_path)], capture_output=True, text=True, timeout=60, check=False, env={}
    )
    server.close()
    assert done.returncode == 0, done.stderr
    assert len(server.requests) == 2
    head, _, body = server.requests[1].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /confirm HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert msgspec.json.decode(body, type=Confirm) == Confirm(
        secret="one-use-secret",
        machine_id="0123456789abcdef0123456789abcdef",
        boot_id="11111111-2222-4333-8444-555555555555",
        root_part_uuid=PART,
    )
    for path in (SETTINGS, SCRIPT, UNIT, WANTS):
        assert not (tmp_path / path.lstrip("/")).is_symlink()
        assert not (tmp_path / path.lstrip("/")).exists()
    assert not (tmp_path / "usr/lib/cloner").exists()
    assert "one-use-secret" not in done.stdout + done.stderr


ROOT_UUID = "0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e"


@pytest.mark.parametrize(
    ("mounted", "device", "told"),
    [
        pytest.param("254:3 / / rw - ext4 /dev/vda3 rw", "", PART, id="partition"),
        pytest.param("0:23 /@ / rw shared:1 - btrfs /dev/vda3 rw,subvol=/@", "", PART, id="subvolume of a partition"),
        pytest.param("253:0 / / rw - xfs /dev/mapper/vg0-root rw", "dm-0", ROOT_UUID, id="logical volume"),
        pytest.param("9:127 / / rw - ext4 /dev/md127 rw", "md127", ROOT_UUID, id="array"),
        pytest.param("0:23 /@ / rw - btrfs /dev/mapper/root rw", "dm-0", ROOT_UUID, id="subvolume behind LUKS"),
    ],
)
def test_a_clone_says_what_its_root_lies_on(tmp_path: Path, mounted: str, device: str, told: str) -> None:
    server = Server([b"HTTP/1.1 204 No Content\r\n\r\n"])
    tree(tmp_path, server.port)
    (tmp_path / "proc/self/mountinfo").write_text(f"21 1 {mounted}\n")
    by_uuid = tmp_path / "dev/disk/by-uuid"
    by_uuid.mkdir()
    (by_uuid / "ffffffff-1111-4000-8000-000000000000").symlink_to("../../vda3")
    if device:
        number = mounted.split(maxsplit=1)[0] if not mounted.startswith("0:") else "253:0"
        (tmp_path / f"sys/class/block/{device}").mkdir()
        (tmp_path / f"sys/class/block/{device}/dev").write_text(f"{number}\n")
        (tmp_path / "dev" / device).touch()
        (by_uuid / ROOT_UUID).symlink_to(f"../../{device}")
        (tmp_path / "dev/mapper").mkdir()
        for name in ("root", "vg0-root"):
            (tmp_path / "dev/mapper" / name).symlink_to(f"../{device}")
    argv = ["bash", str(tmp_path / SCRIPT.lstrip("/")), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env={})
    server.close()
    assert done.returncode == 0, done.stderr
    body = server.requests[0].partition(b"\r\n\r\n")[2]
    assert msgspec.json.decode(body, type=Confirm).root_part_uuid == told


def test_where_it_must_not_call_it_says_on_every_console_what_only_it_can_prove(tmp_path: Path) -> None:
    tree(tmp_path, 1, "console")
    active = tmp_path / "sys/class/tty/console/active"
    active.parent.mkdir(parents=True)
    active.write_text("tty0 ttyS0\n")
    for name in ("tty0", "ttyS0"):
        (tmp_path / "dev" / name).touch()
    done = subprocess.run(
        ["bash", str(tmp_path / SCRIPT.lstrip("/")), str(tmp_path), "0"],
        capture_output=True,
        timeout=60,
        check=False,
        env={},
    )
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "dev/ttyS0").read_bytes()
    assert said == (tmp_path / "dev/tty0").read_bytes()
    machine, boot = "0123456789abcdef0123456789abcdef", "11111111-2222-4333-8444-555555555555"
    proof = console_proof(hashlib.sha256(b"one-use-secret").hexdigest(), machine, boot, PART)
    assert console_lines(said) == (ConsoleLine("7-1-abcd", machine, boot, PART, proof),)
    assert b"one-use-secret" not in said + done.stdout + done.stderr
    assert not (tmp_path / SETTINGS.lstrip("/")).exists()


def test_without_its_settings_the_one_shot_does_nothing(tmp_path: Path) -> None:
    script = tmp_path / "confirm"
    script.write_bytes(SCRIPT_CONTENT)
    done = subprocess.run(["bash", str(script), str(tmp_path)], capture_output=True, timeout=10, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert script.exists()
