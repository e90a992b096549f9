"""Names nobody should ask TFTP for: a file that is not on the list is never sent, whatever it is called."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cloner_pxe.tftp import TftpService
from soak.law import Case, Figures, Law, require

_LISTED = {"snponly.efi": b"loader", "grub/x86_64-efi/core.efi": b"core", "autoexec.ipxe": b"script"}
_SECRET = b"this must not leave"
_PIECES = (
    b"..",
    b".",
    b"/",
    b"//",
    b"\\",
    b"\0",
    b"%2e%2e%2f",
    b"..%c0%af",
    b"~",
    b"C:",
    b"secret",
    b"vault.key",
    b"snponly.efi",
    b"grub",
    b"x86_64-efi",
    b"core.efi",
    b"etc/passwd",
    b"\xff",
    b" ",
    b"\n",
    b"SNPONLY.EFI",
    b"file://",
    b"link",
)
_TAILS = (b"\0octet\0", b"\0OCTET\0", b"\0netascii\0", b"\0octet\0blksize\x001432\0tsize\x000\0", b"\0mail\0", b"\0")
_DATA, _ERROR, _OACK = 3, 5, 6
_WAIT_S = 5.0


@contextmanager
def open_tftp_names(work: Path) -> Iterator[Case]:
    """Serve three files of a directory that holds more; a case asks once, on loopback."""
    for name, content in _LISTED.items():
        (work / "boot" / name).parent.mkdir(parents=True, exist_ok=True)
        (work / "boot" / name).write_bytes(content)
    for path in (work / "vault.key", work / "boot" / "secret", work / "boot" / "grub" / "secret"):
        path.write_bytes(_SECRET)
    (work / "boot" / "link").symlink_to(work / "vault.key")
    files = {name: work / "boot" / name for name in _LISTED}
    service = TftpService(files, lambda event: None, address="127.0.0.1", port=0)
    service.start()
    try:
        yield lambda seed: _ask(service.port, seed)
    finally:
        service.stop()


def _ask(port: int, seed: int) -> Figures:
    chance = random.Random(seed)
    name = _name(chance)
    with ExitStack() as stack:
        client, witness = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
        for opened in (client, witness):
            opened.settimeout(_WAIT_S)
            opened.bind(("127.0.0.1", 0))
        server = ("127.0.0.1", port)
        client.sendto(b"\0\1" + name + chance.choice(_TAILS), server)
        witness.sendto(b"\0\1nothing\0octet\0", server)
        # One thread answers in turn: when the witness has its answer, the client has had its own, or gets none.
        require(struct.unpack("!HH", witness.recv(2048)[:4]) == (_ERROR, 1), "the witness was not refused")
        client.settimeout(0.0)
        try:
            answer, peer = client.recvfrom(2048)
        except BlockingIOError:
            return {"answer": "none"}
        opcode = int.from_bytes(answer[:2], "big")
        require(_SECRET not in answer, f"{name!r} gave the secret")
        if opcode == _ERROR:
            return {"answer": "refused"}
        asked = name.split(b"\0")[0].lstrip(b"/").decode("ascii")
        require(asked in _LISTED, f"{name!r} is not on the list and was answered by {opcode}")
        if opcode == _OACK:
            client.settimeout(_WAIT_S)
            client.sendto(struct.pack("!HH", 4, 0), peer)
            answer = client.recv(2048)
        require(answer == struct.pack("!HH", _DATA, 1) + _LISTED[asked], f"{name!r} gave other bytes than its file's")
        client.sendto(struct.pack("!HH", 4, 1), peer)
        return {"answer": "served"}


def _name(chance: random.Random) -> bytes:
    """Return pieces put together, or the name of a listed file, changed or not."""
    if chance.random() < 0.5:
        return b"".join(chance.choices(_PIECES, k=chance.randint(1, 8)))
    name = bytearray(chance.choice(list(_LISTED)).encode())
    for _ in range(chance.choice((0, 1, 1, 2))):
        at = chance.randrange(len(name) + 1)
        name[at : at + chance.randrange(2)] = chance.choice((chance.choice(_PIECES), chance.randbytes(1)))
    return bytes(name)


LAW = Law("tftp-names", "TFTP sends the files on its list and nothing else, whatever the name", 10_000, open_tftp_names)
