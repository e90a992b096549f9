"""What the content of a file tells: each reader takes the start of a file and says what is there, or nothing.

Pure. What a reader says is shown and kept with the version: never a word of a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Reader = Callable[[bytes], str | None]
"""Takes the file's first bytes; returns what is seen there ("" when the path says it all), None for no finding."""

_BEGIN = re.compile(
    rb"-{4,5} ?BEGIN ((?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?|OpenVPN Static key V1) ?-{4,5}[ \t\r]*$",
    re.MULTILINE,
)
_OTHER_KEYS = {
    b"PuTTY-User-Key-File-": "PuTTY private key",
    b"AGE-SECRET-KEY-1": "age secret key",
    b"# created: ": "",  # age-keygen's first line; the key comes below
    b"== ed25519v1-secret: ": "Tor service key",
}
_DER_SEQUENCE = b"\x30"
_ELF, _ET_CORE = b"\x7fELF", b"\x04\x00"  # e_type at 16, elf(5)
# A value that is there: no variable, no placeholder, no reference, no comment.
_VALUE = rb"[ \t]*[\"']?(?![$<*#{%])[^\s\"',;]"
_BASE64_KEY = rb"[ \t]*[\"']?[A-Za-z0-9+/]{43}="
_IDENTIFIED = rb"(?:sd[a-z]{1,3}|hd[a-z]|vd[a-z]{1,2}|xvd[a-z]{1,2})\d{0,3}|(?:nvme\d+n\d+|mmcblk\d+)(?:p\d+)?"
_DEVICE = re.compile(rb"(?<![\w/.-])/dev/(?:" + _IDENTIFIED + rb")(?![\w-])")
_DEVICES_TOLD = 5
_TYPED = re.compile(
    rb"""(?ix)
    \b sshpass \s+ -p \s* [^\s$]
    | \b \w{0,40} (?:password|passwd|passphrase|secret|token|api_?key|access_?key) \s* = \s* ["']? [^\s"'$<*(]{4}
    | \b curl \b [^\n]{0,400} \s (?:-u|--user) [\s=]? \s* [^\s:$]+ : [^\s$]
    | authorization: \s* (?:bearer|basic) \s+ [^\s$"']
    | \b [a-z+]{2,12} :// [^\s:/@$]+ : [^\s@$/]+ @
    | \b (?:mysql|mysqldump|mariadb|mysqladmin) \b [^\n]{0,400} \s -p [^\s$]
    """
)


def private_key(head: bytes) -> str | None:
    """Tell a private key by the first line that is not empty."""
    line = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")[0]
    if match := _BEGIN.match(line):
        return match[1].decode()
    for mark, what in _OTHER_KEYS.items():
        if line.startswith(mark) and (what or b"\nAGE-SECRET-KEY-1" in head):
            return what or "age secret key"
    return None


def key_within(head: bytes) -> str | None:
    """Tell a private key anywhere in a file of certificates and keys, or in an OpenVPN profile."""
    match = _BEGIN.search(head)
    return match[1].decode() if match else None


def pkcs12(head: bytes) -> str | None:
    """Tell a PKCS #12 container, which has a private key as a rule; its suffix is known to the caller."""
    return "PKCS #12" if head[:1] == _DER_SEQUENCE else None


def core_dump(head: bytes) -> str | None:
    """Tell a core dump of a program by its ELF header."""
    return "core dump" if head[:4] == _ELF and head[16:18] == _ET_CORE else None


def typed_secret(head: bytes) -> str | None:
    """Tell a history in which a password or token was typed."""
    found = sum(1 for _ in _TYPED.finditer(head))
    return f"{found} command{'s' * (found != 1)} with a password or token" if found else None


def setting(names: bytes, separator: bytes = rb"[ \t]*[=:]", value: bytes = _VALUE) -> Reader:
    """Return a reader that looks for a line which sets one of `names`, a regular expression, to a value."""
    pattern = re.compile(rb"^[ \t]*(?:- )?[\"']?(?:" + names + rb")[\"']?" + separator + value, re.MULTILINE | re.I)
    return lambda head: "" if pattern.search(head) else None


def matching(pattern: bytes) -> Reader:
    """Return a reader that looks for a regular expression; ^ is the start of a line."""
    compiled = re.compile(pattern, re.MULTILINE)
    return lambda head: "" if compiled.search(head) else None


def any_of(*readers: Reader) -> Reader:
    """Return a reader that says what the first of `readers` says that finds anything."""

    def read(head: bytes) -> str | None:
        return next((seen for reader in readers if (seen := reader(head)) is not None), None)

    return read


def base64_key(names: bytes) -> Reader:
    """Return a reader for the keys of WireGuard, which are no names of files."""
    return setting(names, value=_BASE64_KEY)


def devices(head: bytes) -> str | None:
    """Tell the disks and partitions that lines which are no comments call by the order in which they were found."""
    found: dict[bytes, None] = {}
    for line in _lines(head):
        found |= dict.fromkeys(_DEVICE.findall(line))
    shown = [name.decode() for name in found][:_DEVICES_TOLD]
    return ", ".join(shown) + (" …" if len(found) > _DEVICES_TOLD else "") if found else None


def fstab_passwords(head: bytes) -> str | None:
    """Tell an fstab with a password among its options (mount.cifs(8))."""
    lines = [line.split() for line in _lines(head)]
    options = [option for fields in lines if len(fields) > 3 for option in fields[3].split(b",")]
    return "" if any(re.match(rb"pass(?:word)?=.", option) for option in options) else None


def fstab_credentials(text: bytes) -> Iterator[bytes]:
    """Give the files of credentials that an fstab names (mount.cifs(8)), from the root, without a leading slash."""
    for line in _lines(text):
        fields = line.split()
        for option in fields[3].split(b",") if len(fields) > 3 else ():
            name, _, path = option.partition(b"=")
            if name in (b"credentials", b"cred") and path.startswith(b"/"):
                yield path.strip(b"/")


def crypttab_keys(text: bytes) -> Iterator[bytes]:
    """Give the key files that a crypttab(5) names, from the root, without a leading slash."""
    for line in _lines(text):
        fields = line.split()
        key = fields[2].partition(b":")[0] if len(fields) > 2 else b""
        if key.startswith(b"/") and not key.startswith((b"/dev/", b"/run/", b"/proc/", b"/sys/")):
            yield key.strip(b"/")


def home_directories(passwd: bytes) -> Iterator[bytes]:
    """Give the home directories of a passwd(5), without a leading slash; of people and of services."""
    for line in passwd.splitlines():
        fields = line.split(b":")
        if len(fields) > 5 and fields[5].startswith(b"/"):
            yield fields[5].strip(b"/")


def _lines(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
