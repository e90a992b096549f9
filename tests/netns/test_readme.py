"""Every command of README.md, typed as it stands there.

A command that is new in the page is a failure until it is listed here, with what it must answer or what else runs it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from cloner_initramfs import Cache, build_kit, default_cache
from netns.netboot_lab import inside
from netns.page_reader import INSTALL, MAC, Page, Reader
from vmlab.golden_busybox import golden_busybox
from vmlab.head import CHECKOUT, build_installer
from vmlab.lab import Lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

README = Page(CHECKOUT / "README.md")
SERVE, DEPLOY = "cloner serve", "cloner deploy --nodes node01 --wait"

ELSEWHERE = {
    # command: the file that runs it, and what it says there
    "./run demo": ("vm-tests/test_demo.py", '"-m", "vmlab.demo"'),
    "./run setup": ("run", 'as_root test; need_apt "${APT_PYTHON[@]}" "${APT_LAB[@]}" "${APT_TEST[@]}"; need_venv'),
    "./run check": ("run", "nice -n 5 ./run check"),  # `./run test` begins with it
    "./run test": (".ci/run", "./run test"),
}
ANSWERS = {
    # command: what it must answer, as a pattern
    INSTALL: r"\A\Z",
    "cloner --version": r"\Acloner \d+\.\d+",
    "cloner initramfs build --drivers full --out /var/lib/cloner-installer": r"drivers-full .* MiB(.|\n)*a node needs",
    "cloner serve --interface eth1 --dhcp 10.77.0.100-10.77.0.199 --installer /var/lib/cloner-installer": (
        r"^CLONER READY"
    ),
    "cloner status": r"dhcp 10\.77\.0\.100-10\.77\.0\.199 on eth1",
    "cloner disklayout-upload --disklayout one-disk --file /etc/cloner/one-disk.yaml": r"one-disk",
    "rsync -aHAXS --numeric-ids --one-file-system root@golden:/ /srv/golden/": r"\A\Z",
    "cloner new-image --root /srv/golden --image debian --disklayout one-disk --message 'first'": (
        r"debian:1  [0-9a-f]{64}"
    ),
    "cloner image-list": r"debian:1 ",
    "cloner kit build": r"^kit [0-9a-f]{12}: .* MiB",
    "cloner token create --capture debian --disklayout one-disk --install-line": r"CLONER_TOKEN=\S{43} sh ",
    "cloner node add node01 --mac 52:54:00:12:34:56 --address 10.77.0.11/24 --image debian --disklayout one-disk": (
        r"added node01"
    ),
    "cloner deploy --nodes node01 --dry-run": r"node01: debian:1 with layout one-disk:1",
    DEPLOY: r"Destroy the disks of 1 node\?(.|\n)*node01 .*done",
    "cloner receipt show node01": r"^confirmed +\d{4}-",
    "cloner receipt show node01 --json > /srv/node01-receipt.json": r"\A\Z",
    "cloner receipt verify --file /srv/node01-receipt.json": r"is signed by [0-9a-f]{64}",
    "cloner plan node01": r"DESTROYS what is on /dev/vda(.|\n)*mkfs\.ext4",
    "cloner node show node01": r"^netboot +local$",
    "cloner events --object node/node01": r"node/node01",
    "cloner netboot --nodes node01 --set cloner-multicast": r"^node01 +cloner-multicast$",
    "cloner multicast-status": r"^node01 .*has not netbooted",
    "cloner multicast-image --image debian --nodes node01 --dry-run": (
        r"by multicast to 1 node, 239\.(.|\n)*DESTROYS /dev/"
    ),
    "cloner netboot --nodes node01 --set local": r"^node01 +local$",
    "cloner store check --read-data": r"^faults +none$",
    "cloner store gc": r"removed 0 files",
}


@pytest.fixture
def reader() -> Iterator[Reader]:
    cache = Cache(default_cache())
    with Lab(title="readme") as lab:
        build_installer(cache, lab.directory / "downloaded", drivers="full")  # no mirror can be reached from inside
        build_kit(cache)
        yield Reader(lab, golden_busybox(cache))


def test_every_command_of_the_readme_is_known_and_what_does_not_run_here_runs_elsewhere() -> None:
    told = README.commands()
    assert [command for command in told if command not in ANSWERS and command not in ELSEWHERE] == []
    assert [command for command in (*ANSWERS, *ELSEWHERE) if command not in told] == []
    for command, (file, words) in ELSEWHERE.items():
        assert words in (CHECKOUT / file).read_text(), f"{command} is run by {file} no more"


def test_the_links_of_the_readme_lead_somewhere() -> None:
    assert README.dead_links() == []


def test_what_the_readme_says_to_type_works_in_its_order(reader: Reader) -> None:
    reader.sit_down()
    files = README.saved_files()
    assert files
    for command in README.commands():
        if command in ELSEWHERE:
            continue
        for path in [path for path in files if path in command]:
            reader.save(files.pop(path), path)
        run = {SERVE: reader.start, DEPLOY: reader.deploy}.get(
            SERVE if command.startswith(SERVE) else command, reader.type
        )
        answer = run(command)
        assert re.search(ANSWERS[command], answer, re.M), f"{command} answered:\n{answer}"
    # "The node still asks the network first, and is sent on to its disk."
    with inside(reader.lab.name):
        assert reader.where.boot_script(MAC).rstrip().endswith("exit 1")
    reader.stop()  # "Ctrl-C stops it."
