"""What no pack holds: directories, files without data, links, devices, and the metadata of files of several packs."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

import msgspec

from cloner_agent.restore.errors import failed
from cloner_agent.restore.metadata import AT_CREATION, LOCKING, finish, lock, make_special, set_flags
from cloner_agent.restore.placer import create_file, write_at, write_file
from cloner_agent.restore.table import SpilledTree
from cloner_agent.rooted import Rooted
from cloner_core.errors import IntegrityError
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.limits import DIGEST_BYTES


def make_skeleton(rooted: Rooted, spilled: SpilledTree) -> None:
    """Make every directory, open to root only until the end; one that is there (a mount point) is left."""
    creation_flags: dict[bytes, int] = {}
    for number in spilled.directories():
        inode = spilled.table.inode(number)
        path = inode.path
        if not path:
            continue
        try:
            parent, name = rooted.entry(path)
            try:
                os.mkdir(name, 0o755 if spilled.table.is_on_esp(path) else 0o700, dir_fd=parent)
            except FileExistsError:
                rooted.directory(path)  # refuses a link or file in its place
            flags = inode.flags & AT_CREATION
            if flags or creation_flags.get(path.rpartition(b"/")[0]):
                # A directory inherits these from its parent, so they are also to be cleared while it is empty.
                creation_flags[path] = flags
                set_flags(rooted.directory(path), flags, AT_CREATION, path)
        except OSError as error:
            raise failed("make the directory", path, error) from error


class Packless:
    """What no pack holds, made bit by bit while the packs come: files without data, symbolic links, devices, fifos."""

    def __init__(self, rooted: Rooted, spilled: SpilledTree, done: memoryview) -> None:
        """Take the target, the tree, and where to note by number which files are complete."""
        self._rooted = rooted
        self._done = done
        self._table = spilled.table
        self._numbers = spilled.packless
        self._made = 0

    def make(self, part: int, whole: int) -> None:
        """Make what is missing of that `part` of the `whole`; all of it when they are the same."""
        wanted = len(self._numbers) * part // whole if whole else len(self._numbers)
        for number in self._numbers[self._made : wanted]:
            inode = self._table.inode(number)
            if inode.kind is Kind.FILE:
                write_file(self._rooted, inode, (), is_on_esp=self._table.is_on_esp(inode.path))
                self._done[number] = 1
            else:
                make_special(self._rooted, inode)
        self._made = max(self._made, wanted)


def finish_files(rooted: Rooted, spilled: SpilledTree, done: memoryview, parts: Mapping[int, int]) -> None:
    """Give the files that no one pack completed their size and metadata.

    `done` tells by number which files are complete, `parts` how many chunks of the others were written. Raises
    IntegrityError when content is missing.
    """
    for number, kind in enumerate(spilled.kinds):
        if kind == Kind.FILE and not done[number]:
            inode = spilled.table.inode(number)
            _finish_file(rooted, inode, parts.get(number, 0), is_on_esp=spilled.table.is_on_esp(inode.path))


def _finish_file(rooted: Rooted, inode: Inode, written: int, *, is_on_esp: bool) -> None:
    wanted = len(inode.chunks) // DIGEST_BYTES
    if wanted != written:
        raise IntegrityError(f"{inode.path!r} got {written} of its {wanted} chunks: the placements are not complete")
    try:
        fd = rooted.open(inode.path, os.O_WRONLY | os.O_NOFOLLOW, follow=False)
        try:
            os.ftruncate(fd, inode.size)  # a hole at the end
            if not is_on_esp:
                finish(fd, inode)
        finally:
            os.close(fd)
    except OSError as error:
        raise failed("finish", inode.path, error) from error


def make_links(rooted: Rooted, spilled: SpilledTree) -> int:
    """Make the hard links; return how many. Where the layout has their names on two filesystems, one gets a copy."""
    count = 0
    for number, kind in enumerate(spilled.kinds):
        if kind != Kind.LINK:
            continue
        inode = spilled.table.inode(number)
        leader = spilled.table.inode(inode.leader)
        try:
            source, source_name = rooted.entry(leader.path)
            target, target_name = rooted.entry(inode.path)
            try:
                _link(source, source_name, target, target_name)
            except FileExistsError:
                os.unlink(target_name, dir_fd=target)
                _link(source, source_name, target, target_name)
        except OSError as error:
            if error.errno == errno.EXDEV:
                _copy(rooted, leader, inode.path)
                continue
            raise failed(f"link to /{os.fsdecode(leader.path)}", inode.path, error) from error
        count += 1
    return count


def _link(source: int, source_name: bytes, target: int, target_name: bytes) -> None:
    os.link(source_name, target_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


def _copy(rooted: Rooted, leader: Inode, path: bytes) -> None:
    """Make `path` a file like `leader`, which lies on another filesystem."""
    copy = msgspec.structs.replace(leader, path=path)
    if leader.kind is not Kind.FILE:
        make_special(rooted, copy)
        return
    try:
        source = rooted.open(leader.path, os.O_RDONLY | os.O_NOFOLLOW, follow=False)
        try:
            fd = create_file(rooted, path)
            try:
                if leader.flags & AT_CREATION:
                    set_flags(fd, leader.flags, AT_CREATION, path)
                for offset, length in leader.spans():
                    _copy_span(source, fd, offset, length)
                os.ftruncate(fd, leader.size)
                finish(fd, copy)
            finally:
                os.close(fd)
        finally:
            os.close(source)
    except OSError as error:
        raise failed(f"copy /{os.fsdecode(leader.path)} to", path, error) from error
    if leader.flags & LOCKING:
        lock(rooted, copy)


def _copy_span(source: int, target: int, offset: int, length: int) -> None:
    end = offset + length
    while offset < end:
        data = os.pread(source, end - offset, offset)
        if not data:
            raise IntegrityError(f"a file of {end} bytes or more ends at {offset}")
        write_at(target, memoryview(data), offset)
        offset += len(data)


def finish_directories(rooted: Rooted, spilled: SpilledTree) -> dict[int, bytes]:
    """Give the directories their metadata, deepest first, now that nothing is made in them.

    Return one directory of each filesystem by device number: the target's need not be those of the source.
    """
    devices: dict[int, bytes] = {}
    for number in range(len(spilled.kinds) - 1, 0, -1):
        if spilled.kinds[number] != Kind.DIRECTORY:
            continue
        inode = spilled.table.inode(number)
        try:
            fd = rooted.directory(inode.path)
            devices[os.fstat(fd).st_dev] = inode.path
            if spilled.table.is_on_esp(inode.path):
                continue
            is_fat = spilled.table.is_esp_mount(inode.path) and is_fat_directory(rooted, fd)
        except OSError as error:
            raise failed("open the directory", inode.path, error) from error
        if not is_fat:
            finish(fd, inode)
    return devices


def is_fat_directory(rooted: Rooted, fd: int) -> bool:
    """Tell whether a directory lies on a FAT, which keeps no owner: one that is another device and refuses chown."""
    status = os.fstat(fd)
    if status.st_dev == os.fstat(rooted.fd).st_dev:
        return False
    try:
        os.setxattr(fd, "user.cloner", b"")
        os.removexattr(fd, "user.cloner")
    except OSError:
        return True
    return False


def lock_inodes(rooted: Rooted, spilled: SpilledTree) -> None:
    """Set the immutable and append-only flags, deepest first."""
    for number in reversed(spilled.late_flags):
        lock(rooted, spilled.table.inode(number))
