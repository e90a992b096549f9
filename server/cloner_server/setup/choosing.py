"""DHCP beside another server, or alone: what was asked for held against who answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Interface

from cloner_core.errors import ExitStatus
from cloner_pxe.dhcp_probe import OtherServer
from cloner_server.setup.preparation import Finding, Kind
from cloner_server.setup.ranges import choose_range, range_faults

_PROXY = "only boot information is added to its answers (proxy)"


def choose_dhcp(
    asked: str | None,
    others: Sequence[OtherServer] | None,
    own: IPv4Interface,
    *,
    unheard: str = "",
    is_dynamic: bool = False,
) -> tuple[str, list[Finding]]:
    """Return the mode ("FIRST-LAST", "proxy", "none") and what is to be said of it.

    `asked` None: choose one. `others` None: nobody was asked, for the reason `unheard` ("" a server of ours runs).
    `is_dynamic`: our own address came by DHCP, so there is a server, whether it answered or not.
    """
    heard = tuple(others or ())
    givers = [one.address for one in heard if one.gives_addresses]
    rivals = [one.address for one in heard if not one.gives_addresses]
    findings = [
        Finding(
            Kind.WARNING, f"another server offers boot files: {', '.join(rivals)}", "a node takes either's: stop one"
        )
    ] * bool(rivals)
    if asked is None:
        return _chosen(findings, others, givers, own, unheard=unheard, is_dynamic=is_dynamic)
    if asked == "none":
        what = "DHCP is left to another server: it must name this server and the boot file itself"
        return asked, [*findings, Finding(Kind.NOTE, what, "docs/first-node.md has the options")]
    if asked == "proxy":
        if others is not None and not givers and not is_dynamic:
            what = "no DHCP server answered within 3 s: with proxy nobody gives nodes an address"
            findings.append(Finding(Kind.WARNING, what, f"--dhcp {choose_range(own) or 'FIRST-LAST'}"))
        elif givers:
            findings.append(Finding(Kind.OK, f"a DHCP server answers: {', '.join(givers)}; {_PROXY}"))
        return asked, findings
    wrong = range_faults(asked, own)
    findings += [Finding(Kind.FAULT, fault, "", ExitStatus.USAGE) for fault in wrong]
    if givers:
        what = f"another DHCP server answers: {', '.join(givers)}; two of them give nodes wrong addresses"
        findings.append(Finding(Kind.FAULT, what, "--dhcp proxy stands beside it; or stop it", ExitStatus.REFUSED))
    elif others is None and unheard:
        findings.append(_not_asked(unheard))
    elif others is not None and not wrong:
        findings.append(Finding(Kind.OK, f"no other DHCP server answers; {asked} is given out"))
    return asked, findings


def _chosen(
    findings: list[Finding],
    others: Sequence[OtherServer] | None,
    givers: Sequence[str],
    own: IPv4Interface,
    *,
    unheard: str,
    is_dynamic: bool,
) -> tuple[str, list[Finding]]:
    if givers or is_dynamic:
        who = f"answers: {', '.join(givers)}" if givers else "gave this interface its address"
        return "proxy", [*findings, Finding(Kind.NOTE, f"a DHCP server {who}; {_PROXY}")]
    if others is None:
        return "none", [*findings, _not_asked(unheard or "a server runs already")]
    if not (chosen := choose_range(own)):
        what = f"no DHCP server answers, and {own.network} has no room for addresses to give out"
        return "none", [*findings, Finding(Kind.FAULT, what, "--dhcp FIRST-LAST, or none", ExitStatus.USAGE)]
    what = f"no other DHCP server answers: {chosen} is given out"
    return chosen, [
        *findings,
        Finding(Kind.NOTE, what, "--dhcp FIRST-LAST chooses others; static addresses lie outside"),
    ]


def _not_asked(why: str) -> Finding:
    what = f"whether another DHCP server is there could not be seen: {why}"
    return Finding(Kind.FAULT, what, "--dhcp proxy or --dhcp none needs no look", ExitStatus.REFUSED)
