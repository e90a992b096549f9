"""Installers made from nodes: what is taken, who is offered which, and what becomes of the one that was replaced."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.testclient import TestClient

from cloner_core import newc
from cloner_core.admin.installers import InstallerView
from cloner_core.facts import PciDevice
from cloner_pxe.decision import BootPolicy
from cloner_server.api.boot import boot_app
from cloner_server.boot import BootDesk
from cloner_server.serve import ready_shelf
from cloner_server.state import events, nodes
from initramfsbench.node_parts import BASE, BUILT_DRIVERS, RELEASE, digest, drivers_part, kernel_part
from serverbench.installers import put_installer, with_shelf
from serverbench.scene import Scene, facts

MAC = "52:54:00:00:00:01"


@dataclasses.dataclass
class Stand:
    """A server with an installer of its own, and its boot port."""

    scene: Scene
    desk: BootDesk
    http: TestClient

    def put(self, name: str = "site", *, status: int = 200, **more: Any) -> Any:
        """Put an installer as a node does, and return the answer."""
        answer = put_installer(self.scene, name, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    def patched(self, path: str, body: dict[str, Any], *, status: int = 200) -> Any:
        answer: httpx.Response = self.scene.admin("PATCH", path, body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def script(self) -> str:
        answer = self.http.get("/boot/ipxe", params={"mac": MAC.replace(":", "-"), "platform": "efi"})
        assert answer.status_code == 200
        return str(answer.text)

    def booted(self) -> tuple[bytes, bytes]:
        """Return the kernel and the initramfs that the node is offered now."""
        urls = re.findall(r"/boot/(?:kernel|initramfs)/\w+", self.script())
        answers = [self.http.get(url) for url in dict.fromkeys(urls)]
        assert [answer.status_code for answer in answers] == [200, 200]
        return answers[0].content, answers[1].content


@pytest.fixture
def stand(scene: Scene, tmp_path: Path) -> Stand:
    built = with_shelf(scene, tmp_path / "installer")
    policy = BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080")
    desk = BootDesk(scene.core, policy, built, "https://10.77.0.1:8443")
    return Stand(scene, desk, TestClient(boot_app(scene.core, desk, {})))


def armed(stand: Stand) -> None:
    stand.scene.add_node()
    stand.scene.arm()


def test_a_node_boots_its_own_installer_before_its_images_before_the_sites(stand: Stand) -> None:
    armed(stand)
    assert stand.booted()[0] == b"built kernel"
    for name in ("site", "el9", "rescue"):
        stand.put(name, kernel=kernel_part(name.encode()))
    assert stand.booted()[0] == kernel_part(b"site")
    stand.patched("/images/golden/installer", {"installer": "el9"})
    assert stand.booted()[0] == kernel_part(b"el9")
    stand.patched("/nodes/n01", {"installer": "rescue"})
    assert stand.booted()[0] == kernel_part(b"rescue")
    stand.patched("/nodes/n01", {"installer": ""})
    stand.patched("/images/golden/installer", {"installer": ""})
    assert stand.booted()[0] == kernel_part(b"site")


def test_the_userland_is_the_servers_and_the_drivers_are_the_nodes(stand: Stand) -> None:
    armed(stand)
    before = stand.booted()[1]
    stand.put()
    _, initramfs = stand.booted()
    assert initramfs.startswith(BASE + drivers_part())
    assert initramfs[len(BASE + drivers_part()) :] == before[len(BASE + BUILT_DRIVERS) :], "the same site layer"


def test_what_is_replaced_stays_as_the_previous_and_is_put_back(stand: Stand) -> None:
    armed(stand)
    stand.put(kernel=kernel_part(b"one"))
    old = re.findall(r"/boot/kernel/\w+", stand.script())[0]
    refused = stand.put(kernel=kernel_part(b"two"), status=409)
    assert "--overwrite" in refused["hint"]
    view = stand.put(kernel=kernel_part(b"two"), overwrite=True)
    assert (view["revision"], view["previous"]["kernel"]) == (2, digest(kernel_part(b"one")))
    assert stand.booted()[0] == kernel_part(b"two")
    assert stand.http.get(old).content == kernel_part(b"one"), "a machine that has the former script still boots"
    assert stand.patched("/installers/site", {})["revision"] == 3
    assert stand.booted()[0] == kernel_part(b"one")
    assert stand.patched("/installers/site", {})["present"]["kernel"] == digest(kernel_part(b"two"))
    with stand.scene.core.database.read() as connection:
        told = events.list_events(connection, obj="installer/site")
    assert [(event.what, event.revision, event.author) for event in told] == [
        ("put", 1, "root"),
        ("put", 2, "root"),
        ("put back", 3, "root"),
        ("put back", 4, "root"),
    ]


def test_the_same_parts_again_change_nothing(stand: Stand) -> None:
    first = stand.put()
    before = stand.scene.state_dump()
    assert stand.put() == first
    assert stand.scene.state_dump() == before


def test_changes_are_compare_and_swap(stand: Stand) -> None:
    stand.put(revision=0)
    assert "revision 1, wanted revision 0" in stand.put(kernel=kernel_part(b"2"), revision=0, status=409)["error"]
    stand.put(kernel=kernel_part(b"2"), revision=1, overwrite=True)
    stand.patched("/installers/site", {"revision": 1}, status=409)
    stand.patched("/images/golden/installer", {"installer": "site", "revision": 0})
    stand.patched("/images/golden/installer", {"installer": "", "revision": 0}, status=409)
    assert stand.scene.admin("DELETE", "/installers/site", revision=1).status_code == 409


def test_of_writers_at_once_each_is_kept_or_told(stand: Stand) -> None:
    stand.put(kernel=kernel_part(b"0"))
    for part in (drivers_part(), *(kernel_part(b"%d" % one) for one in range(1, 9))):
        stand.scene.admins.put(f"/v1/installer-parts/{digest(part)}", content=part)

    def one(number: int) -> int:
        spec = {"release": RELEASE, "kernel": digest(kernel_part(b"%d" % number)), "drivers": digest(drivers_part())}
        answer = stand.scene.admin("POST", "/installers/site", spec | {"overwrite": True, "revision": 1})
        return answer.status_code

    with ThreadPoolExecutor(4) as pool:
        codes = sorted(pool.map(one, range(1, 9)))
    assert codes == [200] + [409] * 7
    assert stand.scene.admin("GET", "/installers/site").json()["revision"] == 2


def test_an_installer_in_use_is_not_removed_and_its_users_are_named(stand: Stand) -> None:
    stand.scene.add_node()
    stand.put("el9")
    stand.patched("/nodes/n01", {"installer": "el9"})
    stand.patched("/images/golden/installer", {"installer": "el9"})
    refused = stand.scene.admin("DELETE", "/installers/el9").json()
    assert "node n01, image golden" in refused["error"]
    stand.patched("/nodes/n01", {"installer": ""})
    stand.patched("/images/golden/installer", {"installer": ""})
    assert stand.scene.admin("DELETE", "/installers/el9").status_code == 200
    assert stand.scene.admin("GET", "/installers/el9").status_code == 404
    assert stand.put("el9")["revision"] == 3, "an old revision never matches again"


def test_what_is_unknown_cannot_be_chosen(stand: Stand) -> None:
    stand.scene.add_node()
    stand.patched("/nodes/n01", {"installer": "nosuch"}, status=404)
    stand.patched("/images/golden/installer", {"installer": "nosuch"}, status=404)
    stand.patched("/images/nosuch/installer", {"installer": ""}, status=404)
    stand.patched("/installers/nosuch", {}, status=404)
    stand.put("once")
    stand.patched("/installers/once", {}, status=409)


STRAY = newc.file("init", b"#!/bin/sh\n", 0o755)
FAULTS = {
    "no kernel": ({"kernel": b"#!/bin/sh\n"}, "no Linux kernel"),
    "another release": ({"drivers": drivers_part("6.1.0-other")}, "neither a module of"),
    "a userland of its own": ({"drivers": drivers_part(RELEASE, STRAY)}, "init is neither a module of"),
    "no archive": ({"drivers": b"\x28\xb5\x2f\xfd" + os.urandom(100)}, "drivers: "),
    "cut off": ({"drivers": drivers_part()[:-200]}, "drivers: "),
}


@pytest.mark.parametrize(("parts", "told"), FAULTS.values(), ids=list(FAULTS))
def test_what_cannot_boot_a_node_is_refused_and_nothing_is_offered(
    stand: Stand, parts: dict[str, Any], told: str
) -> None:
    before = stand.scene.state_dump()
    refused = stand.put(status=400, **parts)
    assert told in " ".join(refused["faults"])
    assert stand.scene.state_dump() == before


def test_a_part_is_what_its_name_says_or_it_is_not_kept(stand: Stand) -> None:
    answer = stand.scene.admins.put(f"/v1/installer-parts/{'0' * 64}", content=b"other")
    assert answer.status_code >= 400
    assert stand.scene.admins.put("/v1/installer-parts/..%2fcloner.db", content=b"x").status_code >= 400
    answer = stand.scene.admin(
        "POST", "/installers/site", {"release": RELEASE, "kernel": "0" * 64, "drivers": "1" * 64}
    )
    assert answer.json()["faults"] == ["0" * 64, "1" * 64]


def test_a_node_with_too_little_memory_for_its_installer_waits_and_says_why(stand: Stand) -> None:
    armed(stand)
    with stand.scene.core.database.write() as connection:
        small = msgspec.structs.replace(facts(), memory_bytes=256 << 20)
        nodes.remember_facts(connection, stand.scene.core.act("test"), "n01", small)
    assert "cloner.claim=" in stand.script()
    view = stand.put(drivers=drivers_part(size_bytes=100 << 20))
    assert view["needed_bytes"] > small.memory_bytes
    text = stand.script()
    assert "cloner.claim=" not in text
    assert f"needs {view['needed_bytes'] >> 20} MiB" in text
    told = stand.scene.admin("POST", "/fit", {"nodes": ["n01"], "image": "golden"}).json()[0]
    assert "memory" in [one["cause"] for one in told["refusals"]]


def test_the_devices_of_the_fleet_are_told_once_each(stand: Stand) -> None:
    nvme = PciDevice("0000:01:00.0", "010802", "pci:v0000144Dd0000A808sv0sd0bc01sc08i02", "nvme", ("nvme",))
    card = PciDevice("0000:02:00.0", "020000", "pci:v00008086d00001533sv0sd0bc02sc00i00", "igb", ("igb",))
    for number, devices in ((1, (nvme, card)), (2, (nvme, nvme))):
        stand.scene.add_node(f"n0{number}", f"52:54:00:00:00:0{number}")
        told = msgspec.structs.replace(facts(), pci=devices)
        with stand.scene.core.database.write() as connection:
            nodes.remember_facts(connection, stand.scene.core.act("test"), f"n0{number}", told)
    found = stand.scene.admin("GET", "/fleet-devices").json()
    assert [(one["id"], one["is_storage"], one["machines"]) for one in found] == [
        ("144d:a808", True, 2),
        ("8086:1533", False, 1),
    ]


def test_a_restart_offers_the_same_and_takes_away_what_nobody_needs(stand: Stand, tmp_path: Path) -> None:
    armed(stand)
    stand.put(kernel=kernel_part(b"kept"))
    stand.put("gone", kernel=kernel_part(b"gone"), drivers=drivers_part(size_bytes=7))
    stand.scene.admin("DELETE", "/installers/gone")
    shelf = stand.scene.core.shelf
    assert shelf is not None
    old = [shelf.parts / digest(kernel_part(b"gone")), shelf.parts / digest(kernel_part(b"kept"))]
    for path in (*old, *shelf.boot.glob("node-initramfs-*")):
        os.utime(path, (1, 1))
    again = ready_shelf(tmp_path / "installer", stand.scene.core)
    assert [path.is_file() for path in old] == [False, True]
    core = dataclasses.replace(stand.scene.core, shelf=again)
    app = boot_app(core, dataclasses.replace(stand.desk, core=core), {})
    assert Stand(stand.scene, stand.desk, TestClient(app)).booted()[0] == kernel_part(b"kept")
    assert len(list(shelf.boot.glob("node-initramfs-*"))) == 1


def age(stand: Stand) -> None:
    """Have every file of installers be older than a day."""
    shelf = stand.scene.core.shelf
    assert shelf is not None
    for path in (*shelf.parts.iterdir(), *shelf.boot.glob("node-initramfs-*")):
        os.utime(path, (1, 1))


def test_what_is_dropped_stays_for_a_day_however_old_it_is(stand: Stand) -> None:
    armed(stand)
    stand.put(kernel=kernel_part(b"one"), drivers=drivers_part(size_bytes=1))
    urls = re.findall(r"/boot/(?:kernel|initramfs)/\w+", stand.script())
    stand.put(kernel=kernel_part(b"two"), drivers=drivers_part(size_bytes=2), overwrite=True)
    stand.put("el9", kernel=kernel_part(b"el9"), drivers=drivers_part(size_bytes=3))
    own = digest(kernel_part(b"el9"))
    age(stand)
    stand.put(kernel=kernel_part(b"three"), overwrite=True)
    assert [stand.http.get(url).status_code for url in urls] == [200] * len(urls), "a machine has the script of one"
    age(stand)
    stand.scene.admin("DELETE", "/installers/el9")
    stand.put(kernel=kernel_part(b"four"), overwrite=True)
    shelf = stand.scene.core.shelf
    assert shelf is not None
    assert {stand.http.get(url).status_code for url in urls} == {404}
    assert (shelf.parts / own).is_file()
    age(stand)
    stand.put(kernel=kernel_part(b"five"), overwrite=True)
    assert not (shelf.parts / own).is_file()


def test_lost_parts_are_told_and_the_server_goes_on(stand: Stand, tmp_path: Path) -> None:
    armed(stand)
    stand.put()
    shelf = stand.scene.core.shelf
    assert shelf is not None
    (shelf.parts / digest(kernel_part())).unlink()
    for path in shelf.boot.glob("node-initramfs-*"):
        path.unlink()
    again = ready_shelf(tmp_path / "installer", stand.scene.core)
    core = dataclasses.replace(stand.scene.core, shelf=again)
    text = Stand(
        stand.scene, stand.desk, TestClient(boot_app(core, dataclasses.replace(stand.desk, core=core), {}))
    ).script()
    assert "cloner.claim=" not in text
    assert "are missing" in text


def test_an_installer_that_the_disk_does_not_take_keeps_no_server_from_starting(stand: Stand, tmp_path: Path) -> None:
    stand.put()
    shelf = stand.scene.core.shelf
    assert shelf is not None
    shutil.rmtree(shelf.boot)
    shelf.boot.touch()  # refuses every file, as a full disk does
    assert ready_shelf(tmp_path / "installer", stand.scene.core).base_release == shelf.base_release


def test_a_token_puts_new_installers_and_those_it_names_and_never_the_sites(stand: Stand) -> None:
    def token(*names: str) -> dict[str, str]:
        made = stand.scene.admin("POST", "/tokens", {"image": "golden", "installers": names}).json()["token"]
        return {"authorization": f"Bearer {made}"}

    def put(name: str, headers: dict[str, str], kernel: bytes = b"1") -> int:
        parts = kernel_part(kernel), drivers_part()
        for part in parts:
            answer = stand.scene.agents.put(f"/v1/installer-parts/{digest(part)}", content=part, headers=headers)
            assert answer.status_code == 200
        spec = {"release": RELEASE, "kernel": digest(parts[0]), "drivers": digest(parts[1]), "overwrite": True}
        return stand.scene.agents.post(f"/v1/installers/{name}", json=spec, headers=headers).status_code

    plain, named = token(), token("site", "golden")
    assert put("golden", plain) == 200
    assert put("golden", plain, b"2") == 409
    assert put("site", plain) == 409
    assert put("golden", named, b"2") == 200
    assert put("site", named) == 200
    assert stand.scene.agents.get("/v1/fleet-devices", headers=plain).status_code == 200
    assert stand.scene.agents.get("/v1/fleet-devices").status_code == 401
    assert stand.scene.agents.patch("/v1/installers/site", json={}, headers=named).status_code in (404, 405)
    assert stand.scene.agents.delete("/v1/installers/site", headers=named).status_code in (404, 405)


def test_without_a_userland_there_are_no_installers(scene: Scene) -> None:
    spec = {"release": RELEASE, "kernel": "0" * 64, "drivers": "1" * 64}
    answer = scene.admin("POST", "/installers/site", spec)
    assert answer.status_code == 409
    assert "--installer" in answer.json()["hint"]
    assert msgspec.convert(scene.admin("GET", "/installers").json(), list[InstallerView]) == []
