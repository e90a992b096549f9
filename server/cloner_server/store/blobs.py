"""Content-addressed files in a directory: put if absent, durable before the name exists, never half there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from cloner_core.errors import ConflictError, NotFoundError
from cloner_server.durable import sync_directory
from cloner_server.reserve import reserve_of
from cloner_server.store.protocol import StoreFullError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LOOK_AGAIN_S = 0.01  # captures that run leave the lock for moments only


class Files:
    """The directory of a store: how single files get into it, and the lock that keeps gc away from writers."""

    def __init__(self, root: Path, reserve_bytes: int = 0) -> None:
        """Take a directory and make it if it is missing.

        Nothing is begun that would leave less than `reserve_bytes` (a tenth of a small filesystem) free.
        """
        self.root = root
        self._reserve_bytes = reserve_bytes
        self.patience_s = 10.0
        self.temporary = root / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.damaged = root / "damaged"  # an empty file for each blob that was found so
        self._lock_path = root / "lock"
        if not self._lock_path.exists():  # who only reads changes nothing
            self._lock_path.touch(mode=0o600)

    @contextlib.contextmanager
    def locked(self, *, exclusive: bool = False) -> Iterator[None]:
        """Hold the store's lock: shared for writers, exclusive for gc. Each holder has a descriptor of its own.

        Raises ConflictError when it is wanted alone and others have it for `patience_s`: an export does for hours.
        """
        operation, within_s = (fcntl.LOCK_EX, self.patience_s) if exclusive else (fcntl.LOCK_SH, math.inf)
        with _flocked(self._lock_path, operation, within_s):
            yield

    @contextlib.contextmanager
    def numbering(self) -> Iterator[None]:
        """Hold what one has who gives a version its number, or takes a version away; within the store's lock, shortly.

        Not that lock itself: an export holds it for hours.
        """
        with _flocked(self.root / "numbers.lock", fcntl.LOCK_EX):
            yield

    def write_temporary(self, data: bytes | bytearray | memoryview, what: str) -> Path:
        """Write and sync a file without a name of its own yet; raises StoreFullError, leaving nothing behind."""
        path = self.temporary / f"{os.getpid()}-{secrets.token_hex(8)}"
        self._require_room(what, len(data))
        with self.room_for(what, len(data)):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            finally:
                os.close(fd)
        return path

    @contextlib.contextmanager
    def room_for(self, what: str, wanted: int) -> Iterator[None]:
        """Turn a full disk within the block into StoreFullError: of bytes, of inodes, also for a directory's entry."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise self._full(what, wanted) from error
            raise

    def space(self) -> tuple[int, int]:
        """Return what is used of the filesystem, and what may still be written: all that is free but the reserve."""
        status = os.statvfs(self.root)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        return used, max(0, status.f_bavail * status.f_frsize - reserve_of(status, self._reserve_bytes))

    def _require_room(self, what: str, wanted: int) -> None:
        if self._reserve_bytes:
            status = os.statvfs(self.root)
            reserve = reserve_of(status, self._reserve_bytes)
            if wanted + reserve > status.f_bavail * status.f_frsize:
                raise self._full(what, wanted, reserve)

    def _full(self, what: str, wanted: int, reserve: int = 0) -> StoreFullError:
        status = os.statvfs(self.root)
        free_bytes = status.f_bavail * status.f_frsize
        free = f"{free_bytes} free"
        if status.f_files and not status.f_favail:
            free += " but no inode left"
        if reserve:
            free += f", of which {reserve} are reserved for deploys that run"
        if (missing := wanted + reserve - free_bytes) > 0:
            free += f": {missing} bytes are missing"
        return StoreFullError(
            f"the store {self.root} has no room for {what}: {wanted} bytes wanted, {free}",
            hint="run 'cloner store gc', or enlarge the filesystem",
        )

    def replace(self, path: Path, data: bytes) -> None:
        """Make `path` have this content, durably, whatever it had."""
        temporary = self.write_temporary(data, str(path))
        try:
            with self.room_for(str(path), len(data)):
                make_directory(path.parent)
                os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)

    def create(self, path: Path, data: bytes) -> bool:
        """Make `path` with this content, durably and exclusively; return False when somebody else was first."""
        temporary = self.write_temporary(data, str(path))
        try:
            with self.room_for(str(path), len(data)):
                make_directory(path.parent)
                os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
        return True


class Blobs:
    """One kind of content-addressed file: KIND/ab/abcd… named by a digest."""

    def __init__(self, files: Files, kind: str, suffix: str = "") -> None:
        """Take the store's files, the name of the kind (also its directory) and a suffix for the names."""
        self._files = files
        self.kind = kind
        self._suffix = suffix
        self.directory = files.root / kind

    def path_of(self, name: bytes) -> Path:
        """Return where the blob is or would be."""
        digits = name.hex()
        return self.directory / digits[:2] / (digits + self._suffix)

    def put(self, name: bytes, data: bytes | bytearray) -> bool:
        """Keep a blob whose digest the caller has checked; return False when it was there, byte for byte."""
        path = self.path_of(name)
        with self._files.locked():
            if self.touch(name, len(data)) and path.read_bytes() == data:
                return False
            temporary = self._files.write_temporary(data, f"{self.kind} {name.hex()}")
            try:
                with self._files.room_for(f"{self.kind} {name.hex()}", len(data)):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.rename(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            self.say_whole(name)
        return True

    def touch(self, name: bytes, size: int) -> bool:
        """Have gc count its grace for a blob from now; return False when `has` does."""
        if not self.has(name, size):
            return False
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path_of(name))
            return True
        return False

    def has(self, name: bytes, size: int) -> bool:
        """Tell whether a blob is there with this size, and was not found damaged since it was put."""
        return self.size(name) == size and not self._damaged_path(name).exists()

    def say_damaged(self, name: bytes) -> None:
        """Have a blob count as absent, as it cannot be read or is not what its name says, until it is put again."""
        with contextlib.suppress(OSError):  # of a disk that takes no more: the next look finds it again
            self._damaged_path(name).parent.mkdir(exist_ok=True)
            self._damaged_path(name).touch()

    def say_whole(self, name: bytes) -> None:
        """Have a blob count as there."""
        with contextlib.suppress(OSError):
            self._damaged_path(name).unlink()

    def _damaged_path(self, name: bytes) -> Path:
        return self._files.damaged / name.hex()

    def size(self, name: bytes) -> int | None:
        """Return the size of a blob, None when it is absent."""
        try:
            return os.stat(self.path_of(name)).st_size
        except FileNotFoundError:
            return None

    def existing_path(self, name: bytes) -> Path:
        """Return the path of a blob; raises NotFoundError when it is absent."""
        path = self.path_of(name)
        if not path.is_file():
            raise NotFoundError(f"{self.kind} {name.hex()} is not in the store {self._files.root}")
        return path

    def read(self, name: bytes) -> bytes:
        """Return the content of a blob, digest unchecked; raises NotFoundError when it is absent."""
        return self.existing_path(name).read_bytes()

    def names(self) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
        """Give every blob's digest and directory entry; files with other names are passed over."""
        if not self.directory.is_dir():
            return
        for prefix in sorted(os.listdir(self.directory)):
            with os.scandir(self.directory / prefix) as entries:
                for entry in entries:
                    digits = entry.name.removesuffix(self._suffix)
                    try:
                        yield bytes.fromhex(digits), entry
                    except ValueError:
                        continue

    def sync(self, names: set[bytes]) -> None:
        """Make the directory entries of these blobs durable."""
        for prefix in {name.hex()[:2] for name in names}:
            sync_directory(self.directory / prefix)
        if names:
            sync_directory(self.directory)
            sync_directory(self._files.root)  # which the first blob of a kind gave a new entry


@contextlib.contextmanager
def _flocked(path: Path, operation: int, within_s: float = math.inf) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if within_s == math.inf:
            fcntl.flock(fd, operation)
        else:
            _take(fd, path, operation, within_s)
        yield
    finally:
        os.close(fd)


def _take(fd: int, path: Path, operation: int, within_s: float) -> None:
    until_s = time.monotonic() + within_s
    while True:
        try:
            return fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            if time.monotonic() >= until_s:
                raise ConflictError(
                    f"the store {path.parent} is in use for more than {within_s:g} s: a state export or 'store stats' "
                    "reads it, a capture is being published, or another gc runs",
                    hint=f"wait until that has ended, then once more; its process: fuser -v {path}",
                ) from fault
        time.sleep(_LOOK_AGAIN_S)


def make_directory(path: Path) -> None:
    """Make a directory and its missing parents, durably: an entry is lost with the directory that names it."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)
