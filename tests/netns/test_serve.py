"""The real server as a process of its own on loopback: killed, started again, listened to, locked out."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from agentbench.runner import FakeRunner
from cloner_agent.bundle import Gatherer, LogTail
from cloner_agent.client import Endpoint
from cloner_agent.efivars import EfiVars
from cloner_agent.protocol import ServerFault
from cloner_agent.session import HttpsServer
from cloner_core.errors import UnreachableError
from cloner_core.messages import Cause, Failure, Stage
from serverbench.served import Served, node_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="cloner serve needs root")]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def test_a_deploy_survives_a_kill_after_every_request(served: Served) -> None:
    served.start()
    served.fill()
    task = served.admin("POST", "/deploy", json={"nodes": ["n01"]})[0]["task_id"]
    node = node_of(served)
    for _ in node.steps():
        served.kill()
        served.start()
    served.kill()
    served.start()
    assert served.admin("GET", f"/tasks/{task}")["state"] == "unconfirmed"
    assert "exit 1" in served.boot_script()
    assert node.confirm() == 200
    served.kill()
    served.start()
    assert served.admin("GET", f"/tasks/{task}")["state"] == "done"
    assert served.admin("GET", "/receipts/n01")["receipt"]["confirmed_s"]
    assert served.admin("GET", "/nodes/n01")["netboot"] == "local"
    assert served.stop() == 0


def test_a_deploy_survives_kills_at_any_moment(served: Served) -> None:
    served.start()
    served.fill()
    task = served.admin("POST", "/deploy", json={"nodes": ["n01"]})[0]["task_id"]
    node, source = node_of(served), random.Random(7)

    def kill_now_and_then() -> None:
        for _ in range(5):
            time.sleep(source.uniform(0.02, 0.4))
            served.kill()
            served.start()

    steps = node.steps()
    next(steps)  # iPXE asks again by itself, this script does not
    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        for _ in steps:
            time.sleep(0.1)
    finally:
        killer.join()
    assert served.admin("GET", f"/tasks/{task}")["state"] == "unconfirmed"
    assert node.confirm() == 200
    assert served.admin("GET", f"/tasks/{task}")["state"] == "done"


def test_a_clone_that_never_calls_is_looked_for_and_its_late_call_counts(served: Served) -> None:
    served.settings = {"confirm_s": 1.0}
    served.start()
    served.fill()
    task = served.admin("POST", "/deploy", json={"nodes": ["n01"]})[0]["task_id"]
    node = node_of(served)
    for _ in node.steps():
        pass
    end = time.monotonic() + 60
    while (told := served.admin("GET", f"/tasks/{task}"))["state"] == "unconfirmed":
        assert time.monotonic() < end
        time.sleep(0.2)
    assert (told["state"], told["failure"]["cause"]) == ("failed", "unconfirmed")
    assert "nothing was seen" in told["failure"]["message"]
    assert node.confirm() == 200
    assert served.admin("GET", f"/tasks/{task}")["confirmed_by"] == "phone-home"
    assert served.stop() == 0
    assert "could not be looked after" not in served.log.read_text()


def test_no_secret_is_in_a_log_or_readable_in_the_state(served: Served) -> None:
    served.start()
    served.fill()
    served.admin("POST", "/deploy", json={"nodes": ["n01"]})
    node = node_of(served)
    for _ in node.steps():
        pass
    node.confirm()
    httpx2.get(f"http://127.0.0.1:{served.http}/boot/ipxe?mac=00-00-00-00-00-01&canary=leaf")
    with contextlib.suppress(ServerFault):
        node.server.vaulted()
    served.stop()
    kept = {path: path.read_bytes() for path in served.base.rglob("*") if path.is_file()}
    assert len(node.secrets) > 20
    for secret in [*node.secrets, "canary"]:
        holders = [str(path) for path, content in kept.items() if secret.encode() in content]
        assert holders == [], secret[:8]


def test_the_bundle_of_a_failure_arrives_without_a_secret(served: Served, tmp_path: Path) -> None:
    served.start()
    served.fill()
    task = served.admin("POST", "/deploy", json={"nodes": ["n01"]})[0]["task_id"]
    node, tail = node_of(served), LogTail()
    node.hello()
    gatherer = Gatherer(FakeRunner(), EfiVars(tmp_path / "none"), tail, kernel_log=lambda: " ".join(node.secrets))
    gatherer.hide(*node.secrets)
    for secret in node.secrets:
        tail.emit(logging.LogRecord("x", logging.INFO, "", 0, f"careless: {secret}", None, None))
    failure = Failure(Stage.MKFS, Cause.TOOL, f"said {node.secrets[0]}", "look", True)
    node.server.fail(msgspec.structs.replace(failure, message="said nothing"))
    node.server.bundle(gatherer.bundle(failure, agent_version="test"))
    kept = json.dumps(served.admin("GET", f"/tasks/{task}/bundle"))
    assert kept.count("careless: ***") == len(node.secrets) > 3
    assert [secret[:8] for secret in node.secrets if secret in kept] == []


def test_kernel_and_initramfs_come_as_the_script_names_them(served: Served) -> None:
    served.start()
    served.fill()
    served.admin("POST", "/deploy", json={"nodes": ["n01"]})
    script = served.boot_script()
    kernel, initramfs = (re.search(rf"{word} \S+ \S+ (http://\S+)", script) for word in ("kernel", "initrd"))
    assert kernel is not None
    assert initramfs is not None
    assert httpx2.get(kernel.group(1)).content == b"kernel" * 1000
    answer = httpx2.get(initramfs.group(1))
    assert int(answer.headers["content-length"]) == len(answer.content)
    base = (served.base / "installer/base.cpio.zst").read_bytes()
    assert answer.content.startswith(base)


def test_a_second_server_on_the_same_state_is_refused(served: Served) -> None:
    served.start()
    second = subprocess.run(served.arguments(), capture_output=True, text=True, timeout=60, check=False)
    assert (second.returncode, second.stdout) == (4, "")
    assert "another server runs" in second.stderr
    assert "Traceback" not in second.stderr
    assert served.admin("GET", "/status")["nodes"] == 0


def test_a_port_that_is_taken_is_named(served: Served) -> None:
    with socket.create_server(("127.0.0.1", served.tls)):
        done = subprocess.run(served.arguments(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert f"127.0.0.1:{served.tls}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_lines_socket_is_for_root_alone(served: Served) -> None:
    served.start()
    assert served.socket.stat().st_mode & 0o777 == 0o600
    secret = [path for path in (served.base / "state/site").iterdir() if path.suffix == ".key"]
    assert len(secret) == 4
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}


def test_a_server_without_our_ca_gets_nothing(served: Served, tmp_path: Path) -> None:
    served.start()
    other = Served(tmp_path / "other")
    other.base.mkdir()
    other.start()
    try:
        node = node_of(served)
        ca = (other.base / "state/site/ca.pem").read_text()
        stray = HttpsServer(Endpoint("127.0.0.1", served.tls, ca), node.key, patience_s=1)
        with pytest.raises(UnreachableError, match="certificate"):
            stray.segment("0" * 64, 10)
    finally:
        other.kill()
