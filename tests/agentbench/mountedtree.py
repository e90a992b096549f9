"""A clone that is mounted and can run programs: this machine's own are its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentbench.loop import target_directory
from cloner_agent.host import run


@contextmanager
def mounted_tree(directory: Path) -> Iterator[Path]:
    """Give a filesystem with this machine's /usr in it, read-only, and another one mounted at /boot."""
    with target_directory(directory) as root:
        run(("mount", "-t", "tmpfs", "tmpfs", str(root)))
        for name in ("proc", "dev", "sys", "run", "tmp", "etc", "root", "usr", "boot", "var/tmp"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        run(("mount", "--bind", "-o", "ro", "/usr", str(root / "usr")))
        run(("mount", "-t", "tmpfs", "tmpfs", str(root / "boot")))
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000::/:/bin/sh\n")
        yield root
        # Not lazily: what still uses it is a program that outlived its run.
        run(("umount", "--recursive", str(root)))
