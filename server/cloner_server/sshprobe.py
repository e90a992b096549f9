"""Asks a machine's SSH port who it is: one connection, half a key exchange, nothing logged in to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cloner_core.sightings import SshAnswer
from cloner_server.hostproof import PACKET_BYTES, VERSION, Exchange, HostProof, NoProofError, payload_of

log = logging.getLogger(__name__)

PORT = 22
_WHOLE_S = 8.0  # a machine that has just booted answers slowly
_LINES = 50  # RFC 4253 §4.2: a server may say something before its version


@dataclass(frozen=True, slots=True)
class Expected:
    """Whom we look for."""

    publics: tuple[str, ...]  # host keys of the vault, one line each without comment
    authority: str  # the site's SSH CA, one line
    key_id: str  # of the certificates of this very attempt


@dataclass(frozen=True, slots=True)
class Found:
    """What answered, and where; the address is "" where nothing did."""

    answer: SshAnswer
    address: str = ""


Connect = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def _connect(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(address, port, limit=PACKET_BYTES)


async def look(addresses: Sequence[str], expected: Expected, *, port: int = PORT, connect: Connect = _connect) -> Found:
    """Return the best answer of all `addresses`, asked at once."""

    async def ask(address: str) -> Found:
        try:
            return await _ask(address, port, expected, connect)
        except Exception:  # whatever one machine says must not cost the proof of another
            log.exception("what %s answers by SSH is not understood", address)
            return Found(SshAnswer.NO_PROOF, address)

    found = await asyncio.gather(*map(ask, addresses))
    return max(found, key=lambda one: one.answer, default=Found(SshAnswer.SILENT))


async def _ask(address: str, port: int, expected: Expected, connect: Connect) -> Found:
    try:
        async with asyncio.timeout(_WHOLE_S):
            reader, writer = await connect(address, port)
    except ConnectionRefusedError:
        return Found(SshAnswer.REFUSED, address)
    except OSError:  # TimeoutError among them
        return Found(SshAnswer.SILENT)
    try:
        async with asyncio.timeout(_WHOLE_S):
            return Found(judge(await _prove(reader, writer, expected.authority), expected), address)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, NoProofError):
        return Found(SshAnswer.NO_PROOF, address)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def judge(proof: HostProof, expected: Expected) -> SshAnswer:
    """Return what a proof is worth: only the certificate of this attempt tells the clone from what was there before."""
    if proof.public not in expected.publics:
        return SshAnswer.OTHER_KEY
    return SshAnswer.CLONE if proof.key_id == expected.key_id else SshAnswer.KEY


async def _prove(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> HostProof:
    writer.write(VERSION + b"\r\n")
    exchange = Exchange(authority)
    writer.write(exchange.begin(await _version(reader)))
    while exchange.proof is None:
        length = int.from_bytes(await reader.readexactly(4))
        if not 2 <= length <= PACKET_BYTES:
            raise NoProofError(f"a packet of {length} bytes")
        writer.write(exchange.answer(payload_of(await reader.readexactly(length))))
    return exchange.proof


async def _version(reader: asyncio.StreamReader) -> bytes:
    for _ in range(_LINES):
        line = (await reader.readuntil(b"\n")).rstrip(b"\r\n")
        if line.startswith(b"SSH-"):
            return line
    raise NoProofError("it talks, and not SSH")
