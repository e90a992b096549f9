"""The command lines that ClusterVisor's users type, one after the other before the real server."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import msgspec
import pytest

from clibench.desk import Desk
from cloner_cli.commands import Command
from cloner_cli.cv import CLONER_VERBS, PROGRAMS, cv_cloner
from cloner_core.detection import Detected
from cloner_core.errors import ExitStatus
from cloner_core.layout import parse_layout
from cloner_initramfs.nodekernel import NodeKernel
from initramfsbench.node_parts import drivers_part, kernel_part
from serverbench.installers import with_shelf
from serverbench.scene import LAYOUT

SIMPLE = parse_layout(LAYOUT)
OK, REFUSED = ExitStatus.OK, ExitStatus.REFUSED
CHAPTER = (
    # Line, status, what is told. {tree} is the golden node's root, {file} a file beside it.
    ("cv-cloner new-image --server=head --image=node --disklayout=node --root {tree}", OK, "node:1"),
    ("cv-cloner new-image --server=head --image=node --disklayout=node --root {tree} --dry-run", OK, "not published"),
    ("cv-cloner update-filesystem --server=head --image=node --root {tree} --message=second", OK, "node:2"),
    ("cv-cloner update-filesystem --server=head --image=node --root {tree} --dry-run", OK, "not published"),
    ("cv-cloner update-filesystem --server=head --image=other --root {tree}", ExitStatus.NOT_FOUND, "other"),
    ("cv-cloner update-options --server=head --image=node --exclude-paths=/var/log/*", OK, "/var/log/*"),
    ("cv-cloner update-options --image=node --update-conflict=server", ExitStatus.USAGE, "--update-conflict"),
    (
        "cv-cloner update-filesystem --image=node --root {tree} --exclude-paths=/srv --update-conflict server",
        OK,
        "/srv",
    ),
    ("cv-cloner make-installer", OK, "installer site"),
    ("cv-cloner make-installer", ExitStatus.CONFLICT, "--overwrite"),
    ("cv-cloner make-installer --overwrite", OK, "installer site"),
    ("cv-cloner image-list", OK, "node:1"),
    ("cv-cloner image-list --server=head", OK, "node:1"),
    ("cv-cloner image-details --image=node", OK, "node:3"),
    ("cv-cloner config --image=node --disklayout=node", OK, "node:3"),
    ("cv-cloner disklayout --image=node --disklayout=node", OK, '"role": "root"'),
    ("cv-cloner disklayout --image=node --disklayout=node --output={file}", OK, ""),
    ("cv-cloner disklayout-upload --image=node --disklayout=other --file={file}", ExitStatus.USAGE, "'node'"),
    ("cv-cloner disklayout-upload --image=node --disklayout=node --file={file}", OK, "layout node:1"),
    ("cv-cloner update-disklayout --server=head --disklayout=node", OK, "layout node:1 is kept"),
    ("cv-cloner script --image=node --type=post --set={script}", OK, ""),
    ("cv-cloner script --image=node --list", OK, "motd"),
    ("cv-cloner identify --method mac 52:54:00:00:00:01,52:54:00:00:00:02", OK, "n02"),
    ("cv-cloner identify --method node n01,n02", OK, "n01"),
    ("cv-cloner identify --method node n01,n77", ExitStatus.NOT_FOUND, "n77"),
    ("cv-conf show 'node.n[1'", ExitStatus.USAGE, "'n[1' is not the name of one node\nhint: cv-conf show --help"),
    ("cv-conf show node.n[01-02]", ExitStatus.USAGE, "'n[01-02]' is not the name of one node"),
    ("cv-conf show ''", ExitStatus.USAGE, "'' is empty, and wants COLLECTION.SECTION"),
    ("cv-conf show cloner_image.a:b:c", ExitStatus.USAGE, "image 'a:b:c'"),
    ("cv-conf set 'node.n[1' cloner_image=node", ExitStatus.USAGE, "node set 'n[1'"),
    ("cv-cloner image-details --image=", ExitStatus.USAGE, "'' is empty, and wants NAME[:VERSION]"),
    ("cv-conf list node", OK, "n02"),
    ("cv-conf list cloner_image", OK, "node:1"),
    ("cv-conf list cloner_disklayout", OK, "node"),
    ("cv-conf set node.n[01-02] cloner_image=node cloner_disklayout=node groups=compute", OK, "changed n01, n02"),
    ("cv-conf list node_group", OK, "compute"),
    ("cv-conf show node_group.compute", OK, "n[01-02]"),
    ("cv-conf show node.n02", OK, "node"),
    ("cv-conf show cloner_image.node", OK, "node:3"),
    ("cv-conf show cloner_disklayout.node", OK, '"role": "root"'),
    ("cv-netboot --nodes n01,n02 --set discover", REFUSED, "offers no agent"),
    ("cv-netboot --nodes n01,n02 --set cloner-multicast", REFUSED, "cloner-multicast"),
    ("cv-netboot --nodes n01,n02 --set cloner --dry-run", OK, ""),
    ("cv-netboot --nodes n01,n02 --set cloner", OK, "cloner"),
    ("cv-netboot --nodes n01,n02 --set local", REFUSED, "task"),
    ("cv-cloner multicast-new-session --image=node", ExitStatus.USAGE, "multicast-new-session"),
    ("cv-conf set cluster.main name=x", REFUSED, "no collection"),
    ("cv-conf set cloner_image.node name=x", REFUSED, "only nodes"),
    ("cv-conf show node", ExitStatus.USAGE, "COLLECTION.SECTION"),
    ("cv-conf set node.n01 colour=red nonsense", ExitStatus.USAGE, "nonsense"),
    ("cv-cloner clone-everything", ExitStatus.USAGE, "clone-everything"),
)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    root = tmp_path / "golden"
    for folder in ("etc", "boot"):
        (root / folder).mkdir(parents=True)
    (root / "etc/hostname").write_text("golden\n")
    (root / "boot/vmlinuz-6.1.0").write_bytes(b"kernel")
    (tmp_path / "motd.sh").write_text("#!/bin/sh\n")
    return root


def test_every_line_of_the_chapter_ends_as_it_should(desk: Desk, golden: Path, tmp_path: Path) -> None:
    places = {"{tree}": golden, "{file}": tmp_path / "layout.json", "{script}": tmp_path / "motd.sh"}
    desk.detect = lambda name, _: Detected(msgspec.structs.replace(SIMPLE, name=name), ())
    with_shelf(desk.scene, tmp_path / "installer")
    desk.kernel = lambda *_: NodeKernel("6.1.0", kernel, drivers_part("6.1.0"), (), 0, (), ())
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(kernel_part())
    desk.has_terminal = True
    layout = tmp_path / "first.json"
    layout.write_text(LAYOUT.replace("simple", "node"))
    assert desk.run("disklayout-upload", "--disklayout", "node", "--file", str(layout)).exit_code == OK
    for number in (1, 2):
        desk.run("node", "add", f"n0{number}", "--mac", f"52:54:00:00:00:0{number}")
    ended = {}
    for line, status, told in CHAPTER:
        typed = line
        for sign, path in places.items():
            typed = typed.replace(sign, str(path))
        program, *words = shlex.split(typed)
        result = desk.run(*words, typed="y\n", program=PROGRAMS[program])
        if result.exit_code != status or told not in result.output:
            ended[line] = (result.exit_code, result.output)
    assert ended == {}
    assert set(desk.servers) == {"head"}
    assert desk.scene.netboot("n01") == desk.scene.netboot("n02") == "cloner"


def test_the_running_system_is_captured_where_no_root_is_named() -> None:
    context = click.Context(cv_cloner)
    found = cv_cloner.get_command(context, "new-image")
    assert found is not None
    made = found.make_context("new-image", ["--server=head", "--image=node", "--disklayout=node"], parent=context)
    assert made.params["root"] == Path("/")


def test_every_verb_has_its_own_example_and_takes_a_server() -> None:
    context = click.Context(cv_cloner)
    for name in CLONER_VERBS:
        found = cv_cloner.get_command(context, name)
        assert isinstance(found, Command)
        assert found.example.startswith(f"cv-cloner {name}")
        assert any("--server" in param.opts for param in found.params)
