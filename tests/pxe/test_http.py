"""The boot half of the HTTP server: every path and query gets an answer that does not strand the machine."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError, RefusedError
from cloner_pxe.decision import AnyAnswer, BootPolicy, Netboot, NodeBoot, decide
from cloner_pxe.http import HttpAnswer, answer_http, parse_script_query
from cloner_pxe.request import BootRequest
from cloner_pxe.scripts import AgentBoot

MAC = "52:54:00:12:34:56"
POLICY = BootPolicy(server_address="10.0.0.1", http_base="http://10.0.0.1:8080")
QUERY = "mac=52-54-00-12-34-56&platform=efi"


class Site:
    """A server with one node, which counts the claims it mints."""

    def __init__(self, netboot: Netboot = Netboot.CLONER, *, fault: RefusedError | None = None) -> None:
        self.node = NodeBoot(name="node01", netboot=netboot, has_live_task=True)
        self.fault = fault
        self.claims = 0

    async def lookup(self, mac: str, request: BootRequest) -> AnyAnswer:
        return decide(self.node if mac == MAC else None, request, POLICY)

    async def agent_boot(self, mac: str, request: BootRequest) -> AgentBoot:
        if self.fault:
            raise self.fault
        self.claims += 1
        return AgentBoot(
            kernel_url="http://10.0.0.1:8080/boot/kernel/k",
            initramfs_url="http://10.0.0.1:8080/boot/initramfs/i",
            server_url="https://10.0.0.1:8443",
            claim=f"claim{self.claims}",
        )


def get(path: str, query: str = "", site: Site | None = None) -> HttpAnswer:
    return asyncio.run(answer_http(path, query, site=site or Site(), policy=POLICY))


def test_a_node_in_cloner_gets_the_agent_with_a_claim_of_its_own() -> None:
    site = Site()
    first, second = get("/boot/ipxe", QUERY, site), get("/boot/ipxe", QUERY, site)
    assert first.status == 200
    assert b"cloner.claim=claim1 " in first.body
    assert b"cloner.claim=claim2 " in second.body


@pytest.mark.parametrize(
    ("netboot", "query"),
    [(Netboot.LOCAL, QUERY), (Netboot.CLONER, "mac=52-54-00-00-00-01&platform=efi")],
    ids=["local", "unknown"],
)
def test_no_claim_is_minted_for_anybody_else(netboot: Netboot, query: str) -> None:
    site = Site(netboot)
    answer = get("/boot/ipxe", query, site)
    assert answer.status == 200
    assert answer.body.endswith(b"exit 1\n")
    assert site.claims == 0


def test_a_fault_of_the_server_becomes_a_script_that_asks_again() -> None:
    answer = get("/boot/ipxe", QUERY, Site(fault=RefusedError("the store is being checked")))
    assert answer.status == 200
    assert b"no agent now: the store is being checked" in answer.body
    assert answer.body.endswith(b"|| goto wait\n")
    assert answer.alarm


def test_bios_is_told_by_the_platform() -> None:
    answer = get("/boot/ipxe", QUERY.replace("efi", "pcbios"), Site(Netboot.LOCAL))
    assert answer.body.endswith(b"sanboot --no-describe --drive 0x80 || exit\n")


PATHS = [
    ("/boot/loader/snponly.efi", 200, "loader", "snponly.efi"),
    ("/boot/loader/secret", 404, "", ""),
    ("/boot/loader/../snponly.efi", 404, "", ""),
    ("/boot/kernel/cloud-6.1", 200, "kernel", "cloud-6.1"),
    ("/boot/initramfs/0a1b", 200, "initramfs", "0a1b"),
    ("/boot/initramfs/..", 404, "", ""),
    ("/boot/initramfs/a/b", 404, "", ""),
    ("/boot/kernel/", 404, "", ""),
    ("/boot/grub/grub.cfg", 200, "", ""),
    ("/boot/grub/nodes/52:54:00:12:34:56.cfg", 200, "", ""),
    ("/boot/grub/nodes/x.cfg", 404, "", ""),
    ("/boot/autoexec.ipxe", 200, "", ""),
    ("/boot/loader/autoexec.ipxe", 200, "", ""),
    ("/", 404, "", ""),
]


@pytest.mark.parametrize(("path", "status", "kind", "name"), PATHS, ids=[row[0] for row in PATHS])
def test_each_path_has_its_answer(path: str, status: int, kind: str, name: str) -> None:
    answer = get(path)
    assert (answer.status, answer.kind, answer.name) == (status, kind, name)


BAD_QUERIES = [
    "",
    "mac=nothing",
    "mac=52-54-00-12-34-56&platform=amiga",
    "mac=52-54-00-12-34-56&platform=efi&arch=vax",
    "mac=%ff%fe",
    "mac=52-54-00-12-34-56&x=" + "y" * 2000,
    "&".join(f"a{number}=1" for number in range(40)),
]


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_malformed_query_is_refused_with_400(query: str) -> None:
    assert get("/boot/ipxe", query).status == 400


@given(st.text(max_size=60) | st.text("/boot.ipxegrubnodesloader%&=", max_size=40), st.text(max_size=120))
def test_no_path_and_no_query_raises(path: str, query: str) -> None:
    for asked in (path, "/boot/ipxe", f"/boot/grub/{path}", f"/boot/loader/{path}", f"/boot/kernel/{path}"):
        assert get(asked, query).status in (200, 400, 404)


@given(st.text(max_size=200))
def test_a_query_is_read_or_refused(query: str) -> None:
    try:
        request = parse_script_query(query)
    except InvalidError:
        return
    assert request.mac


def test_ipxe_on_arm_is_told_from_x64() -> None:
    assert [parse_script_query(f"{QUERY}&arch={arch}").arch for arch in ("x86_64", "arm64", "i386")] == [7, 11, 6]
