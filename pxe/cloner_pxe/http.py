"""The boot half of the plain HTTP server, without a web framework: path and query in, status and body out.

The server mounts `answer_http`; it must keep query strings out of its log, although nothing secret is in one. Bodies of
loaders, kernels and initramfs layers are not read here: the answer names them and the server streams them.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

import msgspec

from cloner_core.errors import ClonerError, InvalidError
from cloner_pxe.decision import BootPolicy, Loader, Script, ScriptKind, script_url
from cloner_pxe.directory import BootSite, Lookup
from cloner_pxe.grub import FIRST_STAGE, render_grub
from cloner_pxe.request import BootRequest, Route, normal_mac
from cloner_pxe.scripts import chain_to_server, render

_QUERY_BYTES = 1024
_ARCH_OF_PLATFORM = {("pcbios", ""): 0, ("efi", ""): 7, ("efi", "x86_64"): 7, ("efi", "arm64"): 11, ("efi", "i386"): 6}
_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}\Z")
_TEXT = "text/plain; charset=utf-8"


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: `body`, or the bytes of the artefact `kind`/`name` when `kind` is not ""."""

    status: int
    content_type: str = _TEXT
    body: bytes = b""
    kind: str = ""  # "loader", "kernel" or "initramfs": the server streams `name` of that kind; else ""
    name: str = ""
    mac: str = ""
    why: str = ""  # line for the timeline; "" when there is nothing to tell
    alarm: str = ""


def parse_script_query(query: str) -> BootRequest:
    """Return the request for which iPXE asks by `/boot/ipxe?mac=…&platform=…[&arch=…][&uuid=…]`.

    Unknown names are ignored: scripts of an earlier server may still be out there. Raises InvalidError otherwise.
    """
    if len(query) > _QUERY_BYTES:
        raise InvalidError(f"the query has {len(query)} bytes, at most {_QUERY_BYTES} are read")
    try:
        pairs = dict(parse_qsl(query, max_num_fields=16, errors="strict"))
    except ValueError as fault:  # also UnicodeDecodeError
        raise InvalidError("the query cannot be read") from fault
    platform, arch = pairs.get("platform", "efi"), pairs.get("arch", "")
    number = _ARCH_OF_PLATFORM.get((platform, arch if platform == "efi" else ""))
    if number is None:
        raise InvalidError(f"platform {platform[:20]!r} with arch {arch[:20]!r} is not known here")
    return BootRequest(
        route=Route.HTTP_SCRIPT,
        mac=normal_mac(pairs.get("mac", "")),
        arch=number,
        user_class="iPXE",
        machine_uuid=pairs.get("uuid", "")[:64],
    )


async def answer_http(path: str, query: str, *, site: BootSite, policy: BootPolicy) -> HttpAnswer:
    """Answer one GET of `path` (percent-decoded) and `query` (as sent).

    Never raises for anything the other side said; a fault of the server while the agent's parts are made becomes a
    script that asks again, since a machine that gets an HTTP error sits at a prompt for ever.
    """
    match path.split("/"):
        case ["", "boot", "ipxe"]:
            return await _ipxe(query, site, policy)
        case ["", "boot", "autoexec.ipxe"] | ["", "boot", "loader", "autoexec.ipxe"]:
            return HttpAnswer(status=200, body=chain_to_server(policy.http_base).encode())
        case ["", "boot", "loader", name]:
            return await _loader(name, site)
        case ["", "boot", "kernel" | "initramfs" as kind, key] if _KEY.match(key):
            mac = _said_mac(query)
            return HttpAnswer(status=200, content_type="application/octet-stream", kind=kind, name=key, mac=mac)
        case ["", "boot", "grub", *below]:
            return await grub_answer("/".join(below), site)
    return HttpAnswer(status=404, body=b"not found\n")


async def _ipxe(query: str, site: BootSite, policy: BootPolicy) -> HttpAnswer:
    try:
        request = parse_script_query(query)
    except InvalidError as fault:
        return HttpAnswer(status=400, body=f"{fault}\n".encode(), why=f"script refused: {fault}")
    url, is_bios = script_url(policy, request), request.arch == 0
    try:
        answer = await site.lookup(request.mac, request)
        if not isinstance(answer, Script):
            return HttpAnswer(status=404, body=b"not found\n", mac=request.mac, why=answer.why, alarm=answer.alarm)
        agent = await site.agent_boot(request.mac, request) if answer.kind is ScriptKind.AGENT else None
        text = render(answer, mac=request.mac, script_url=url, is_bios=is_bios, agent=agent)
    except ClonerError as fault:
        answer = Script(kind=ScriptKind.WAIT, why=f"no agent now: {fault.message}", alarm=str(fault))
        text = render(answer, mac=request.mac, script_url=url, is_bios=is_bios)
    return HttpAnswer(status=200, body=text.encode(), mac=request.mac, why=answer.why, alarm=answer.alarm)


def _said_mac(query: str) -> str:
    """Return the MAC a query names; "" for none, or for anything that is none: the file is for everybody."""
    try:
        return normal_mac(dict(parse_qsl(query[:_QUERY_BYTES], max_num_fields=16)).get("mac", ""))
    except (InvalidError, ValueError):
        return ""


async def _loader(name: str, site: Lookup) -> HttpAnswer:
    answer = await site.lookup("", BootRequest(route=Route.HTTP_BOOT, file=name))
    if isinstance(answer, Loader):
        return HttpAnswer(status=200, content_type="application/efi", kind="loader", name=answer.file, why=answer.why)
    return HttpAnswer(status=404, body=b"not found\n", why=answer.why)


async def grub_answer(name: str, site: Lookup) -> HttpAnswer:
    """Answer for `grub.cfg` or `nodes/MAC.cfg` beneath `/grub`; the TFTP side serves the same texts."""
    if name == "grub.cfg":
        return HttpAnswer(status=200, body=FIRST_STAGE.encode())
    try:
        mac = normal_mac(name.removeprefix("nodes/").removesuffix(".cfg"))
        answer = await site.lookup(mac, BootRequest(route=Route.GRUB_CFG, mac=mac))
        if not isinstance(answer, Script):
            return HttpAnswer(status=404, body=b"not found\n", mac=mac, why=answer.why)
        body = render_grub(answer, mac=mac).encode()
    except InvalidError as fault:
        return HttpAnswer(status=404, body=b"not found\n", why=f"grub.cfg refused: {fault}")
    return HttpAnswer(status=200, body=body, mac=mac, why=answer.why, alarm=answer.alarm)
