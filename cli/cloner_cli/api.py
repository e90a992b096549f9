"""The server as the command line sees it: typed requests, and every refusal as the error of its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import (
    ClonerError,
    ConflictError,
    ExitStatus,
    IntegrityError,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from cloner_core.messages import Fault

if TYPE_CHECKING:
    from cloner_cli.pacing import Pacer

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]  # None: left out
NOTHING: Query = {}
ANSWER_S = 60.0
"""Until a server that says nothing to a question counts as away."""
LONG_S = 600.0
"""The same for what it changes, or gathers from a whole image."""
AWAY_HERE = "is 'cloner serve' running? (another socket: --socket PATH or CLONER_SOCKET)"
AWAY_THERE = (
    "does 'cloner serve' run there, does a firewall let its TLS port through, is ca.pem beside node.toml its CA?"
)
_PIECE_BYTES = 1 << 20
_CLASSES: tuple[type[ClonerError], ...] = (
    NotFoundError,
    RefusedError,
    ConflictError,
    UnreachableError,
    IntegrityError,
    ClonerError,
)


def segment(text: str) -> str:
    """Return `text` as one segment of a path; raises InvalidError for what would lead to another path."""
    if text in ("", ".", "..") or "/" in text:
        raise InvalidError(f"'{text}' is not the name of anything")
    return quote(text, safe="")


class Api:
    """Requests to one server. Safe for several threads."""

    def __init__(self, client: httpx2.Client, where: str, author: str, *, away_hint: str = AWAY_HERE) -> None:
        """Take an open client; `where` names the server to a person, `author` goes into the audit."""
        self._client = client
        self._where = where
        self._away_hint = away_hint
        self._headers = {"cloner-author": author.encode("ascii", "replace").decode()}

    def get(self, path: str, kind: type[T], query: Query = NOTHING, *, within_s: float | None = ANSWER_S) -> T:
        """Return the answer to GET `path`; the server must not be silent for longer than `within_s`; None: for ever."""
        return self._decode(self._send("GET", path, query, within_s=within_s).content, kind)

    def post(
        self,
        path: str,
        kind: type[T],
        body: object = None,
        query: Query = NOTHING,
        *,
        is_long: bool = False,
        within_s: float = LONG_S,
    ) -> T:
        """Return the answer to POST; `body` is sent as JSON. A long request is waited for without end."""
        content = None if body is None else msgspec.json.encode(body)
        waits_s = None if is_long else within_s
        return self._decode(self._send("POST", path, query, content, within_s=waits_s).content, kind)

    def patch(self, path: str, kind: type[T], body: object, query: Query = NOTHING) -> T:
        """Return the answer to PATCH."""
        return self._decode(self._send("PATCH", path, query, msgspec.json.encode(body)).content, kind)

    def delete(self, path: str, kind: type[T], query: Query = NOTHING) -> T:
        """Return the answer to DELETE."""
        return self._decode(self._send("DELETE", path, query).content, kind)

    def get_bytes(self, path: str, query: Query = NOTHING, *, within_s: float = LONG_S) -> bytes:
        """Return the body of the answer to GET `path` as it came."""
        return self._send("GET", path, query, within_s=within_s).content

    def get_lines(self, path: str, kind: type[T], query: Query = NOTHING) -> Iterator[T]:
        """Give the answer to GET `path` line by line as it comes; between two lines the server may take its time."""
        timeout = httpx2.Timeout(10.0, read=LONG_S)
        with (
            self._reaching(),
            self._client.stream("GET", path, params=_params(query), headers=self._headers, timeout=timeout) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
                raise _error(answer)
            for line in answer.iter_lines():
                yield self._decode(line.encode(), kind)

    @contextmanager
    def get_stream(self, path: str, query: Query = NOTHING) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Give the length of the answer to GET `path`, and its pieces as they come.

        Raises UnreachableError for an answer that is cut off.
        """
        timeout = httpx2.Timeout(10.0, read=LONG_S)
        with (
            self._reaching(),
            self._client.stream("GET", path, params=_params(query), headers=self._headers, timeout=timeout) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
                raise _error(answer)
            yield int(answer.headers.get("content-length", 0)), answer.iter_bytes(_PIECE_BYTES)

    def put_bytes(self, path: str, content: bytes, query: Query = NOTHING, pacer: Pacer | None = None) -> None:
        """Send `content` as it is, at the rate of `pacer`; doing it twice is no harm."""
        self._send("PUT", path, query, content, media_type="application/octet-stream", pacer=pacer)

    def post_bytes(self, path: str, content: bytes, kind: type[T], media_type: str, *, is_long: bool = False) -> T:
        """Send `content` as it is, and return the answer, which to a long request is waited for without end."""
        waits_s = None if is_long else LONG_S
        answer = self._send("POST", path, NOTHING, content, media_type=media_type, within_s=waits_s)
        return self._decode(answer.content, kind)

    def _send(
        self,
        method: str,
        path: str,
        query: Query,
        content: bytes | None = None,
        *,
        media_type: str = "application/json",
        within_s: float | None = LONG_S,  # None: however long
        pacer: Pacer | None = None,
    ) -> httpx2.Response:
        headers = self._headers | ({"content-type": media_type} if content is not None else {})
        body: bytes | Iterator[bytes] | None = content
        if content is not None and pacer is not None:
            headers["content-length"] = str(len(content))
            body = pacer.pieces(content)
        timeout = httpx2.Timeout(10.0, read=within_s)
        with self._reaching():
            answer = self._client.request(
                method, path, params=_params(query), content=body, headers=headers, timeout=timeout
            )
        if answer.status_code >= 400:
            raise _error(answer)
        return answer

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TimeoutException as fault:
            raise UnreachableError(f"the server at {self._where} took too long to answer") from fault
        except httpx2.TransportError as fault:
            if _is_forbidden(fault):
                raise RefusedError(f"{self._where} is for root alone", hint="run the command as root") from fault
            raise UnreachableError(
                f"the server at {self._where} does not answer: {fault}", hint=self._away_hint
            ) from fault

    def _decode(self, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind)
        except UNREADABLE as fault:
            raise ClonerError(
                f"the answer of the server cannot be read: {fault}",
                hint="the server and this command are of different versions",
            ) from fault


def _is_forbidden(fault: BaseException | None) -> bool:
    """Whether the kernel kept us from the socket; the client wraps its error several times."""
    while fault is not None and not isinstance(fault, PermissionError):
        fault = fault.__cause__ or fault.__context__
    return fault is not None


def _params(query: Query) -> dict[str, str]:
    texts = {name: value for name, value in query.items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in texts.items()}


def _error(answer: httpx2.Response) -> ClonerError:
    try:
        fault = msgspec.json.decode(answer.content, type=Fault)
    except UNREADABLE:
        return ClonerError(f"the server answered {answer.status_code} and no reason")
    if fault.status == ExitStatus.USAGE:
        return InvalidError(fault.error, faults=fault.faults, hint=fault.hint)
    kind = next((kind for kind in _CLASSES if kind.exit_status == fault.status), ClonerError)
    return kind("\n  - ".join((fault.error, *fault.faults)), hint=fault.hint)
