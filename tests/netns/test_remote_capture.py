"""A golden node without a server of its own: the command line over TLS, by a token, at a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloner_core.errors import ExitStatus
from serverbench.served import START, Served

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="the server needs root")]


@dataclass
class Golden:
    """A server that has one image, and what a golden node has of it: its CA and a token."""

    served: Served
    etc: Path
    tree: Path

    def told(self, token: str, *, ca: str = "") -> None:
        """Write what the node is told."""
        (self.etc / "ca.pem").write_text(ca or (self.served.state / "site/ca.pem").read_text())
        file = self.etc / "node.toml"
        file.touch(0o600)
        file.write_text(f"server = '127.0.0.1:{self.served.tls}'\ntoken = '{token}'\n")

    def token(self, **fields: Any) -> str:
        """Have the server make a token."""
        made: str = self.served.admin("POST", "/tokens", json={"image": "debian"} | fields)["token"]
        return made

    def cloner(self, *words: str, status: ExitStatus = ExitStatus.OK) -> subprocess.CompletedProcess[str]:
        """Type a command on the golden node."""
        argv = [sys.executable, "-c", START, *words]
        environment = {**os.environ, "CLONER_NODE_FILE": str(self.etc / "node.toml"), "CLONER_SOCKET": ""}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done.stderr
        return done

    def capture(self, *more: str, status: ExitStatus = ExitStatus.OK) -> subprocess.CompletedProcess[str]:
        """Capture the tree as the next version of debian."""
        words = ("new-image", "--server", f"127.0.0.1:{self.served.tls}", "--image", "debian")
        return self.cloner(*words, "--root", str(self.tree), "--disklayout", "simple", *more, status=status)


@pytest.fixture
def golden(tmp_path: Path) -> Iterator[Golden]:
    served = Served(tmp_path)
    served.start()
    served.fill()
    etc, tree = tmp_path / "etc", tmp_path / "tree"
    etc.mkdir()
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("golden\n")
    (tree / "data").write_bytes(os.urandom(9 << 20))
    yield Golden(served, etc, tree)
    served.stop()


def test_a_golden_node_captures_over_the_network(golden: Golden) -> None:
    golden.told(golden.token())
    first = json.loads(golden.capture("--json").stdout)
    assert (first["number"], first["new_stored_bytes"] > 9 << 20) == (1, True)
    (golden.tree / "etc/motd").write_text("news\n")
    second = json.loads(golden.capture("--json").stdout)
    assert (second["number"], second["new_stored_bytes"] < 4096) == (2, True)
    update = ("--server", f"127.0.0.1:{golden.served.tls}", "--image", "debian")
    golden.cloner("update-options", *update, "--exclude-paths", "/data", "--yes")
    third = golden.cloner("update-filesystem", *update, "--root", str(golden.tree), "--rate", "200Mbit", "--json")
    told = json.loads(third.stdout)
    assert (told["number"], told["options"]["exclude_paths"], told["data_bytes"] < 4096) == (3, ["/data"], True)
    by = golden.served.admin("GET", "/images/debian")["author"]
    assert by.startswith("token ")
    assert golden.served.admin("POST", "/store/check", params={"read_data": True})["faults"] == []


def test_a_server_of_another_ca_is_told_nothing(golden: Golden, tmp_path: Path) -> None:
    other = Served(tmp_path / "other")
    other.base.mkdir()
    other.start()
    other.stop()
    golden.told(golden.token(), ca=(other.state / "site/ca.pem").read_text())
    refused = golden.capture(status=ExitStatus.UNREACHABLE)
    assert "certificate verify failed" in refused.stderr
    assert "is ca.pem beside node.toml its CA?" in refused.stderr
    assert len(golden.served.admin("GET", "/images")) == 1


def test_what_the_token_is_not_for_is_refused(golden: Golden) -> None:
    golden.told(golden.token(image="other"))
    assert "for the image 'other'" in golden.capture(status=ExitStatus.REFUSED).stderr
    changed = ("update-options", "--server", f"127.0.0.1:{golden.served.tls}", "--image", "debian", "--yes")
    assert "for the image 'other'" in golden.cloner(*changed, "-l", "simple", status=ExitStatus.REFUSED).stderr
    golden.told("nonsense")
    assert "cloner token create" in golden.capture(status=ExitStatus.REFUSED).stderr


def test_a_node_that_was_told_nothing_says_what_to_do(golden: Golden) -> None:
    refused = golden.capture(status=ExitStatus.NOT_FOUND)
    assert "node.toml is not there" in refused.stderr
    assert "cloner token create" in refused.stderr
