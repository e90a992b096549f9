"""The line of `cloner token create --install-line`, pasted into machines that have little, and what it installs."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from cloner_initramfs import Cache, build_kit, default_cache, put_kit
from cloner_initramfs.kit import ARCHIVE, archive_name, describe, read_kit
from netns.golden_tree import GoldenTree, make_busybox, make_curl, make_old_python
from netns.netboot_lab import lab_with_client
from netns.page_reader import wait_for
from serverbench.scene import LAYOUT
from serverbench.served import Served
from vmlab.head import Head
from vmlab.lab import SERVER_ADDRESS

pytestmark = [
    pytest.mark.netns,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]
# Serves the files of a directory beneath /kit/; of `kit-*` the first half, and then it hangs up or goes silent.
CUT_OFF = """
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content = open(os.path.join(sys.argv[1], os.path.basename(self.path)), "rb").read()
        self.send_response(200); self.send_header("Content-Length", str(len(content))); self.end_headers()
        if not os.path.basename(self.path).startswith("kit-"):
            self.wfile.write(content)
            return
        self.wfile.write(content[: len(content) // 2]); self.wfile.flush()
        print("HALF", flush=True)
        if sys.argv[3] == "silent":
            time.sleep(300)
        self.close_connection = True
http.server.ThreadingHTTPServer(("10.77.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
CUT_PORT = 8099
# What is imported late would be missed by no other test than that of the command that does.
IMPORT_ALL = """
import importlib, pkgutil
missing = {}
for name in ("cloner_core", "cloner_agent", "cloner_cli", "cloner_initramfs"):
    for found in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
        try:
            found.name.endswith("__main__") or importlib.import_module(found.name)
        except ImportError as fault:
            missing[found.name] = str(fault)
print(missing)
"""


@dataclass
class Site:
    """A server that gives a kit away, and the namespace of golden nodes."""

    head: Head
    nodes: GoldenTree  # without a tree
    trees: int = 0

    def node(self, fetches_by: str = "wget") -> GoldenTree:
        """Return a new machine: busybox with wget or with curl, or bash with an old Python and neither."""
        self.trees += 1
        root = self.nodes.lab.directory / f"tree{self.trees}"
        if fetches_by == "wget":
            make_busybox(root, "wget")
        else:
            {"curl": make_curl, "bash": make_old_python}[fetches_by](root)
        return GoldenTree(self.nodes.lab, root)

    def line(self, *more: str, image: str = "debian") -> str:
        """Return the line as a person copies it."""
        said = self.head.cloner("token", "create", "--capture", image, "--install-line", *more).out
        assert said.count("\n") == 1
        return said.rstrip("\n")

    @property
    def kit(self) -> Path:
        """Where the server looks for the kit."""
        return self.head.state / "kit"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with lab_with_client() as (lab, client):
        head = Head(lab, Path(Served(lab.directory).installer()[1]), more=("--tftp-port", "0"))
        put_kit(build_kit(Cache(default_cache())), head.state / "kit")
        head.start()
        (lab.directory / "layout.json").write_text(LAYOUT)
        head.cloner("disklayout-upload", "--disklayout", "simple", "--file", lab.directory / "layout.json")
        nodes = GoldenTree(client, client.directory)
        nodes.connect()
        yield Site(head, nodes)
        head.stop()


def ca_digest(line: str) -> str:
    """Return the digest of the CA as it stands in a line."""
    found = re.search(r"\b([0-9a-f]{64});else", line)
    assert found is not None
    return found[1]


def broken(line: str, part: str) -> str:
    """Return the line with the first digit of a digest changed."""
    return line.replace(part, ("1" if part[0] == "0" else "0") + part[1:])


def refused(node: GoldenTree, line: str) -> str:
    """Paste a line that must install nothing and leave nothing; return what was said."""
    before = node.files()
    done = node.paste(line)
    assert done.returncode not in (0, 127), done
    assert node.files() - before <= {"opt"}
    assert re.search(r"nothing was installed|print the line anew", done.stderr), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("fetches_by", "image"), [("wget", "small"), ("bash", "old")], ids=["busybox, no libc", "bash, python 3.6"]
)
def test_a_machine_without_a_usable_python_installs_and_captures(site: Site, fetches_by: str, image: str) -> None:
    node = site.node(fetches_by)
    assert re.search(rf"^token \w+ captures {image} until ", node.type(site.line(image=image)))
    assert (node.root / "etc/cloner/node.toml").stat().st_mode & 0o777 == 0o600
    node.type(f"cloner new-image --image {image} --disklayout simple")
    node.type("echo news >/etc/motd")
    updated = msgspec.json.decode(node.type(f"cloner update-filesystem --image {image} --json"))
    assert (updated["number"], updated["new_stored_bytes"] < 4096) == (2, True)
    into = site.nodes.lab.directory / f"out{site.trees}"
    site.head.cloner("image-extract", "--image", f"{image}:2", "--path", "/etc", "--to", into)
    assert (into / "etc/motd").read_text() == "news\n"
    assert not (into / "etc/cloner/node.toml").exists()
    assert (into / "etc/cloner/ca.pem").exists()
    assert not (node.root / "python-was-called").exists()


def test_what_the_command_starts_is_the_nodes_own_with_nothing_of_the_kit(site: Site) -> None:
    node = site.node()
    node.type(site.line())
    script = node.root / "bin/mdadm"  # goes before the kit's
    script.write_text("#!/bin/sh\nenv >/seen-environment\n")
    script.chmod(0o755)
    code = "from cloner_agent.host import run; run(['mdadm']); print(run(['lsblk', '--version']).stdout)"
    python = "/opt/cloner/*/usr/bin/python3.11"
    environment = {"LD_LIBRARY_PATH": "/nowhere", "LD_PRELOAD": "/nowhere/of.so", "PYTHONHOME": "/nowhere"}
    done = node.paste(f'{python} -I -c "{code}"', environment=environment)
    assert done.stdout == "lsblk from util-linux 2.38.1\n\n", done.stderr
    seen = (node.root / "seen-environment").read_text()
    assert not re.search(r"^(LD_|PYTHON|LOCPATH|OPENSSL)", seen, re.M)
    assert "/opt/cloner" not in seen


def test_everything_that_is_imported_is_in_the_kit(site: Site) -> None:
    node = site.node()
    node.type(site.line())
    (node.root / "look.py").write_text(IMPORT_ALL)
    assert node.type("/opt/cloner/*/usr/bin/python3.11 -I -X utf8 /look.py") == "{}\n"


def test_bash_forgets_the_line(site: Site) -> None:
    node = GoldenTree(site.nodes.lab, site.node("bash").root, shell=("/bin/bash", "-i"))
    line = site.line()
    history = {"HISTFILE": "/root/.bash_history", "HISTCONTROL": "ignoreboth"}
    done = node.paste(f"echo before\n{line}\necho after $?\nexit", environment=history)
    assert "after 0" in done.stdout, done.stderr
    assert (node.root / "root/.bash_history").read_text() == "echo before\necho after $?\nexit\n"
    assert "history-secret" not in node.paste("cloner new-image --image debian --disklayout simple --dry-run").stderr


def test_a_line_that_is_not_the_servers_installs_nothing(site: Site) -> None:
    node, line = site.node(), site.line()
    script = read_kit(site.kit).install_digest
    assert "print the line anew" in refused(node, broken(line, f"{script}  "))
    assert "ca.pem is not what the server promised" in refused(node, broken(line, ca_digest(line)))
    token = line.partition("CLONER_TOKEN=")[2].partition(" ")[0]
    assert "the token is unknown" in refused(node, line.replace(token, "nonsense"))
    assert "not a token" in refused(node, line.replace(token, "'a\"b'"))
    assert node.type(line), "the line itself is good"


def test_a_token_that_has_expired_installs_nothing(site: Site) -> None:
    line = site.line("--expires", "1s")
    ends = max(
        view["expires_s"] for view in site.head.json("token", "list") if view["expires_s"] - view["created_s"] < 2
    )
    while time.time() <= ends:
        time.sleep(0.1)
    assert "no longer good" in refused(site.node(), line)


@pytest.mark.parametrize("how", ["cut off", "silent"])
def test_a_download_that_ends_too_early_installs_nothing(site: Site, how: str, tmp_path: Path) -> None:
    shutil.copytree(site.kit, tmp_path / "kit")
    shutil.copy(site.head.state / "site/ca.pem", tmp_path / "kit/ca.pem")
    argv = [sys.executable, "-c", CUT_OFF, str(tmp_path / "kit"), str(CUT_PORT), how]
    serving = subprocess.Popen(site.head.lab.inside(argv), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        node = site.node("curl" if how == "cut off" else "bash")
        line = site.line().replace(f"{SERVER_ADDRESS}:8080", f"{SERVER_ADDRESS}:{CUT_PORT}")
        line = line.replace(f"{SERVER_ADDRESS}/8080", f"{SERVER_ADDRESS}/{CUT_PORT}")
        wait_for(lambda: f":{CUT_PORT} " in site.head.lab.run(["ss", "-Hltn"]), 60)
        if how == "cut off":
            assert "was not fetched whole" in refused(node, line)
            return
        before = node.files()
        # Whatever runs the tests in the background may have them ignore it.
        argv = ["env", "--default-signal=INT", *node.argv()]
        typing = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        assert typing.stdin is not None
        typing.stdin.write(f"{line}\n")
        typing.stdin.close()
        assert serving.stdout is not None
        assert serving.stdout.readline() == "HALF\n"
        os.killpg(typing.pid, signal.SIGINT)  # Ctrl-C
        assert typing.wait(timeout=60) != 0
        wait_for(lambda: node.files() - before <= {"opt"}, 60)  # a shell may end before those it has started
    finally:
        serving.kill()
        serving.wait()


def test_run_again_it_upgrades_and_then_goes_away_whole(site: Site, tmp_path: Path) -> None:
    node = site.node("curl")
    before = node.files()
    node.type(site.line())
    old = read_kit(site.kit)
    shutil.copytree(build_kit(Cache(default_cache())), tmp_path / "newer")
    with (tmp_path / "newer" / ARCHIVE).open("ab") as archive:
        archive.write(
            gzip.compress(bytes(512), mtime=0)
        )  # behind the end of the archive: another digest, the same files
    try:
        describe(tmp_path / "newer", old.unpacked_bytes)
        new = put_kit(tmp_path / "newer", site.kit)
        assert new.version != old.version
        assert not (site.kit / archive_name(old)).exists()
        node.type(site.line(image="other"))
    finally:
        put_kit(build_kit(Cache(default_cache())), site.kit)
    assert {path.name for path in (node.root / "opt/cloner").iterdir()} == {new.version, "install"}
    assert re.match(r"token \w+ captures other", node.type("cloner token show"))
    assert "--disklayout" in node.type("cv-cloner new-image --help")
    assert "cloner: removed" in node.paste("sh /opt/cloner/install --uninstall").stderr
    assert node.files() - before == {"opt", "usr/local", "usr/local/bin"}
    assert node.paste("cloner token show").returncode == 127


def test_what_is_there_already_is_not_replaced(site: Site) -> None:
    node = site.node()
    own = node.root / "usr/local/bin/cloner"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    assert "not of a kit" in refused(node, site.line())
    assert own.read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize(
    ("program", "body", "said"),
    [
        ("uname", "case $1 in -m) echo aarch64 ;; *) echo Linux ;; esac", "and this is Linux on aarch64"),
        ("id", "echo 1000", "needs root"),
        ("df", "echo; echo a 1 1 100 1 /", "MiB free, it needs"),
    ],
    ids=["aarch64", "not root", "full"],
)
def test_a_machine_it_cannot_be_on_is_told(site: Site, program: str, body: str, said: str) -> None:
    node = site.node("bash")  # the shell of busybox takes its own
    (node.root / "bin" / program).unlink()
    (node.root / "bin" / program).write_text(f"#!/bin/sh\n{body}\n")
    (node.root / "bin" / program).chmod(0o755)
    assert said in refused(node, site.line())


def test_a_place_that_runs_nothing_is_told_and_another_one_taken(site: Site) -> None:
    node, line = site.node(), site.line()
    done = node.paste(line, before="mkdir -p opt; mount -t tmpfs -o noexec tmpfs opt")
    assert "is that mounted noexec" in done.stderr
    assert "export CLONER_PREFIX=" in done.stderr
    assert not (node.root / "usr/local").exists()
    assert node.paste(line, environment={"CLONER_PREFIX": "/usr/lib/cloner"}).returncode == 0
    assert (node.root / "usr/local/bin/cloner").readlink().is_relative_to("/usr/lib/cloner")
    assert re.match(r"token \w+ captures", node.type("cloner token show"))
