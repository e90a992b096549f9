"""A server in this process over a real store: real signatures, real packs, the server's own verifier, no network."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agentbench.server import FakeServer
from cloner_agent.capture.job import CaptureOptions, capture
from cloner_agent.protocol import ServerFault
from cloner_core.errors import ClonerError, NotFoundError
from cloner_core.image.digest import parse_digest
from cloner_core.image.packmap import PackRef
from cloner_core.messages import Fault, PlanReport, VersionRef
from cloner_core.steps import BootFiles
from cloner_server.api.faults import http_status
from cloner_server.catalog import Catalog, Part, Version
from cloner_server.store.local import LocalSink, LocalStore
from cloner_server.verified import Verifier


class Key:
    """An Ed25519 key that signs for the store."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


BOOT_FILES = BootFiles(
    esp="/boot/efi", root_uuid="", boot_uuid="", boot_path="/boot", root="UUID=x", root_part_uuid="x"
)
"""What plans of these tests say of the boot."""


class StoreServer(FakeServer):
    """Serves one image out of a store in a directory."""

    def __init__(self, directory: Path, golden: Path) -> None:
        super().__init__()
        self.key = Key()
        self.store = LocalStore(directory, self.key)
        capture(golden, LocalSink(self.store), CaptureOptions(image="debian", architecture="x86_64"))
        self.catalog = Catalog(self.store)
        self.ref: VersionRef = self.catalog.version_ref("debian", 1)
        self.version: Version = self.catalog.find(self.ref)

    def verify(self, version_digest: str) -> None:
        self._heard("verify")
        try:
            asyncio.run(Verifier(self.catalog).verify(self.version))
        except ClonerError as error:
            raise _fault(error) from error

    def confirm_plan(self, report: PlanReport) -> None:
        super().confirm_plan(report)
        try:
            asyncio.run(Verifier(self.catalog).require_bootable(self.version, BOOT_FILES, "x86_64"))
        except ClonerError as error:
            raise _fault(error) from error

    def root(self, version_digest: str) -> bytes:
        return self._part(Part.ROOT, version_digest)

    def segment(self, digest: str, limit_bytes: int) -> bytes:
        return self._part(Part.SEGMENT, digest)

    def pack_map(self, digest: str) -> bytes:
        return self._part(Part.PACK_MAP, digest)

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        """Give a pack as `PackSource` does."""
        return self._part(Part.PACK, pack.digest.hex()), self._part(Part.PLACEMENT, pack.digest.hex())

    def pack_paths(self) -> list[Path]:
        """Return the files of the version's packs."""
        return [self.store.pack_path(digest) for digest in self.version.packs]

    def _part(self, part: Part, digest: str) -> bytes:
        try:
            found = self.catalog.locate(self.version, part, parse_digest(digest))
            return found if isinstance(found, bytes) else found.read_bytes()
        except (NotFoundError, FileNotFoundError) as error:
            raise ServerFault(HTTPStatus.NOT_FOUND, Fault(error=str(error), status=3)) from error


def _fault(error: ClonerError) -> ServerFault:
    return ServerFault(http_status(error), Fault(error=error.message, hint=error.hint, status=error.exit_status))
