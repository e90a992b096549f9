"""Reads an initramfs as the kernel does: cpio archives one after the other, some of them compressed.

Pure and bounded: bytes in, names and small files out; nothing is unpacked to anywhere. Whatever it claims of itself,
only so much is decompressed. Source: kernel, init/initramfs.c and
Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cloner_core.decompression import DAMAGES, Decoder, decoder_of
from cloner_core.errors import IntegrityError
from cloner_core.kernelmodules import module_name

MAX_RAW_BYTES = 4 << 30
MAX_ENTRIES = 500_000
MAX_KEPT_BYTES = 256 << 10  # of one file whose content is wanted
_PIECE_BYTES = 1 << 20
_PATH_BYTES = 4096  # PATH_MAX
_HEADER_BYTES = 110
_TRAILER = b"TRAILER!!!"
_MODULE = re.compile(r"(?:usr/)?lib/modules/([^/]+)/.*?([^/]+)\.ko(?:\.(?:gz|xz|zst))?")


class InitrdError(IntegrityError):
    """It is no initramfs, or one that the kernel would not unpack whole."""


@dataclass(slots=True)
class Initrd:
    """What is in an initramfs."""

    files: set[str] = field(default_factory=set)  # paths without a leading slash
    kept: dict[str, bytes] = field(default_factory=dict)  # the content of those that were wanted
    raw_bytes: int = 0  # decompressed, headers and padding included

    def modules(self, release: str) -> frozenset[str]:
        """Return the kernel modules it has for `release`, spelt with "_"."""
        found = (_MODULE.fullmatch(path) for path in self.files)
        return frozenset(module_name(match[2]) for match in found if match and match[1] == release)

    def has_program(self, name: str) -> bool:
        """Tell whether a program of this name is in it."""
        return any(f"{folder}/{name}" in self.files for folder in ("usr/sbin", "usr/bin", "sbin", "bin"))


def read_initrd(
    pieces: Iterable[bytes], wanted: Callable[[str], bool] = lambda _: False, *, most_bytes: int = MAX_RAW_BYTES
) -> Initrd:
    """Return what the initramfs that `pieces` make up holds, with the content of the files that are `wanted`.

    Raises InitrdError when it is cut off, of a compression that is not known, or of more than `most_bytes` unpacked.
    """
    found = Initrd()
    source = _Source(iter(pieces))
    budget = _Budget(raw_bytes=most_bytes)
    while magic := _magic(source):
        if magic.startswith(b"0707"):
            reader = _Cpio(found, wanted, budget)
            while (data := source.take()) and not (rest := reader.feed(data)):
                pass
            source.give_back(rest if data else b"")
            reader.end()
            continue
        reader = _Cpio(found, wanted, budget)
        decoder = decoder_of(magic)
        if decoder is None:
            raise InitrdError(f"the initramfs goes on with {magic.hex(' ')}, which is no compression known here")
        for raw in _decompressed(decoder, source):
            if reader.feed(raw):
                raise InitrdError("a compressed part of the initramfs is no cpio archive")
        reader.end()
    if not found.files:
        raise InitrdError("the initramfs is empty")
    found.raw_bytes = most_bytes - budget.raw_bytes
    return found


class _Source:
    """The pieces, with what was read too far given back."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def take(self) -> bytes:
        """Return the next bytes; b"" at the end."""
        if self._left:
            data, self._left = self._left, b""
            return data
        return next((piece for piece in self._pieces if piece), b"")

    def give_back(self, data: bytes) -> None:
        """Have `data` come next."""
        self._left = data + self._left

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end."""
        while len(self._left) < count and (piece := next((one for one in self._pieces if one), b"")):
            self._left += piece
        return self._left[:count]


@dataclass(slots=True)
class _Budget:
    raw_bytes: int
    entries: int = MAX_ENTRIES


def _magic(source: _Source) -> bytes:
    """Pass over the zeros between archives and return how the next part begins; b"" at the end."""
    while data := source.take():
        if stripped := data.lstrip(b"\0"):
            source.give_back(stripped)
            return source.peek(6)
    return b""


class _Cpio:
    """Takes a stream of newc archives; several may follow each other with zeros between."""

    def __init__(self, found: Initrd, wanted: Callable[[str], bool], budget: _Budget) -> None:
        self._found = found
        self._wanted = wanted
        self._budget = budget
        self._held = b""
        self._skip = 0
        self._place = 0  # bytes taken since the archive began: fields are aligned to 4 of them
        self._is_between = True
        self._name = ""
        self._content: bytearray | None = None

    def feed(self, data: bytes) -> bytes:
        """Take `data`; returns what is no cpio any more, which can only follow the end of an archive."""
        self._budget.raw_bytes -= len(data)
        if self._budget.raw_bytes < 0:
            raise InitrdError("the initramfs is larger unpacked than any machine would take")
        data = self._held + data
        self._held = b""
        at = 0
        while at < len(data):
            if self._skip:
                piece = min(self._skip, len(data) - at)
                if self._content is not None:
                    self._content += data[at : at + piece]
                self._skip -= piece
                self._place += piece
                at += piece
                continue
            self._close_file()
            if self._is_between:
                at = _after_zeros(data, at)
                if at < len(data) and data[at] != 0x30:  # "0", as the kernel tells a header
                    return data[at:]
                self._place = 0
                if at == len(data):
                    break
            used = self._header(data, at)
            if not used:
                self._held = data[at:]
                break
            at += used
            self._place += used
        return b""

    def end(self) -> None:
        """Raise InitrdError when the stream ended in the middle of an archive."""
        if not self._skip:
            self._close_file()
        if self._skip or self._held or not self._is_between:
            raise InitrdError("the initramfs is cut off")

    def _header(self, data: bytes, at: int) -> int:
        """Take the header and the name at `at`; returns the bytes used, 0 when they are not all there yet."""
        padding = -self._place % 4
        start = at + padding
        if len(data) < start + _HEADER_BYTES:
            return 0
        header = data[start : start + _HEADER_BYTES]
        if header[:6] not in (b"070701", b"070702"):
            raise InitrdError("the initramfs has something else where a cpio header must be")
        try:
            size, name_size = int(header[54:62], 16), int(header[94:102], 16)
            mode = int(header[14:22], 16)
        except ValueError as error:
            raise InitrdError("a cpio header of the initramfs has no numbers in it") from error
        if not 1 <= name_size <= _PATH_BYTES:
            raise InitrdError(f"a name of {name_size} bytes in the initramfs")
        end = start + _HEADER_BYTES + name_size
        end += -(self._place + padding + _HEADER_BYTES + name_size) % 4
        if len(data) < end:
            return 0
        name = data[start + _HEADER_BYTES : start + _HEADER_BYTES + name_size].rstrip(b"\0")
        self._is_between = name == _TRAILER
        self._budget.entries -= 1
        if self._budget.entries < 0:
            raise InitrdError(f"the initramfs has more than {MAX_ENTRIES} entries")
        self._skip = 0 if self._is_between else size
        if not self._is_between:
            self._note(name.decode("utf-8", "backslashreplace"), mode, size)
        return end - at

    def _note(self, name: str, mode: int, size: int) -> None:
        path = name.removeprefix(".").strip("/") if name.startswith("./") else name.lstrip("/")
        if mode & 0o170000 == 0o040000:
            return
        self._found.files.add(path)
        if mode & 0o170000 == 0o100000 and size <= MAX_KEPT_BYTES and self._wanted(path):
            self._name, self._content = path, bytearray()

    def _close_file(self) -> None:
        if self._content is not None:
            self._found.kept[self._name] = bytes(self._content)
            self._content = None


def _after_zeros(data: bytes, at: int) -> int:
    rest = data[at : at + 4096].lstrip(b"\0")
    while not rest and at < len(data):
        at += 4096
        rest = data[at : at + 4096].lstrip(b"\0")
    return min(at + len(data[at : at + 4096]) - len(rest), len(data))


def _decompressed(decoder: Decoder, source: _Source) -> Iterator[bytes]:
    """Give what `decoder` makes of `source`, in pieces; what follows its end is given back."""
    while not decoder.eof:
        data = source.take() if decoder.needs_input else b""
        if not data and decoder.needs_input:
            if decoder.may_end:
                return
            raise InitrdError("the initramfs is cut off")
        try:
            raw = decoder.decompress(data, _PIECE_BYTES)
        except DAMAGES as error:
            raise InitrdError(f"the initramfs is damaged: {error}") from error
        if raw:
            yield raw
    source.give_back(decoder.unused_data)
