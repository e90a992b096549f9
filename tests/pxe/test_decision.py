"""The laws of the boot decision, over every node state and request hypothesis can think of."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_pxe.decision import (
    AnyAnswer,
    BootOrder,
    BootPolicy,
    HttpBootUri,
    LeaseOnly,
    Loader,
    LocalMethod,
    Netboot,
    NodeBoot,
    NotFound,
    Script,
    ScriptKind,
    decide,
)
from cloner_pxe.request import BootRequest, Firmware, Route

MAC = "52:54:00:12:34:56"
POLICY = BootPolicy(
    server_address="10.0.0.1",
    http_base="http://10.0.0.1:8080",
    grub_loaders={Firmware.X64_UEFI: "shimx64.efi"},
    file_names=frozenset({"autoexec.ipxe"}),
    agent_memory_bytes=500 << 20,
)

text = st.text(max_size=40)
requests = st.builds(
    BootRequest,
    route=st.sampled_from(Route),
    mac=st.just(MAC),
    arch=st.none() | st.integers(0, 65535) | st.sampled_from([0, 6, 7, 9, 11, 16, 19]),
    vendor_class=text | st.sampled_from(["PXEClient", "PXEClient:Arch:00007:UNDI:003016", "HTTPClient"]),
    user_class=text | st.just("iPXE"),
    file=text | st.sampled_from(["snponly.efi", "undionly.kpxe", "/shimx64.efi", "../snponly.efi"]),
    machine_uuid=text,
    ipxe_features=st.lists(st.integers(0, 255), max_size=3).map(tuple),
)
nodes = st.builds(
    NodeBoot,
    name=st.just("node01"),
    netboot=st.sampled_from(Netboot),
    has_live_task=st.booleans(),
    is_held=st.booleans(),
    local_method=st.sampled_from(LocalMethod),
    boot_order=st.sampled_from(BootOrder),
    unconfirmed_local_answers_last_hour=st.integers(0, 10),
    memory_bytes=st.none() | st.integers(0, 1 << 40),
)


def is_agent(answer: AnyAnswer) -> bool:
    return isinstance(answer, Script) and answer.kind is ScriptKind.AGENT


@given(nodes, requests)
def test_a_node_in_local_never_gets_the_agent_on_any_route(node: NodeBoot, request: BootRequest) -> None:
    local = msgspec.structs.replace(node, netboot=Netboot.LOCAL)
    assert not is_agent(decide(local, request, POLICY))


@given(requests)
def test_an_unknown_machine_never_gets_the_agent(request: BootRequest) -> None:
    assert not is_agent(decide(None, request, POLICY))


@given(nodes, requests)
def test_the_agent_is_given_exactly_where_there_is_work_for_it_and_the_memory_holds_it(
    node: NodeBoot, request: BootRequest
) -> None:
    due = (
        request.route is Route.HTTP_SCRIPT
        and node.netboot is not Netboot.LOCAL
        and (
            node.has_live_task
            or node.netboot is Netboot.DISCOVER
            or (node.netboot is Netboot.CLONER_MULTICAST and not node.is_held)
        )
        and (node.memory_bytes is None or node.memory_bytes >= POLICY.agent_memory_bytes)
    )
    assert is_agent(decide(node, request, POLICY)) == due


@given(st.none() | nodes, requests)
def test_each_route_gets_answers_it_can_use(node: NodeBoot | None, request: BootRequest) -> None:
    answer = decide(node, request, POLICY)
    match request.route:
        case Route.DHCP | Route.PROXYDHCP:
            assert isinstance(answer, Loader | HttpBootUri | LeaseOnly)
            # Silence towards a boot client costs a minute and more: only firmware we have no loader for gets it.
            if request.wants_boot and isinstance(answer, LeaseOnly):
                assert answer.alarm
        case Route.TFTP | Route.HTTP_BOOT:
            assert isinstance(answer, Loader | NotFound)
        case Route.HTTP_SCRIPT | Route.GRUB_CFG:
            assert isinstance(answer, Script)
    assert answer.why


@given(st.none() | nodes, requests)
def test_files_come_from_the_list_alone(node: NodeBoot | None, request: BootRequest) -> None:
    answer = decide(node, request, POLICY)
    if isinstance(answer, Loader) and request.route in (Route.TFTP, Route.HTTP_BOOT):
        assert answer.file in POLICY.offered_files


@given(st.integers(0, 10))
def test_more_than_three_local_answers_in_an_hour_are_a_boot_loop(before: int) -> None:
    node = NodeBoot(name="node01", netboot=Netboot.LOCAL, unconfirmed_local_answers_last_hour=before)
    answer = decide(node, BootRequest(route=Route.HTTP_SCRIPT, mac=MAC, arch=7), POLICY)
    assert isinstance(answer, Script)
    assert answer.kind is ScriptKind.LOCAL
    assert ("boot loop" in answer.alarm) == (before >= 3)


FIRMWARE_ROWS = [
    pytest.param(0, "PXEClient:Arch:00000", "undionly.kpxe", id="bios"),
    pytest.param(None, "PXEClient", "undionly.kpxe", id="bios that does not say its architecture"),
    pytest.param(7, "PXEClient:Arch:00007", "snponly.efi", id="x64 uefi"),
    pytest.param(9, "PXEClient:Arch:00009", "snponly.efi", id="x64 uefi saying byte code"),
]


@pytest.mark.parametrize("route", [Route.DHCP, Route.PROXYDHCP])
@pytest.mark.parametrize(("arch", "vendor_class", "file"), FIRMWARE_ROWS)
def test_firmware_gets_the_loader_of_its_architecture(
    route: Route, arch: int | None, vendor_class: str, file: str
) -> None:
    request = BootRequest(route=route, mac=MAC, arch=arch, vendor_class=vendor_class)
    answer = decide(None, request, POLICY)
    assert isinstance(answer, Loader)
    assert (answer.file, answer.next_server) == (file, "10.0.0.1")


def test_http_boot_firmware_gets_an_absolute_url() -> None:
    request = BootRequest(route=Route.DHCP, mac=MAC, arch=16, vendor_class="HTTPClient:Arch:00016")
    answer = decide(None, request, POLICY)
    assert isinstance(answer, HttpBootUri)
    assert answer.uri == "http://10.0.0.1:8080/boot/loader/snponly.efi"


@pytest.mark.parametrize("said", [{"user_class": "iPXE"}, {"ipxe_features": (0x13,)}], ids=["user class", "option 175"])
@pytest.mark.parametrize(("arch", "platform"), [(0, "pcbios"), (7, "efi")])
def test_ipxe_gets_the_url_of_its_script_and_not_itself_again(
    said: dict[str, object], arch: int, platform: str
) -> None:
    fields = {"route": "dhcp", "mac": MAC, "arch": arch, "vendor_class": "PXEClient", **said}
    answer = decide(None, msgspec.convert(fields, BootRequest), POLICY)
    assert isinstance(answer, Loader)
    assert answer.file == f"http://10.0.0.1:8080/boot/ipxe?mac=52-54-00-12-34-56&platform={platform}"


def test_firmware_without_a_loader_gets_an_address_and_raises_an_alarm() -> None:
    request = BootRequest(route=Route.DHCP, mac=MAC, arch=11, vendor_class="PXEClient:Arch:00011")
    answer = decide(None, request, POLICY)
    assert isinstance(answer, LeaseOnly)
    assert "architecture 11" in answer.alarm


def test_an_operating_system_gets_an_address_and_no_alarm() -> None:
    answer = decide(None, BootRequest(route=Route.DHCP, mac=MAC, vendor_class="udhcp 1.35.0"), POLICY)
    assert isinstance(answer, LeaseOnly)
    assert not answer.alarm


def test_a_node_that_chains_by_grub_gets_shim_only_while_local() -> None:
    request = BootRequest(route=Route.DHCP, mac=MAC, arch=7, vendor_class="PXEClient")
    local = NodeBoot(name="node01", netboot=Netboot.LOCAL, local_method=LocalMethod.GRUB_CHAIN)
    armed = msgspec.structs.replace(local, netboot=Netboot.CLONER, has_live_task=True)
    assert [getattr(decide(node, request, POLICY), "file", "") for node in (local, armed)] == [
        "shimx64.efi",
        "snponly.efi",
    ]


def test_a_node_too_small_for_the_agent_waits_and_says_both_sizes() -> None:
    node = NodeBoot(name="node01", netboot=Netboot.CLONER, has_live_task=True, memory_bytes=256 << 20)
    answer = decide(node, BootRequest(route=Route.HTTP_SCRIPT, mac=MAC, arch=7), POLICY)
    assert isinstance(answer, Script)
    assert answer.kind is ScriptKind.WAIT
    assert "500 MiB" in answer.alarm
    assert "256 MiB" in answer.alarm


@given(st.none() | nodes, requests)
def test_an_answer_survives_the_wire(node: NodeBoot | None, request: BootRequest) -> None:
    answer = decide(node, request, POLICY)
    assert msgspec.json.decode(msgspec.json.encode(answer), type=AnyAnswer) == answer
