"""A golden node that is a tree: a root directory in a network namespace of its own, on the lab's network.

What it has is what the test puts there. Its processes see that tree alone, with /proc and the few devices of /dev.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from netns.netboot_lab import CLIENT_LINK
from vmlab.lab import Lab

ADDRESS = "10.77.0.2/24"
# What the line and the script want of a machine, and what a shell does.
APPLETS = (
    "cat chmod chroot cp cut date df dirname echo env find gzip grep head id ln ls mkdir mktemp mv printf ps readlink",
    "rm rmdir sed sha256sum sh sleep tail tar test touch uname wc",
)
_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_PYTHON_36 = """\
#!/bin/sh
echo called >>/python-was-called
case $1 in
  --version | -V) echo 'Python 3.6.8' ;;
  *) echo 'SyntaxError: invalid syntax' >&2; exit 1 ;;
esac
"""


@dataclass(frozen=True)
class GoldenTree:
    """A tree and the namespace it lives in."""

    lab: Lab
    root: Path
    shell: Sequence[str] = ("/bin/sh",)

    def connect(self) -> None:
        """Give the node its address."""
        self.lab.run(["ip", "address", "add", ADDRESS, "dev", CLIENT_LINK])

    def paste(
        self, line: str, *, environment: Mapping[str, str] = _NOTHING, before: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Type a line into a shell of root; the shell reads it from standard input, as from a terminal."""
        argv = self.argv(environment, before)
        return subprocess.run(argv, input=f"{line}\n", capture_output=True, text=True, timeout=200, check=False)

    def type(self, line: str) -> str:
        """Type a line that must end well; return its stdout."""
        done = self.paste(line)
        assert done.returncode == 0, f"{line}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def argv(self, environment: Mapping[str, str] = _NOTHING, before: str = "") -> list[str]:
        """Return what runs a shell there, its mounts going with it; `before` mounts more, in the tree's directory."""
        words = [f"{name}={value}" for name, value in {"PATH": _PATH, "HOME": "/root", **environment}.items()]
        mounts = (
            'set -e; cd "$0"; mount -t proc proc proc; mount -t tmpfs -o mode=755 tmpfs dev;'
            "for device in null zero urandom; do : >dev/$device; mount --bind /dev/$device dev/$device; done;"
            f'{before}\nexec chroot "$0" "$@"'
        )
        inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, str(self.root)]
        return self.lab.inside([*inside, "/bin/env", "-i", *words, *self.shell])

    def files(self) -> frozenset[str]:
        """Return every path of the tree."""
        return frozenset(
            os.path.relpath(os.path.join(directory, name), self.root)
            for directory, folders, names in os.walk(self.root)
            for name in (*folders, *names)
        )


def make_busybox(root: Path, *more: str) -> None:
    """Make a tree with nothing but a static busybox, under the names of a few of its applets and `more`."""
    for folder in ("bin", "dev", "etc", "proc", "root", "tmp", "usr/bin", "var/lib"):
        (root / folder).mkdir(parents=True)
    shutil.copy2("/usr/bin/busybox", root / "bin/busybox")
    for name in (*" ".join(APPLETS).split(), *more):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/hostname").write_text("golden\n")
    (root / "etc/motd").write_text("a tree of its own\n")


def make_curl(root: Path) -> None:
    """Make a tree with busybox and curl, which brings a C library along."""
    make_busybox(root)
    _take_program(root, "/usr/bin/curl")


def make_old_python(root: Path) -> None:
    """Make a tree with bash as its shell, nothing that fetches, and a `python3` that says it is 3.6.

    There is no 3.6 to be had where the tests run: this one notes each call, and fails at whatever it is given.
    """
    make_busybox(root)
    (root / "bin/sh").unlink()
    _take_program(root, "/usr/bin/bash")
    (root / "bin/bash").symlink_to("../usr/bin/bash")
    (root / "bin/sh").symlink_to("bash")
    for name in ("python3", "python3.6"):
        (root / "usr/bin" / name).write_text(_PYTHON_36)
        (root / "usr/bin" / name).chmod(0o755)


def _take_program(root: Path, program: str) -> None:
    """Copy a program of this machine, with the libraries it asks for."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for path in (program, *(word for word in told.split() if word.startswith("/"))):
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, root / path.lstrip("/"))
