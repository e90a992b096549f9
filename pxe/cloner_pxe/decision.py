"""The boot decision: what one machine gets for one request, from the node's state alone.

Pure. Minting a claim, counting local answers and writing the timeline are effects of the caller. The one rule
everything else serves: a node in `local` and a machine nobody knows never get the agent, on any route.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from cloner_pxe.request import BootRequest, Firmware, Route

# Debian 12's package ipxe has no arm64 build.
DEBIAN_LOADERS = {Firmware.BIOS: "undionly.kpxe", Firmware.X64_UEFI: "snponly.efi"}
LOCAL_ANSWERS_AN_HOUR = 3  # a node that asks more often than this has not started from its disk


class Netboot(StrEnum):
    """What a node gets at its next network boot; the words of the field `netboot`."""

    LOCAL = "local"
    CLONER = "cloner"
    CLONER_MULTICAST = "cloner-multicast"
    CAPTURE = "capture"
    DISCOVER = "discover"
    RESCUE = "rescue"


class LocalMethod(StrEnum):
    """How a node is sent on to its own disk; firmware differs, so every node has its own."""

    EXIT = "exit"  # leave iPXE with a failure: firmware tries its next boot entry
    GRUB_CHAIN = "grub-chain"  # a signed GRUB finds the ESP and starts the loader there
    SANBOOT = "sanboot"  # iPXE starts the first disk itself
    EFI_ORDER = "efi-order"  # BootOrder has the disk first; if the node nets all the same, as `exit`


class BootOrder(StrEnum):
    NETWORK_FIRST = "network-first"
    LOCAL_FIRST = "local-first"


class NodeBoot(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision needs to know of one node."""

    name: str
    netboot: Netboot
    has_live_task: bool = False  # that an agent may take
    is_held: bool = False  # by a task that no agent may take
    local_method: LocalMethod = LocalMethod.EXIT
    boot_order: BootOrder = BootOrder.NETWORK_FIRST
    unconfirmed_local_answers_last_hour: int = 0  # before this request; 0 once the node has confirmed
    memory_bytes: int | None = None  # None until an inventory was taken
    agent_memory_bytes: int | None = None  # least for the initramfs it is offered; None: that of the policy


class BootPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What this server offers: addresses, loaders by firmware, what the agent needs."""

    server_address: str
    http_base: str  # "http://10.0.0.1:8080", no slash at the end
    loaders: Mapping[Firmware, str] = msgspec.field(default_factory=lambda: dict(DEBIAN_LOADERS))
    grub_loaders: Mapping[Firmware, str] = msgspec.field(
        default_factory=dict
    )  # first file of the shim + GRUB chain, where the site has one
    file_names: frozenset[str] = frozenset()  # further names TFTP and HTTP may hand out
    agent_memory_bytes: int = 0  # least memory in which the offered initramfs unpacks; 0 when unknown

    @property
    def offered_files(self) -> frozenset[str]:
        """Every name a machine may fetch without being known."""
        return self.file_names | frozenset(self.loaders.values()) | frozenset(self.grub_loaders.values())


class ScriptKind(StrEnum):
    AGENT = "agent"
    LOCAL = "local"
    WAIT = "wait"  # nothing to run now: show why, ask again
    UNKNOWN = "unknown"  # nobody knows this machine: show its MAC, go on to its disk


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer"):
    """What a machine gets; `why` is the line of the timeline, `alarm` is set when a person should look."""

    why: str
    alarm: str = ""


class Loader(Answer, frozen=True, kw_only=True, tag="loader"):
    """A first program by TFTP, or for iPXE the URL of its script."""

    file: str
    next_server: str


class HttpBootUri(Answer, frozen=True, kw_only=True, tag="http-boot-uri"):
    """An absolute URL for firmware that boots over HTTP."""

    uri: str


class Script(Answer, frozen=True, kw_only=True, tag="script"):
    """A boot script of this kind, in the language of the route."""

    kind: ScriptKind
    node: str = ""
    netboot: Netboot | None = None  # None when nobody knows the machine
    local_method: LocalMethod = LocalMethod.EXIT


class LeaseOnly(Answer, frozen=True, kw_only=True, tag="lease-only"):
    """An address and no boot file; right for operating systems, and for firmware we have no loader for."""


class NotFound(Answer, frozen=True, kw_only=True, tag="not-found"):
    """Say "not found" at once: shim and GRUB ask for files that need not exist, and silence costs their time-out."""


AnyAnswer = Loader | HttpBootUri | Script | LeaseOnly | NotFound


def decide(node: NodeBoot | None, request: BootRequest, policy: BootPolicy) -> AnyAnswer:
    """Return what `request` gets; `node` is None when no node has the request's keys."""
    if request.route in (Route.DHCP, Route.PROXYDHCP):
        return _first_loader(node, request, policy)
    if request.route in (Route.TFTP, Route.HTTP_BOOT):
        return _file(request, policy)
    script = _script(node, policy)
    if request.route is Route.GRUB_CFG and script.kind is ScriptKind.AGENT and node is not None:
        # Debian 12's signed GRUB has no http module, and TFTP is for loaders. Such a node gets iPXE over DHCP;
        # it comes here only when netboot changed between the two requests.
        why = f"{node.name}: the agent is not served to GRUB; the next boot of the node gets iPXE"
        return _of(node, ScriptKind.WAIT, why, alarm=why)
    return script


def script_url(policy: BootPolicy, request: BootRequest) -> str:
    """Return the URL at which iPXE gets its script.

    The MAC is written out, not left to `${net0/mac}`: with several cards net0 need not be the one that booted.
    """
    platform = "pcbios" if request.firmware is Firmware.BIOS else "efi"
    return f"{policy.http_base}/boot/ipxe?mac={request.mac.replace(':', '-')}&platform={platform}"


def _first_loader(node: NodeBoot | None, request: BootRequest, policy: BootPolicy) -> AnyAnswer:
    if not request.wants_boot:
        return LeaseOnly(why="not a boot client")
    who = node.name if node else "unknown machine"
    if request.is_ipxe:
        return Loader(
            why=f"{who}: iPXE gets the URL of its script",
            file=script_url(policy, request),
            next_server=policy.server_address,
        )
    file = _loader_name(node, request.firmware, policy)
    if file is None:
        said = "none" if request.arch is None else str(request.arch)
        text = f"{who}: no loader for architecture {said} (option 93)"
        return LeaseOnly(why=text, alarm=text)
    if request.is_http_boot:
        return HttpBootUri(why=f"{who}: HTTP Boot gets {file}", uri=f"{policy.http_base}/boot/loader/{file}")
    return Loader(why=f"{who}: firmware gets {file}", file=file, next_server=policy.server_address)


def _loader_name(node: NodeBoot | None, firmware: Firmware, policy: BootPolicy) -> str | None:
    is_by_grub = node is not None and node.local_method is LocalMethod.GRUB_CHAIN and node.netboot is Netboot.LOCAL
    if is_by_grub and firmware in policy.grub_loaders:
        return policy.grub_loaders[firmware]
    return policy.loaders.get(firmware)


def _file(request: BootRequest, policy: BootPolicy) -> AnyAnswer:
    name = request.file.lstrip("/")
    if name in policy.offered_files:
        return Loader(why=f"file {name}", file=name, next_server=policy.server_address)
    return NotFound(why=f"no such boot file: {request.file[:80]!r}")


def _script(node: NodeBoot | None, policy: BootPolicy) -> Script:
    if node is None:
        return Script(kind=ScriptKind.UNKNOWN, why="nobody knows this machine: it goes on to its own disk")
    if node.netboot is Netboot.LOCAL:
        return _local(node)
    # Inventory and waiting need no task: their claims are good for telling facts and for nothing else.
    is_taskless = node.netboot is Netboot.DISCOVER or (node.netboot is Netboot.CLONER_MULTICAST and not node.is_held)
    if not node.has_live_task and not is_taskless:
        why = f"netboot is {node.netboot.value} and no task is live: the node waits for one"
        return _of(node, ScriptKind.WAIT, why)
    needed, has = node.agent_memory_bytes, node.memory_bytes
    needed = policy.agent_memory_bytes if needed is None else needed
    if has is not None and has < needed:
        # The kernel truncates an initramfs that does not fit without a word, and boots on into the ruin.
        why = f"the agent needs {needed >> 20} MiB of memory, {node.name} has {has >> 20} MiB"
        return _of(node, ScriptKind.WAIT, why, alarm=why)
    is_waiting = node.netboot is Netboot.CLONER_MULTICAST and not node.has_live_task
    what = "the agent, which waits for a session" if is_waiting else "the agent"
    return _of(node, ScriptKind.AGENT, f"netboot is {node.netboot.value}: {what}")


def _local(node: NodeBoot) -> Script:
    answers = node.unconfirmed_local_answers_last_hour + 1
    alarm = ""
    if answers > LOCAL_ANSWERS_AN_HOUR:
        alarm = f"boot loop: {node.name} got {answers} local answers within an hour and never confirmed"
    why = f"netboot is local: {node.local_method.value}"
    if node.boot_order is BootOrder.LOCAL_FIRST:
        why += "; its disk should have come first, yet it asked the network"
    return _of(node, ScriptKind.LOCAL, why, alarm=alarm)


def _of(node: NodeBoot, kind: ScriptKind, why: str, *, alarm: str = "") -> Script:
    return Script(
        kind=kind,
        node=node.name,
        netboot=node.netboot,
        local_method=node.local_method,
        why=why,
        alarm=alarm,
    )
