"""Netboot from the server's state: who gets the agent, who never does, and what a boot loop does to its task."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cloner_core.admin.nodes import NodePatch
from cloner_core.admin.tasks import TaskState
from cloner_core.messages import Cause
from cloner_core.network import Interface, NodeNetwork
from cloner_core.sightings import BootStep
from cloner_pxe.decision import BootPolicy
from cloner_pxe.dhcp import DhcpConfig, DhcpServer, Mode
from cloner_pxe.dhcp_leases import Lease, MemoryLeases
from cloner_pxe.dhcp_packet import MessageType, Op, Option, Packet, encode
from cloner_pxe.dhcp_service import DhcpService
from cloner_pxe.events import Asker, EventKind, NetbootEvent
from cloner_server.api.boot import boot_app
from cloner_server.boot import BootDesk
from cloner_server.confirming import LOCAL_ANSWER
from cloner_server.installer import Installer
from cloner_server.state import events, nodes, sightings
from cloner_server.state.leases import SqlLeases
from serverbench.scene import Agent, Scene

MAC = "52:54:00:00:00:01"


@pytest.fixture
def desk(scene: Scene, tmp_path: Path) -> BootDesk:
    for name in ("kernel", "initramfs"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    installer = Installer(tmp_path / "kernel", "k1", tmp_path / "initramfs", "i1", 64 << 20)
    policy = BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080", agent_memory_bytes=1 << 20)
    return BootDesk(
        core=scene.core,
        policy=policy,
        installer=installer,
        server_url="https://10.77.0.1:8443",
        network=ipaddress.IPv4Network("10.77.0.0/24"),
    )


@pytest.fixture
def http(scene: Scene, desk: BootDesk, tmp_path: Path) -> TestClient:
    loader = tmp_path / "snponly.efi"
    loader.write_bytes(b"loader")
    return TestClient(boot_app(scene.core, desk, {"snponly.efi": loader}))


def script(http: TestClient, mac: str = MAC) -> str:
    answer = http.get("/boot/ipxe", params={"mac": mac.replace(":", "-"), "platform": "efi"})
    assert answer.status_code == 200
    return str(answer.text)


def claim_of(text: str) -> str:
    found = re.search(r"cloner\.claim=(\S+)", text)
    return found.group(1) if found else ""


def test_an_armed_node_gets_the_agent_with_a_claim_that_works(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    scene.arm()
    text = script(http)
    assert "cloner.server=https://10.77.0.1:8443" in text
    assert "BOOTIF=01-52-54-00-00-00-01" in text
    Agent(scene).hello(claim_of(text))


def test_each_script_has_a_claim_of_its_own(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    scene.arm()
    assert claim_of(script(http)) != claim_of(script(http))


def test_who_is_not_armed_never_gets_the_agent(scene: Scene, http: TestClient) -> None:
    assert claim_of(script(http)) == "", "unknown"
    scene.add_node()
    assert claim_of(script(http)) == "", "known, local"
    task_id = scene.arm()
    scene.admin("POST", f"/tasks/{task_id}/abort")
    assert claim_of(script(http)) == "", "aborted"
    scene.arm()
    agent = Agent(scene)
    agent.hello(claim_of(script(http)))
    agent.deploy()
    text = script(http)
    assert claim_of(text) == "", "finished"
    assert text.rstrip().endswith("exit 1")


def test_a_frozen_task_serves_no_agent(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    scene.arm()
    token = claim_of(script(http))
    Agent(scene).hello(token)
    Agent(scene).try_hello(token)
    text = script(http)
    assert claim_of(text) == ""
    assert "sleep" in text, "the machine waits, it does not go on to a half-written disk"


def test_a_node_that_never_confirms_is_a_boot_loop_after_three_answers(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello(claim_of(script(http)))
    body, _ = agent.deploy()
    for _ in range(3):
        script(http)
        assert scene.task(task_id).state is TaskState.UNCONFIRMED
    script(http)
    failure = scene.task(task_id).failure
    assert failure is not None
    assert failure.cause is Cause.BOOT_LOOP
    assert scene.netboot() == "local"
    call = agent.confirmation(body)
    answer = http.post("/confirm", json={name: getattr(call, name) for name in call.__struct_fields__})
    assert answer.status_code == 200, "a clone that calls after all came up"
    assert scene.task(task_id).state is TaskState.DONE


def test_a_boot_loop_is_found_beside_a_flood(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello(claim_of(script(http)))
    agent.deploy()
    for _ in range(100):
        scene.core.audit.admit(scene.clock.now_s, MAC, "noise", is_known=True)
        scene.core.audit.admit(scene.clock.now_s, "52:54:00:00:00:99", LOCAL_ANSWER, is_alarm=True, is_known=True)
    for _ in range(4):
        script(http)
    failure = scene.task(task_id).failure
    assert failure is not None
    assert failure.cause is Cause.BOOT_LOOP


def test_a_foreign_dhcp_server_is_told_beside_a_flood_of_unknown_machines(scene: Scene, desk: BootDesk) -> None:
    for number in range(100):
        desk.emit(NetbootEvent(kind=EventKind.ALARM, text="no loader", mac=f"52:54:00:00:01:{number:02x}"))
        desk.emit(NetbootEvent(kind=EventKind.OTHER_DHCP, text="took another", mac=f"52:54:00:00:02:{number:02x}"))
    desk.emit(NetbootEvent(kind=EventKind.OTHER_DHCP, text="another one", address="10.77.0.66"))
    with desk.news() as news, scene.core.database.write() as connection:
        desk.record(connection, scene.core.act("server"), news)
        assert len(events.list_events(connection, obj="machine/10.77.0.66", alarms=True)) == 1


def test_a_foreign_dhcp_server_that_stays_is_told_once_an_hour(scene: Scene, desk: BootDesk) -> None:
    for _ in range(61):
        desk.emit(NetbootEvent(kind=EventKind.OTHER_DHCP, text="another one", address="10.77.0.66"))
        with desk.news() as news, scene.core.database.write() as connection:
            desk.record(connection, scene.core.act("server"), news)
        scene.clock.now_s += 61
    with scene.core.database.read() as connection:
        assert len(events.list_events(connection, alarms=True)) == 2


def test_local_answers_of_a_confirmed_node_are_no_loop(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello(claim_of(script(http)))
    body, _ = agent.deploy()
    call = agent.confirmation(body)
    assert http.post("/confirm", json={n: getattr(call, n) for n in call.__struct_fields__}).status_code == 200
    for _ in range(10):
        script(http)
    assert scene.task(task_id).state is TaskState.DONE


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{}", 400), (b"[" * 4000, 400), (b"x" * 5000, 400), (b'{"secret": "s"}', 400)],
    ids=["empty", "no fields", "deep", "long", "short of fields"],
)
def test_a_malformed_confirmation_is_refused(http: TestClient, body: bytes, status: int) -> None:
    assert http.post("/confirm", content=body).status_code == status


def test_a_guessed_confirmation_is_refused_and_noted(scene: Scene, http: TestClient) -> None:
    call = {"secret": "guess", "machine_id": "0" * 32, "boot_id": "0" * 32, "root_part_uuid": "x"}
    assert http.post("/confirm", json=call).status_code == 409
    with scene.core.database.read() as connection:
        assert [e.what for e in events.list_events(connection, obj="site")][-1] == "confirmation refused"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/boot/kernel/k1", 200),
        ("/boot/initramfs/i1", 200),
        ("/boot/loader/snponly.efi", 200),
        ("/boot/kernel/other", 404),
        ("/boot/kernel/..%2f..%2fetc%2fpasswd", 404),
        ("/boot/loader/../../etc/passwd", 404),
        ("/boot/loader/cloner.db", 404),
        ("/boot/initramfs/", 404),
        ("/v1/nodes", 404),
        ("/agent/v1/hello", 404),
    ],
)
def test_only_what_is_offered_is_served(http: TestClient, path: str, status: int) -> None:
    assert http.get(path).status_code == status


def test_a_node_with_too_little_memory_waits_and_says_why(scene: Scene, desk: BootDesk, tmp_path: Path) -> None:
    import dataclasses

    import msgspec

    policy = msgspec.structs.replace(desk.policy, agent_memory_bytes=8 << 30)
    app = boot_app(scene.core, dataclasses.replace(desk, policy=policy), {})
    scene.add_node()
    scene.arm()
    agent = Agent(scene)
    with scene.core.database.write() as connection:
        nodes.remember_facts(connection, scene.core.act("test"), "n01", agent.facts)
    text = script(TestClient(app))
    assert claim_of(text) == ""
    assert "8192 MiB" in text


def test_a_static_address_is_what_dhcp_gives(scene: Scene, desk: BootDesk) -> None:
    import asyncio

    scene.add_node()
    assert asyncio.run(desk.reservation(MAC)) is None
    network = NodeNetwork("node-one", (Interface(MAC, dhcp=False, addresses=("192.0.2.9/24", "10.77.0.9/24")),))
    with scene.core.database.write() as connection:
        nodes.change_node(connection, scene.core.act("test"), "n01", NodePatch(network=network))
    reservation = asyncio.run(desk.reservation(MAC))
    assert reservation is not None
    assert (reservation.address, reservation.hostname) == ("10.77.0.9", "node-one")


def test_events_of_the_wire_are_written_in_one_go_and_a_flood_is_bounded(scene: Scene, desk: BootDesk) -> None:
    scene.add_node()
    for number in range(5000):
        desk.emit(NetbootEvent(kind=EventKind.NAK, text=f"nak {number}", mac=MAC))
    desk.emit(NetbootEvent(kind=EventKind.OTHER_DHCP, text="another one", address="10.77.0.66"))
    with desk.news() as news, scene.core.database.write() as connection:
        desk.record(connection, scene.core.act("server"), news)
        written = events.list_events(connection, obj="node/n01", limit=10_000)
        assert len([e for e in written if e.what == "dhcp-nak"]) <= 1000
        assert [e.object for e in events.list_events(connection, alarms=True)] == ["machine/10.77.0.66"]
    assert not desk.has_news


def test_each_step_the_wire_shows_of_a_known_machine_is_kept_with_its_last_time(
    scene: Scene, desk: BootDesk, http: TestClient
) -> None:
    scene.add_node()
    scene.arm()
    SqlLeases(scene.core.database).put(Lease(address="10.77.0.100", mac=MAC, expires_at=scene.clock.now_s + 100))
    for asker in Asker:
        desk.emit(NetbootEvent(kind=EventKind.ACK, text="", mac=MAC, address="10.77.0.100", asker=asker))
    desk.emit(NetbootEvent(kind=EventKind.ACK, text="", mac="52:54:00:00:00:99", asker=Asker.SYSTEM))
    desk.emit(NetbootEvent(kind=EventKind.TFTP_START, text="snponly.efi", address="10.77.0.100"))
    desk.emit(NetbootEvent(kind=EventKind.TFTP_START, text="snponly.efi", address="10.77.0.101"))
    for url in re.findall(r"http://\S+/boot/(?:kernel|initramfs)/\S+", script(http)):
        assert http.get(url).status_code == 200
    assert http.get("/boot/kernel/k1?mac=nonsense").status_code == 200

    def seen() -> dict[BootStep, float]:
        with desk.news() as news, scene.core.database.write() as connection:
            desk.record(connection, scene.core.act("server"), news)
            return {one.step: one.time_s for one in sightings.list_sightings(connection, "n01")}

    assert seen() == dict.fromkeys(set(BootStep) - {BootStep.LOCAL}, scene.clock.now_s)
    scene.clock.now_s += 10
    desk.emit(NetbootEvent(kind=EventKind.OFFER, text="", mac=MAC, asker=Asker.SYSTEM))
    assert seen()[BootStep.DHCP_SYSTEM] == scene.clock.now_s
    assert seen()[BootStep.KERNEL] == scene.clock.now_s - 10


def test_the_relay_a_node_asks_through_is_kept_and_a_strangers_is_not(scene: Scene, desk: BootDesk) -> None:
    scene.add_node()
    for mac, relay in ((MAC, "10.9.0.1"), ("52:54:00:00:00:77", "10.9.0.2"), (MAC, "10.9.0.1")):
        desk.emit(NetbootEvent(kind=EventKind.RELAY, mac=mac, address=relay, text="asks through it"))
    with desk.news() as news, scene.core.database.write() as connection:
        before = events.last_id(connection)
        desk.record(connection, scene.core.act("server"), news)
        assert nodes.get_node(connection, "n01").relay == "10.9.0.1"
        assert [event.what for event in events.list_events(connection, after=before)] == ["relay told"]


def test_the_relay_of_a_node_that_is_added_after_its_first_request_is_learnt(scene: Scene, desk: BootDesk) -> None:
    address, network = ipaddress.IPv4Address("10.77.0.1"), ipaddress.IPv4Network("10.77.0.0/24")
    config = DhcpConfig(server_address=address, network=network, pool=None, mode=Mode.PROXY)
    server = DhcpServer(config, MemoryLeases())
    service = DhcpService("none", server, desk, desk.emit)

    def ask(relay: str) -> None:
        """One request as it comes from the wire."""
        asked = Packet(
            op=Op.REQUEST,
            message_type=MessageType.DISCOVER,
            xid=1,
            mac=MAC,
            giaddr=ipaddress.IPv4Address(relay),
            options={Option.VENDOR_CLASS: b"PXEClient:Arch:00007:UNDI:003016", Option.ARCH: bytes([0, 7])},
        )
        inquiry = server.read(encode(asked), (relay, 67))
        assert inquiry is not None
        service._tell_relay(inquiry)
        with desk.news() as news, scene.core.database.write() as connection:
            desk.record(connection, scene.core.act("server"), news)

    ask("10.9.0.1")
    scene.add_node()
    ask("10.9.0.1")
    ask("10.9.0.1")
    with scene.core.database.read() as connection:
        assert nodes.get_node(connection, "n01").relay == "10.9.0.1"
        told = [event.what for event in events.list_events(connection, obj="node/n01")]
    assert told.count("relay told") == 1


def test_of_more_events_than_are_kept_the_newest_outlive_a_transaction_that_fails(scene: Scene, desk: BootDesk) -> None:
    for number in range(1000):
        desk.emit(NetbootEvent(kind=EventKind.NAK, text=f"nak {number}", mac=MAC))

    def fail() -> None:
        with desk.news():
            desk.emit(NetbootEvent(kind=EventKind.OTHER_DHCP, text="another one", address="10.77.0.66"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with desk.news() as news:
        told = [one.event.text for one in news.told]
    assert told == [*(f"nak {number}" for number in range(1, 1000)), "another one"]
