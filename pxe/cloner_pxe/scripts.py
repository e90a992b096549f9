"""iPXE scripts, as text: the agent, the way on to the local disk, waiting, and the word to a stranger.

Pure. Every value that reaches a script is checked here: iPXE expands `${…}`, splits at white space and reads `||`,
so a value of the wrong form could say something else than meant.
"""

from __future__ import annotations

import re

import msgspec

from cloner_core.errors import InvalidError
from cloner_pxe.decision import LocalMethod, Script, ScriptKind

WAIT_S = 15
_URL = re.compile(r"https?://[0-9A-Za-z.\-]+(?::[0-9]{1,5})?(?:/[0-9A-Za-z._~/?&=:%\-]*)?\Z")
_WORD = re.compile(r"[0-9A-Za-z._:/=,+@%~\-]+\Z")
_UNSHOWABLE = re.compile(r"[^0-9A-Za-z ._:,()/'+-]")
_COMMAND_LINE_BYTES = 2000  # COMMAND_LINE_SIZE is 2048 on x86; the kernel cuts the rest off silently


class AgentBoot(msgspec.Struct, frozen=True, kw_only=True):
    """Where one boot of the agent finds its parts, and what its command line says."""

    kernel_url: str
    initramfs_url: str  # one URL for all layers, see docs/adr/0031
    server_url: str  # https://ADDRESS:8443, where the agent reports
    claim: str  # one-use token; the only secret that ever stands on a command line
    arguments: tuple[str, ...] = ("console=tty0", "console=ttyS0", "panic=-1")

    def __repr__(self) -> str:
        return f"AgentBoot(kernel_url={self.kernel_url!r}, initramfs_url={self.initramfs_url!r}, claim=***)"


def kernel_command_line(boot: AgentBoot, mac: str) -> str:
    """Return the command line of the agent's kernel.

    `initrd=initrd` names the file of the `initrd` line: an EFI-stub kernel started by iPXE finds it by that name only.
    BOOTIF carries hardware type 01 before the MAC, the form PXELINUX gave it.
    Raises InvalidError naming every argument that is not one plain word.
    """
    words = (
        "initrd=initrd",
        f"BOOTIF=01-{mac.replace(':', '-')}",
        f"cloner.server={boot.server_url}",
        f"cloner.claim={boot.claim}",
        *boot.arguments,
    )
    # A refused word is named up to its "=": the claim must not get into an error text.
    faults = [f"{word.split('=')[0][:40]!r}: not one plain word" for word in words if not _WORD.match(word)]
    if faults:
        raise InvalidError("these kernel arguments cannot go into a boot script", faults=faults)
    line = " ".join(words)
    if len(line) > _COMMAND_LINE_BYTES:
        raise InvalidError(f"the kernel command line has {len(line)} bytes, at most {_COMMAND_LINE_BYTES} fit")
    return line


def render(script: Script, *, mac: str, script_url: str, is_bios: bool, agent: AgentBoot | None = None) -> str:
    """Return the iPXE script for `script`.

    `script_url` is where this script was fetched: waiting scripts come back there. `agent` must be given for
    ScriptKind.AGENT, and for no other kind, so that no claim is minted for nothing.
    """
    if (agent is not None) != (script.kind is ScriptKind.AGENT):
        raise InvalidError(f"a script of kind {script.kind.value} and agent parts do not go together")
    lines = ["#!ipxe", f"echo cloner: {shown(script.node or mac)}: {shown(script.why)}"]
    if agent is not None:
        lines += _agent(agent, mac, checked_url(script_url))
    elif script.kind is ScriptKind.WAIT:
        lines += _again(checked_url(script_url))
    else:
        if script.kind is ScriptKind.UNKNOWN:
            lines.append(f"echo cloner: to own this machine: cloner node add NAME --mac {shown(mac)}")
        lines += _local(script.local_method, is_bios=is_bios)
    return "\n".join(lines) + "\n"


def chain_to_server(http_base: str) -> str:
    """Return the `autoexec.ipxe` that newer iPXE fetches beside its own binary: it goes on to the real script."""
    base = checked_url(http_base)
    return "\n".join(
        (
            "#!ipxe",
            "ifconf --configurator dhcp || ifconf ||",
            f"chain --replace {base}/boot/ipxe?mac=${{netX/mac:hexhyp}}&platform=${{platform}} || exit 1",
            "",
        )
    )


def shown(text: str) -> str:
    """Return `text` fit for an `echo` line: everything iPXE could read as syntax becomes a question mark."""
    return _UNSHOWABLE.sub("?", text[:200])


def checked_url(url: str) -> str:
    """Return `url`; raises InvalidError when it holds anything that a script could read as syntax."""
    if not _URL.match(url) or len(url) > 500:
        raise InvalidError(f"{url[:80]!r} cannot go into a boot script", hint="wanted: http://ADDRESS[:PORT]/PATH")
    return url


def _agent(agent: AgentBoot, mac: str, script_url: str) -> list[str]:
    return [
        f"kernel --name kernel {checked_url(agent.kernel_url)} {kernel_command_line(agent, mac)} || goto again",
        f"initrd --name initrd {checked_url(agent.initramfs_url)} || goto again",
        "boot || goto again",
        ":again",
        "imgfree ||",
        *_again(script_url),
    ]


def _again(script_url: str) -> list[str]:
    return [
        f"echo cloner: asking again in {WAIT_S} s",
        ":wait",
        f"sleep {WAIT_S}",
        f"chain --replace {script_url} || goto wait",
    ]


def _local(method: LocalMethod, *, is_bios: bool) -> list[str]:
    # On UEFI the status must not be 0: after a success firmware stops at its setup screen instead of going on.
    if is_bios:
        return ["sanboot --no-describe --drive 0x80 || exit"]
    if method is LocalMethod.SANBOOT:
        return ["sanboot --no-describe --drive 0x80 || exit 1"]
    return ["exit 1"]
