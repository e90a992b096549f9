"""A disk that can lose its power, for this machine's own kernel: a file on FUSE, to be put under a loop device.

The kernel of a test machine may have no nbd, ublk or dm; loop and FUSE are enough. A flush of the loop device becomes
an fsync of the file and so reaches us, and nothing else makes its writes durable (kernel, drivers/block/loop.c,
lo_req_flush(); fs/fuse/file.c). We speak the kernel's protocol ourselves, in a process of our own, so that neither the
disk's user nor a program it starts can wait for itself.
Source: include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import multiprocessing
import os
import random
import select
import signal
import stat
import struct
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vmlab.errors import LabError
from vmlab.volatile import FileMedium, Loss, VolatileDisk

NAME = "disk"
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_MNT_DETACH = 2
_ROOT, _FILE = 1, 2  # node ids
_MOST_BYTES = 1 << 20  # of one write
_PAGES = _MOST_BYTES // 4096
_IN = struct.Struct("=IIQQIIIHH")
_OUT = struct.Struct("=IiQ")
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_PUNCH_HOLE, _ZERO_RANGE = 2, 16
_ANSWER_S = 60


class _Op(enum.IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43


@dataclass(frozen=True, slots=True)
class _Insert:
    file: str
    is_lying: bool


@dataclass(frozen=True, slots=True)
class _PowerOff:
    pass


@dataclass(frozen=True, slots=True)
class _PowerOn:
    chance: random.Random
    survival: float | None


class FuseDisk:
    """The mounted filesystem with its server process; a context manager. `file` is what a loop device is made over."""

    def __init__(self, directory: Path) -> None:
        """Take an empty directory to mount on. Needs root."""
        self.directory = directory
        self.file = directory / NAME
        self._process: Any = None
        self._pipe: Connection

    def __enter__(self) -> Self:
        """Mount, and start the server."""
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
        source, where = b"vmlab-disk", os.fsencode(self.directory)
        if _LIBC.mount(source, where, b"fuse", 0, options.encode()) != 0:
            number = ctypes.get_errno()
            os.close(fuse)
            raise LabError(f"FUSE cannot be mounted on {self.directory}: {os.strerror(number)}")
        self._process = context.Process(target=_serve, args=(fuse, theirs, self._pipe, os.getpid()), daemon=True)
        self._process.start()
        os.close(fuse)
        theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unmount, and end the server; the loop device must be gone before."""
        _LIBC.umount2(os.fsencode(self.directory), _MNT_DETACH)
        self._pipe.close()
        self._process.join(_ANSWER_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def insert(self, file: Path, *, is_lying: bool = False) -> None:
        """Serve this file from now on, with an empty cache; no loop device must be on the disk."""
        self._ask(_Insert(str(file), is_lying))

    def power_off(self) -> None:
        """Take the power away: what is written from now on goes nowhere.

        It is answered as if it were kept, so that what must be stopped and unmounted now does not fail.
        """
        self._ask(_PowerOff())

    def power_on(self, chance: random.Random, survival: float | None = None) -> Loss:
        """Serve what survived the loss of power; no loop device must be on the disk."""
        loss = self._ask(_PowerOn(chance, survival))
        assert isinstance(loss, Loss)
        return loss

    def _ask(self, what: object) -> object:
        self._pipe.send(what)
        if not self._pipe.poll(_ANSWER_S):
            raise LabError(f"the server of {self.directory} does not answer")
        return self._pipe.recv()


class _Server:
    """Answers the kernel and the owner, one request at a time."""

    def __init__(self) -> None:
        self._medium: FileMedium | None = None
        self._disk: VolatileDisk | None = None
        self._has_power = True
        self._unwritten_bytes = 0

    def obey(self, order: object) -> object:
        """Do what the owner wants and return the answer."""
        if isinstance(order, _Insert):
            if self._medium is not None:
                self._medium.close()
            self._medium = FileMedium(Path(order.file))
            self._disk = VolatileDisk(self._medium, is_lying=order.is_lying)
            self._has_power = True
        elif isinstance(order, _PowerOff):
            self._has_power = False
            self._unwritten_bytes = 0
        elif isinstance(order, _PowerOn):
            self._has_power = True
            assert self._disk is not None
            loss = self._disk.cut(order.chance, order.survival)
            return replace(loss, unwritten_bytes=self._unwritten_bytes)
        return None

    def answer(self, request: bytes) -> bytes | None:
        """Return what the kernel gets for a request; None when it waits for nothing."""
        _, op, unique, node, *_ = _IN.unpack_from(request)
        body = request[_IN.size :]
        if op in (_Op.FORGET, _Op.BATCH_FORGET, _Op.INTERRUPT):
            return None
        try:
            data = self._perform(op, node, body)
        except OSError as error:
            return _OUT.pack(_OUT.size, -(error.errno or errno.EIO), unique)
        except ValueError:
            return _OUT.pack(_OUT.size, -errno.EINVAL, unique)
        return _OUT.pack(_OUT.size + len(data), 0, unique) + data

    def _perform(self, op: int, node: int, body: bytes) -> bytes:
        if op == _Op.INIT:
            (readahead,) = struct.unpack_from("=I", body, 8)
            flags = _BIG_WRITES | _MAX_PAGES
            return struct.pack("=IIIIHHIIHHI28x", 7, 31, readahead, flags, 16, 12, _MOST_BYTES, 1, _PAGES, 0, 0)
        if op == _Op.LOOKUP:
            if body.rstrip(b"\0") != NAME.encode():
                raise FileNotFoundError(errno.ENOENT, "not here")
            return struct.pack("=QQQQII", _FILE, 0, 0, 0, 0, 0) + self._attributes(_FILE)
        if op in (_Op.GETATTR, _Op.SETATTR):
            return struct.pack("=QII", 0, 0, 0) + self._attributes(node)
        if op in (_Op.OPEN, _Op.OPENDIR):
            return struct.pack("=QII", node, 0, 0)
        if op in (_Op.RELEASE, _Op.RELEASEDIR, _Op.FLUSH, _Op.DESTROY):
            return b""
        return self._transfer(op, body)

    def _transfer(self, op: int, body: bytes) -> bytes:
        disk = self._disk
        if disk is None:
            raise OSError(errno.ENOMEDIUM, "no medium")
        if op == _Op.READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            length = min(size, disk.size_bytes - offset)
            return disk.read(offset, length) if length > 0 else b""
        if op == _Op.WRITE:
            _, offset, size = struct.unpack_from("=QQI", body)
            if self._has_power:
                disk.write(offset, body[40 : 40 + size])
            else:
                self._unwritten_bytes += size
            return struct.pack("=II", size, 0)
        if op == _Op.FSYNC:
            if self._has_power:
                disk.flush()
            return b""
        if op == _Op.FALLOCATE:
            _, offset, length, mode = struct.unpack_from("=QQQI", body)
            if not mode & (_PUNCH_HOLE | _ZERO_RANGE):
                raise OSError(errno.EOPNOTSUPP, "only holes")
            if self._has_power:
                disk.zero(offset, length)
            return b""
        raise OSError(errno.ENOSYS, "not served")

    def _attributes(self, node: int) -> bytes:
        is_file = node == _FILE
        size = self._disk.size_bytes if is_file and self._disk is not None else 0
        mode = stat.S_IFREG | 0o600 if is_file else stat.S_IFDIR | 0o700
        times = (0, 0, 0, 0, 0, 0)
        return struct.pack("=QQQQQQIIIIIIIIII", node, size, size // 512, *times, mode, 1, 0, 0, 0, 4096, 0)


def _serve(fuse: int, pipe: Connection, theirs: Connection, owner: int) -> None:
    """Be the server process, until the filesystem is unmounted and the owner has let go."""
    theirs.close()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = _Server()
    is_mounted = True
    while True:
        ready, _, _ = select.select([pipe.fileno(), fuse] if is_mounted else [pipe.fileno()], [], [])
        if pipe.fileno() in ready:
            try:
                pipe.send(server.obey(pipe.recv()))
            except EOFError:
                # What still lies in the kernel's queue has no listener any more.
                return
        if fuse in ready:
            try:
                request = os.read(fuse, _MOST_BYTES + 8192)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    is_mounted = False
                elif error.errno not in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    raise
                continue
            answer = server.answer(request)
            if answer is not None:
                try:
                    os.write(fuse, answer)
                except FileNotFoundError:  # the request was interrupted meanwhile
                    continue
