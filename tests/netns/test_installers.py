"""An installer from a golden tree to a node: typed with a token over TLS, offered by boot HTTP, also after a kill."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner_core.errors import ExitStatus
from cloner_core.initrd import read_initrd
from initramfsbench.node_parts import RELEASE, kernel_part
from netns.test_remote_capture import Golden
from serverbench.served import Served

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="the server needs root")]
MAC = "52:54:00:00:00:01"


@pytest.fixture
def golden(tmp_path: Path) -> Iterator[Golden]:
    served = Served(tmp_path)
    served.start()
    served.fill()
    etc, tree = tmp_path / "etc", tmp_path / "tree"
    etc.mkdir()
    home = tree / "lib/modules" / RELEASE
    home.mkdir(parents=True)
    (tree / "boot").mkdir()
    (tree / f"boot/vmlinuz-{RELEASE}").write_bytes(kernel_part())
    (home / "modules.dep").write_text("")
    (home / "modules.builtin").write_text("kernel/fs/fat/vfat.ko\nkernel/drivers/block/loop.ko\n")
    (home / "modules.order").write_text("")
    yield Golden(served, etc, tree)
    served.stop()


def fetched(served: Served, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{served.http}{path}", timeout=60) as answer:
        content: bytes = answer.read()
        return content


def booted(served: Served) -> tuple[bytes, bytes]:
    """Return the kernel and the initramfs that the node is offered."""
    script = fetched(served, f"/boot/ipxe?mac={MAC.replace(':', '-')}&platform=efi").decode()
    urls = dict.fromkeys(re.findall(r"/boot/(?:kernel|initramfs)/\w+", script))
    kernel, initramfs = (fetched(served, url) for url in urls)
    return kernel, initramfs


def test_the_kernel_of_a_golden_tree_is_what_nodes_are_offered(golden: Golden) -> None:
    served = golden.served
    served.admin("POST", "/deploy", json={"nodes": ["n01"]})
    usual = booted(served)
    words = ("make-installer", "--root", str(golden.tree))
    golden.told(golden.token())
    refused = golden.cloner(*words, status=ExitStatus.REFUSED)
    assert "--installer site" in refused.stderr
    golden.told(golden.token(installers=["site"]))
    made = golden.cloner(*words)
    assert f"installer site: kernel {RELEASE}" in made.stdout
    kernel, initramfs = booted(served)
    assert kernel == kernel_part()
    base = (served.base / "installer/base.cpio.zst").read_bytes()
    assert initramfs.startswith(base), "the userland is the server's"
    own = read_initrd([initramfs[len(base) :]]).files
    assert {f"usr/lib/modules/{RELEASE}/modules.dep", "etc/cloner/ca.pem"} <= own
    served.kill()
    served.start()
    assert booted(served) == (kernel, initramfs)
    (golden.tree / f"boot/vmlinuz-{RELEASE}").write_bytes(kernel_part(b"newer"))
    assert "--overwrite" in golden.cloner(*words, status=ExitStatus.CONFLICT).stderr
    golden.cloner(*words, "--overwrite")
    assert booted(served)[0] == kernel_part(b"newer")
    assert served.admin("PATCH", "/installers/site", json={})["present"]["release"] == RELEASE
    assert booted(served) == (kernel, initramfs)
    assert usual[0] != kernel
