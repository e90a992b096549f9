"""Packs and placement records over HTTPS, for the workers of a restore: each thread has a connection of its own.

Must not verify: a pack is checked against its digest by whoever writes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus

from cloner_agent.client import Endpoint, Transport
from cloner_agent.failures import StageError
from cloner_agent.protocol import ServerFault
from cloner_agent.session import API
from cloner_core.image.packmap import PackRef
from cloner_core.messages import Cause, Secret

_READ_S = 30.0
_PLACEMENT_BYTES = 64 << 20  # 20 bytes an entry; one chunk may stand in a million files


class HttpsPackSource:
    """Implements `PackSource`; opens nothing before its first use, so that fork may carry it."""

    def __init__(
        self,
        endpoint: Endpoint,
        credential: Secret,
        version_digest: str,
        connect: Callable[[Endpoint], Transport] = Transport,
    ) -> None:
        self._endpoint = endpoint
        self._credential = credential
        self._version = version_digest
        self._connect = connect
        self._local = threading.local()

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        """Return (stored bytes, placement record) of a pack; waits for a server that is away.

        Raises StageError (MISSING_PACK) when the server does not have it, UnreachableError when patience ended.
        """
        name = pack.digest.hex()
        return self._get(f"packs/{name}", pack.stored_size), self._get(f"placements/{name}", _PLACEMENT_BYTES)

    def _get(self, what: str, limit_bytes: int) -> bytes:
        transport: Transport | None = getattr(self._local, "transport", None)
        if transport is None:
            transport = self._local.transport = self._connect(self._endpoint)
        path = f"{API}/versions/{self._version}/{what}"
        try:
            return transport.request("GET", path, credential=self._credential, limit_bytes=limit_bytes, read_s=_READ_S)
        except ServerFault as error:
            if error.http_status == HTTPStatus.NOT_FOUND:
                raise StageError(Cause.MISSING_PACK, f"the server does not have {what} any more") from error
            raise
