"""What lies between partitions and files: encrypted containers, and swap files in the clone.

Must not choose anything. A key is drawn here, lies in memory alone until the clone can be unlocked, and is in no plan
and no log.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
from pathlib import Path

from cloner_agent.attempt import Attempt
from cloner_agent.rooted import Rooted
from cloner_agent.stages.disks import wait_planned
from cloner_core.steps import LuksFormat, MakeSwapFile

_KEY_BYTES = 64
_SECTOR_BYTES = 512  # what cryptsetup counts --offset in
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # include/uapi/linux/fs.h, 64-bit
_NOCOW = 0x00800000
_FORMAT_S = 300


def make_encrypted(attempt: Attempt, action: LuksFormat) -> None:
    """Make a LUKS2 container with a key of random bytes, and open it; a partition beneath it is waited for."""
    wait_planned(attempt, (action.device,))
    run, key = attempt.tools.run, str(key_path(attempt.tools.keys, action.name))
    write_key(Path(key), secrets.token_bytes(_KEY_BYTES))
    # 512 random bits cannot be guessed, so a costly derivation would only cost time and memory
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", "sha256")
    shape = (
        *("--type", "luks2", "--uuid", action.uuid, "--sector-size", str(action.sector_bytes)),
        *("--offset", str(action.offset_bytes // _SECTOR_BYTES), "--cipher", "aes-xts-plain64", "--key-size", "512"),
    )
    head = ("cryptsetup", "luksFormat", "--batch-mode")
    run((*head, *shape, *cheap, "--key-file", key, action.device), timeout_s=_FORMAT_S)
    opened = ("cryptsetup", "open", "--type", "luks2", "--allow-discards", "--key-file", key)
    run((*opened, action.device, action.name), timeout_s=_FORMAT_S)


def key_path(keys: Path, name: str) -> Path:
    """Return where the first key of the mapping `name` lies, in the memory of this machine."""
    return keys / f"{name}.key"


def write_key(path: Path, content: bytes) -> None:
    """Write a key for programs to read, where no other user can."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def make_swap_file(attempt: Attempt, action: MakeSwapFile) -> None:
    """Make a swap file without holes; on btrfs also without copy-on-write, which must be said while it is empty."""
    with Rooted(attempt.tools.target) as tree:
        tree.mkdir(os.path.dirname(action.path))
        tree.unlink(action.path, missing_ok=True)
        fd = tree.open(action.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, follow=False)
        try:
            if action.filesystem == "btrfs":
                (flags,) = struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, b"\0" * struct.calcsize("i")))
                fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", flags | _NOCOW))
            os.posix_fallocate(fd, 0, action.size_bytes)
            # by descriptor: the path is the image's, and a link in it could lead elsewhere
            attempt.tools.run(("mkswap", "-U", action.uuid, f"/proc/{os.getpid()}/fd/{fd}"))
            os.fsync(fd)
        finally:
            os.close(fd)
