"""A tree with everything a filesystem can hold that copies lose, and foreign tools to compare two of them."""

from __future__ import annotations

import fcntl
import os
import random
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20


def run(*argv: str | bytes, cwd: Path | None = None) -> str:
    """Run a foreign tool and return what it printed; names that are no UTF-8 survive."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, f"{argv}: {done.stderr.decode(errors='replace')[:2000]}"
    return done.stdout.decode(errors="surrogateescape")


@contextmanager
def ext4(directory: Path, size_bytes: int = 512 * MIB) -> Iterator[Path]:
    """Give the mount point of a new ext4 in `directory`; everything is gone afterwards."""
    directory.mkdir(parents=True, exist_ok=True)
    image, mount = directory / "ext4.img", directory / "mnt"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    try:
        run("mkfs.ext4", "-q", "-O", "^has_journal,ea_inode", "-i", "16384", str(image))
        run("mount", "-o", "loop", str(image), str(mount))
        try:
            yield mount
        finally:
            run("umount", str(mount))
    finally:
        image.unlink()


@contextmanager
def small_disk(at: Path, size: str, *, inodes: int = 0) -> Iterator[Path]:
    """Mount a filesystem of `size` (as mount(8) takes it for tmpfs) at a new directory; it is gone afterwards."""
    at.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}" + (f",nr_inodes={inodes}" if inodes else ""), "tmpfs", str(at))
    try:
        yield at
    finally:
        run("umount", str(at))


def make_torture(root: Path) -> None:
    """Fill `root`, on ext4, as root."""
    seed = random.Random(2)
    top = os.fsencode(root)

    def at(name: bytes | str) -> bytes:
        path = top + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def write(name: bytes | str, data: bytes = b"x", mode: int = 0o644) -> bytes:
        path = at(name)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
        return path

    for name in (
        b"\xff\xfe not utf-8 \x80",
        b"new\nline",
        b"tab\tquote'\"\\",
        "ünïcode".encode(),
        b" ",
        b"-rf",
        b"...",
    ):
        write(b"names/" + name, name)
    write(b"names/" + b"n" * 255, b"255")
    write(b"/".join([b"names", *[b"L" * 240] * 13, b"leaf"]), b"deep by length")
    write(b"/".join([b"names", *[b"d"] * 300, b"leaf"]), b"deep by number")
    for label in ("a", "a.b", "a-b", "a+/x", "aa/x"):  # sorted by component and as plain strings they differ
        write(f"order/{label}", label.encode())

    for size in (0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 9 * MIB):
        write(f"sizes/{size}", seed.randbytes(size))
    same = seed.randbytes(300_000)
    write("sizes/same-1", same)
    write("sizes/same-2", same)
    write("sizes/zeros", bytes(2 * MIB))

    block = seed.randbytes(65536)
    for label, layout, size in (
        ("start", [(MIB, block)], MIB + 65536),
        ("middle", [(0, block), (3 * MIB, block[::-1])], 3 * MIB + 65536),
        ("end", [(0, block)], 5 * MIB),
        ("only", [], 8 * MIB),
        ("both", [(2 * MIB - 4096, block[:8192])], 4 * MIB + 123),
        ("many", [(number * 131072, seed.randbytes(4096)) for number in range(64)], 64 * 131072),
        ("wide", [(40 * MIB, b"far away")], 40 * MIB + 4096),
    ):
        path = write(f"sparse/{label}", b"")
        with open(path, "r+b") as file:
            for offset, data in layout:
                file.seek(offset)
                file.write(data)
            file.truncate(size)
    path = write("sparse/preallocated", b"data")
    fd = os.open(path, os.O_RDWR)
    os.posix_fallocate(fd, 0, 200_000)
    os.close(fd)

    for size in (10, 3 * MIB):
        first = write(f"links/a/{size}", seed.randbytes(size))
        os.link(first, at(f"links/b/{size}-2"))
        os.link(first, at(f"zz-links/{size}-3"))
    os.symlink("x", at("links/sym"))
    os.link(at("links/sym"), at("links/sym-2"), follow_symlinks=False)
    os.mkfifo(at("links/fifo"))
    os.link(at("links/fifo"), at("links/fifo-2"))

    for label, target in (
        ("dangling", "nowhere/at/all"),
        ("absolute", "/etc/passwd"),
        ("climbing", "../../../../../../etc/passwd"),
        ("to-directory", "../names"),
        ("long", "l" * 4000),
    ):
        os.symlink(target, at(f"symlinks/{label}"))
    os.symlink(b"\xff\x01", at("symlinks/bytes"))
    os.chown(at("symlinks/dangling"), 1000, 2000, follow_symlinks=False)
    os.utime(at("symlinks/absolute"), ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    os.setxattr(at("symlinks/climbing"), "trusted.link", b"on a link", follow_symlinks=False)

    for label, kind, device in (
        ("null", stat.S_IFCHR, (1, 3)),
        ("disk", stat.S_IFBLK, (259, 1_000_000)),
        ("zero-zero", stat.S_IFCHR, (0, 0)),
    ):
        os.mknod(at(f"devices/{label}"), kind | 0o600, os.makedev(*device))
        os.chmod(at(f"devices/{label}"), 0o4640 if label == "disk" else 0o666)
    os.mkfifo(at("devices/fifo"), 0o622)
    os.setxattr(at("devices/null"), "trusted.device", b"\0\1")
    os.chown(at("devices/fifo"), 7, 8)
    _add_metadata(top, at, write, seed)


def _add_metadata(
    top: bytes, at: Callable[[bytes | str], bytes], write: Callable[..., bytes], seed: random.Random
) -> None:
    for mode in (0o0, 0o4755, 0o2755, 0o6711, 0o1777, 0o444, 0o7777):
        os.chown(write(f"modes/{mode:o}"), 1000, 1001)
        os.chmod(at(f"modes/{mode:o}"), mode)
        os.mkdir(at(f"modes/d{mode:o}"))
        write(f"modes/d{mode:o}/inside")
        os.chmod(at(f"modes/d{mode:o}"), mode)
    os.chown(write("modes/big-ids"), 4_294_967_294, 4_000_000_000)

    run("setcap", "cap_net_raw,cap_net_admin+ep", write("caps/ping", b"\x7fELF", 0o755))
    os.chown(write("caps/owned", b"\x7fELF"), 33, 33)
    run("setcap", "cap_net_bind_service+ep", at("caps/owned"))
    os.setxattr(write("xattrs/user"), "user.text", b"value")
    os.setxattr(at("xattrs/user"), "user.empty", b"")
    os.setxattr(at("xattrs/user"), "user.binary", bytes(range(256)))
    os.setxattr(at("xattrs/user"), "trusted.root", b"trusted")
    os.setxattr(at("xattrs/user"), b"user.\xff\xfe", b"name is no utf-8")
    os.setxattr(at("xattrs/user"), "security.selinux", b"system_u:object_r:etc_t:s0\0")
    os.setxattr(write("xattrs/large"), "user.large", seed.randbytes(40_000))
    os.setxattr(at("xattrs"), "user.on-directory", b"yes")
    write("xattrs/empty-file", b"")
    os.setxattr(at("xattrs/empty-file"), "user.e", b"1")

    write("acls/file")
    os.mkdir(at("acls/default"))
    os.mkdir(at("acls/both"))
    run("setfacl", "-m", "u:1234:rw,g:4321:r,m::rw", at("acls/file"))
    run("setfacl", "-m", "u:99:---,m::r", write("acls/masked", b"x", 0o640))
    run("setfacl", "-d", "-m", "u:1234:rwx,g::r-x,o::---", at("acls/default"))
    run("setfacl", "-m", "u:5:rwx", "-d", "-m", "g:6:r-x", at("acls/both"))
    for label in ("acls/default/inherits", "acls/default/sub/inherits"):
        write(label)
    run("setfacl", "-b", write("acls/default/without"))

    for label, flags in (("immutable", "+i"), ("append", "+a"), ("nodump", "+d"), ("noatime", "+A"), ("sync", "+S")):
        run("chattr", flags, write(f"flags/{label}", b"flagged"))
    os.mkdir(at("flags/directory"))
    write("flags/directory/inside")
    run("chattr", "+i", at("flags/directory"))
    os.mkdir(at("flags/inherited"))
    run("chattr", "+dA", at("flags/inherited"))
    write("flags/inherited/has-them")
    run("chattr", "-dA", write("flags/inherited/has-not"))

    times = {"past": -1_500_000_000_123_456_789, "before": -1, "epoch": 0, "late": 4_102_444_800_000_000_001}
    for label, mtime_ns in times.items():
        os.utime(write(f"times/{label}"), ns=(mtime_ns, mtime_ns))
    for label in ("times/directory", "empty-directory"):
        os.mkdir(at(label))
        os.utime(at(label), ns=(1, 987_654_321_987_654_321))
    os.utime(at("times"), ns=(5, 1_000_000_000_000_000_007))
    os.mkdir(at("read-only"))
    write("read-only/file")
    os.chmod(at("read-only"), 0o555)
    write("boot/efi/EFI/debian/grubx64.efi", seed.randbytes(5000))
    os.chmod(top, 0o711)
    os.setxattr(top, "user.root", b"of the tree")
    os.utime(top, ns=(0, 1_600_000_000_000_000_001))


def holes_of(root: Path) -> dict[bytes, list[tuple[int, int]]]:
    """Return the data ranges of each sparse file, as the filesystem tells them."""
    result: dict[bytes, list[tuple[int, int]]] = {}
    for directory, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                continue
            fd = os.open(path, os.O_RDONLY)
            try:
                ranges, position = [], 0
                while position < status.st_size:
                    try:
                        start = os.lseek(fd, position, os.SEEK_DATA)
                    except OSError:
                        break
                    position = os.lseek(fd, start, os.SEEK_HOLE)
                    ranges.append((start, position))
                # Preallocated space is data to SEEK_DATA once it was read, so it is not compared.
                if ranges != [(0, status.st_size)] and not path.endswith(b"preallocated"):
                    result[os.path.relpath(path, os.fsencode(root))] = ranges
            finally:
                os.close(fd)
    return result


def mtree_of(root: Path) -> str:
    """Return what mtree(8) says: type, mode, owner, links, size, device, times to the nanosecond, content."""
    keywords = "type,mode,uid,gid,nlink,size,link,device,time,sha256"
    with tempfile.NamedTemporaryFile() as excluded:
        excluded.write(b"./lost+found\n")  # made by mkfs, at its own time
        excluded.flush()
        text = run("mtree", "-c", "-x", "-k", keywords, "-X", excluded.name, "-p", str(root))
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def _sorted(text: str) -> str:
    """Sort paragraphs, one for each file: these tools follow the order of the directory."""
    return "\n\n".join(sorted(text.split("\n\n")))


def getfattr_of(root: Path) -> str:
    return _sorted(run("getfattr", "-R", "-h", "-P", "-d", "-m", "-", "-e", "hex", ".", cwd=root))


def getfacl_of(root: Path) -> str:
    return _sorted(run("getfacl", "-R", "-n", "-P", "--absolute-names", ".", cwd=root))


def lsattr_of(root: Path) -> str:
    """Return the flags of every file and directory; the index flag is ext4's own business."""
    lines = run("lsattr", "-aR", ".", cwd=root).splitlines()
    kept = [line for line in lines if line and "lost+found" not in line]
    return "\n".join(sorted(line.replace("I", "-", 1) if line[:1] == "-" else line for line in kept))


def rsync_differences(source: Path, target: Path) -> str:
    """Return what rsync would do to make `target` equal to `source`; nothing when they are."""
    options = ("-aHAXSn", "--numeric-ids", "--checksum", "--delete", "--itemize-changes", "--exclude=/lost+found")
    return run("rsync", *options, f"{source}/", f"{target}/")


def clear_locks(root: Path) -> None:
    """Take immutable and append-only flags away, so that a tree can be removed."""
    request = 0x40006602 | struct.calcsize("l") << 16
    for directory, _, names in os.walk(os.fsencode(root)):
        for path in [directory, *(os.path.join(directory, name) for name in names)]:
            if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                fcntl.ioctl(fd, request, struct.pack("I4x", 0x80000))  # extents alone
                os.close(fd)
