"""/etc/hosts of a clone."""

from __future__ import annotations


def hosts_content(old: bytes, hostname: str, old_hostname: str = "") -> bytes:
    """Return /etc/hosts with this node at 127.0.1.1 and the golden node's name gone; other lines stay."""
    short = hostname.partition(".")[0]
    names = hostname if hostname == short else f"{hostname} {short}"
    own = f"127.0.1.1\t{names}".encode()
    former = {name.encode() for name in (old_hostname, old_hostname.partition(".")[0]) if name} - {b"localhost"}
    lines, place = [], None
    for line in old.splitlines() or [b"127.0.0.1\tlocalhost", b"::1\tlocalhost ip6-localhost ip6-loopback"]:
        words = line.partition(b"#")[0].split()
        if words[:1] == [b"127.0.1.1"]:
            continue
        kept = _without(line, words, former)
        if kept is not None:
            lines.append(kept)
        if words[:1] == [b"127.0.0.1"] and place is None:
            place = len(lines)
    lines.insert(0 if place is None else place, own)
    return b"\n".join(lines) + b"\n"


def _without(line: bytes, words: list[bytes], former: set[bytes]) -> bytes | None:
    """Return a loopback `line` without the names in `former`; None when nothing but its address remains."""
    if not words or words[0] not in (b"127.0.0.1", b"::1") or not former & set(words[1:]):
        return line
    kept = [word for word in words[1:] if word not in former]
    return words[0] + b"\t" + b" ".join(kept) if kept else None
