"""The real server on a machine that is not well: its disk full, or all of it gone and made anew from an export."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

import torture
from cloner_core.errors import UnreachableError
from cloner_core.image.digest import digest
from cloner_core.messages import Beat, Progress, Stage
from netns.netboot_lab import inside
from netns.talking_node import TalkingNode, Where
from serverbench.scene import facts
from serverbench.served import MAC, START, Served, node_of
from vmlab.lab import SERVER_ADDRESS, Lab

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
PASS = "correct horse battery staple\n"
BEAT = Beat(progress=Progress(stage=Stage.RESTORE, done=1, total=2, unit="bytes"))


def cloner(*words: str, stdin: str = "") -> str:
    """Run one command line to its good end."""
    done = subprocess.run(
        [sys.executable, "-c", START, *words], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def put_pack(served: Served, content: bytes) -> httpx2.Response:
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(served.socket)), base_url="http://c/v1") as client:
        return client.put(f"/packs/{digest(content).hex()}", content=content)


def test_a_full_disk_ends_what_needs_room_and_the_deploy_goes_on_when_there_is_some(tmp_path: Path) -> None:
    served = Served(tmp_path)
    with torture.small_disk(tmp_path / "state", "24m"):
        served.start()
        try:
            served.fill()
            served.admin("POST", "/nodes", json={"name": "n02", "macs": ["52:54:00:00:00:02"]})
            task = served.admin("POST", "/deploy", json={"nodes": ["n01"]})[0]["task_id"]
            node = node_of(served)
            steps = node.steps()
            assert [next(steps), next(steps)] == ["hello", "verified"]
            _fill_and_hold(served, node)
            assert served.admin("GET", f"/tasks/{task}")["state"] in ("running", "lost")
            assert list(steps)[-1] == "receipt"
            assert node.confirm() == 200
            assert served.admin("GET", f"/tasks/{task}")["state"] == "done"
            assert served.admin("POST", "/store/check", params={"read_data": True})["faults"] == []
            assert put_pack(served, os.urandom(1 << 20)).status_code == 200
            assert served.process is not None
            assert served.process.poll() is None, "it never went away"
            assert "Traceback" not in served.log.read_text()
        finally:
            served.kill()


def test_a_server_starts_on_a_full_disk_and_its_gc_makes_the_room(tmp_path: Path) -> None:
    served = Served(tmp_path)
    with torture.small_disk(tmp_path / "state", "24m"):
        served.start()
        try:
            served.fill()
            served.admin("POST", "/nodes", json={"name": "n02", "macs": ["52:54:00:00:00:02"]})
            assert {put_pack(served, os.urandom(1 << 20)).status_code for _ in range(30)} == {200, 507}
            _fill_to_the_brim(tmp_path / "state")
            answers = [_patch(served, number) for number in range(20)]
            assert answers[-1].status_code == 507
            served.kill()
            served.start()
            assert "disk of the server's database is full" in served.log.read_text()
            assert served.admin("GET", "/nodes/n01")["netboot"] == "local"
            assert _patch(served, 20).status_code == 507
            assert served.admin("POST", "/store/gc", params={"grace_s": 0})["files"] > 0
            assert _patch(served, 21).status_code == 200
        finally:
            served.kill()


def _fill_to_the_brim(state: Path) -> None:
    with (state / "ballast").open("wb", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12):
            while os.statvfs(state).f_bavail * os.statvfs(state).f_frsize >= size:
                ballast.write(bytes(size))


def _fill_and_hold(served: Served, node: TalkingNode) -> None:
    """Fill the server's disk, see that what needs none goes on, and make room again."""
    state = served.base / "state"
    statuses = [put_pack(served, os.urandom(1 << 20)).status_code for _ in range(30)]
    assert set(statuses) == {200, 507}
    refused = put_pack(served, os.urandom(1 << 20))
    assert (refused.status_code, refused.headers["retry-after"]) == (507, "2")
    assert "reserved for deploys" in refused.json()["error"]
    assert "cloner store gc" in refused.json()["hint"]
    node.server.beat(BEAT)  # which is what the reserve is for
    answers = [_patch(served, 0)]
    _fill_to_the_brim(state)
    answers += [_patch(served, number) for number in range(1, 20)]  # the write-ahead log has a little room of its own
    assert answers[-1].status_code == 507, answers[-1].text
    assert "database is full" in answers[-1].json()["error"]
    with pytest.raises(UnreachableError):
        node.server.beat(BEAT)
    assert list((state / "store" / "tmp").iterdir()) == []
    assert served.admin("GET", "/nodes/n01")["netboot"] == "cloner"
    assert len(node.server.root(node.reply.task.version.digest)) > 0
    assert served.where.boot_script("52:54:00:00:00:02").endswith("exit 1\n"), "a node in local finds its disk"
    assert served.admin("POST", "/store/check")["faults"] == []
    (state / "ballast").unlink()
    node.server.beat(BEAT)
    word = [answer.json()["kernel_arguments"] for answer in answers if answer.status_code == 200][-1]
    assert served.admin("GET", "/nodes/n02")["kernel_arguments"] == word, "what was answered is kept, what not is not"
    assert served.admin("POST", "/store/gc", params={"grace_s": 0})["files"] > 0


def _patch(served: Served, number: int) -> httpx2.Response:
    body = {"kernel_arguments": [f"word{number}=" + "x" * 20_000]}
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(served.socket)), base_url="http://c/v1") as client:
        return client.patch("/nodes/n02", json=body)


@dataclass
class OnMachine(Served):
    """A server in a network namespace, which stands for a machine of its own."""

    lab: Lab = field(kw_only=True)

    @property
    def where(self) -> Where:
        return Where(SERVER_ADDRESS, self.tls, self.http)

    def arguments(self) -> list[str]:
        words = [SERVER_ADDRESS if word == "127.0.0.1" else word for word in super().arguments()]
        return self.lab.inside(words)


def test_a_lost_server_comes_back_on_a_blank_machine_and_the_deploy_ends_there(tmp_path: Path) -> None:
    export = str(tmp_path / "cloner.state")
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with Lab(title="lost-old") as lab, inside(lab.name):
        old = OnMachine(tmp_path / "old", lab=lab)
        old.start()
        try:
            old.fill()
            task = old.admin("POST", "/deploy", json={"nodes": ["n01"]})[0]["task_id"]
            ca = (old.base / "state/site/ca.pem").read_text()
            node = TalkingNode(old.where, ca, facts(MAC))
            steps = node.steps()
            while next(steps) != "identity":
                pass
            keys = [key.public for key in node.server.vaulted().host_keys]
            known_hosts = old.admin("GET", "/known-hosts")
            place = ["--state", str(old.base / "state"), "--config", str(old.base / "server.toml")]
            cloner("state", "export", export, "--images", *place, "--passphrase-file", "-", stdin=PASS)
        finally:
            old.kill()
    shutil.rmtree(tmp_path / "old")
    with Lab(title="lost-new") as lab, inside(lab.name):
        new = OnMachine(tmp_path / "new", lab=lab, tls=old.tls, http=old.http)
        place = ["--state", str(new.base / "state"), "--config", str(new.base / "server.toml")]
        told = cloner("state", "import", export, "--resume", *place, "--passphrase-file", "-", stdin=PASS)
        assert "store       whole" in told
        new.start()
        try:
            assert (new.base / "state/site/ca.pem").read_text() == ca
            assert list(steps) == ["commit", "receipt"], "the agent found the new server by the old CA"
            assert node.confirm() == 200
            assert new.admin("GET", f"/tasks/{task}")["state"] == "done"
            assert new.admin("POST", "/store/check", params={"read_data": True})["faults"] == []
            assert new.admin("GET", "/known-hosts") == known_hosts
            new.admin("POST", "/deploy", json={"nodes": ["n01"]})
            again = TalkingNode(new.where, ca, facts(MAC))
            steps = again.steps()
            while next(steps) != "identity":
                pass
            assert [key.public for key in again.server.vaulted().host_keys] == keys
            assert again.server.vaulted().machine_id == node.body.machine_id
        finally:
            new.kill()
