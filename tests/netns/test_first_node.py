"""Every command of docs/first-node.md, typed as it stands there. systemd is not there: its unit is run as it would."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from cloner_initramfs import Cache, default_cache
from netns.page_reader import INSTALL, Page, Reader
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

PAGE = Page(CHECKOUT / "docs/first-node.md")
START, DEPLOY = "systemctl enable --now cloner", "cloner deploy --nodes node01 --wait"
INIT = "cloner init --interface eth1 --installer /var/lib/cloner-installer"
IMPORT = "cloner node import /etc/cloner/nodes.csv --image debian --disklayout one-disk"
ANSWERS = {
    # command: what it must answer, as a pattern
    f"{INIT} --dry-run": r"server\.toml: would be made(.|\n)*installer would be built(.|\n)*next:",
    INIT: r"^dhcp +10\.77\.0\.100-10\.77\.0\.199$(.|\n)*cloner\.service: made",
    START: r"^CLONER READY",
    "cloner status": r"dhcp 10\.77\.0\.100-10\.77\.0\.199 on eth1",
    "cloner disklayout-upload --disklayout one-disk --file /etc/cloner/one-disk.yaml": r"one-disk",
    "rsync -aHAXS --numeric-ids --one-file-system root@golden:/ /srv/golden/": r"\A\Z",
    "cloner new-image --root /srv/golden --image debian --disklayout one-disk --message 'first'": r"debian:1 ",
    "cloner node add node01 --mac 52:54:00:12:34:56 --address 10.77.0.11/24 --groups rack1 "
    "--image debian --disklayout one-disk": r"added node01",
    "cloner deploy --nodes node01 --dry-run": r"node01: debian:1 with layout one-disk:1",
    "cloner identity node01": r"==> /etc/hostname(.|\n)*node01",
    DEPLOY: r"Destroy the disks of 1 node\?(.|\n)*node01 .*done",
    "cloner receipt show node01": r"^confirmed +\d{4}-",
    "cloner plan node01": r"DESTROYS what is on /dev/vda",
    "cloner node show node01": r"^groups +rack1$",
    "cloner known-hosts": r"^@cert-authority \S*node01\S* ssh-",
    f"{IMPORT} --dry-run": r"would be: 2 added",
    IMPORT: r"^node03 +added +52:54:00:12:34:58 +10\.77\.0\.13/24 +debian +one-disk +rack1",
    "cloner node list --nodes @rack1": r"node01(.|\n)*node02(.|\n)*node03",
    "cloner deploy --nodes @rack1 --dry-run": r"node03: debian:1",
    "cloner group protect rack1": r"rack1 \(3 nodes\) is protected",
}


@pytest.fixture
def reader() -> Iterator[Reader]:
    cache = Cache(default_cache())
    with Lab(title="first-node") as lab:
        build_installer(cache, lab.directory / "downloaded", drivers="full")  # no mirror can be reached from inside
        made = Reader(lab, golden_busybox(cache))
        made.sit_down()
        made.type(INSTALL)
        yield made


def test_every_command_of_the_page_is_known_and_its_links_lead_somewhere() -> None:
    assert [" ".join(command.split()) for command in PAGE.commands()] == list(ANSWERS)
    assert PAGE.dead_links() == []


def test_what_the_page_says_to_type_works_in_its_order(reader: Reader) -> None:
    files = PAGE.saved_files()
    assert list(files) == ["/etc/cloner/one-disk.yaml", "/etc/cloner/nodes.csv"]
    runs = {START: reader.start_unit, DEPLOY: reader.deploy}
    for command, wanted in zip(PAGE.commands(), ANSWERS.values(), strict=True):
        for path in [path for path in files if path in command]:
            reader.save(files.pop(path), path)
        answer = runs.get(command, reader.type)(command)
        assert re.search(wanted, answer, re.M), f"{command} answered:\n{answer}"
    assert (
        reader.attempt("cloner deploy --nodes node02 --yes").returncode == 4
    )  # "nothing destroys a node of the group"
    reader.stop()
