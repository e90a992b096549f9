"""The command line as a process of its own before a real server: versions compared, verified and extracted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner_core.errors import ExitStatus
from serverbench.served import START, Served

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="cloner serve needs root")]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    made.start()
    made.fill()
    yield made
    made.kill()


def cloner(served: Served, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", START, "--socket", str(served.socket), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def test_a_version_is_compared_verified_and_extracted_over_the_socket(served: Served, tmp_path: Path) -> None:
    golden = tmp_path / "tree"
    (golden / "etc").mkdir(parents=True)
    (golden / "etc/motd").write_text("hello")
    os.chown(golden / "etc/motd", 3, 4)
    (golden / "big").write_bytes(os.urandom(9 << 20))
    captured = cloner(served, "new-image", "--root", str(golden), "--image", "tree", "--disklayout", "simple")
    assert captured.returncode == ExitStatus.OK, captured.stderr

    told = json.loads(cloner(served, "image-diff", "golden", "tree", "--json").stdout)
    assert {"path": "/etc/motd", "change": "added", "detail": ""} in told["etc"]

    verified = cloner(served, "image-verify", "--image", "tree", "--json")
    assert (verified.returncode, json.loads(verified.stdout)["faults"]) == (ExitStatus.OK, [])

    target = tmp_path / "target"
    extracted = cloner(served, "image-extract", "--image", "tree", "--to", str(target))
    assert extracted.returncode == ExitStatus.OK, extracted.stderr
    rsync = ["rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes", f"{golden}/", f"{target}/"]
    assert subprocess.run(rsync, capture_output=True, text=True, check=True).stdout == ""

    file = tmp_path / "tree.cloner"
    exported = cloner(served, "image-export", "tree", str(file))
    assert exported.returncode == ExitStatus.OK, exported.stderr
    imported = cloner(served, "image-import", str(file), "--image", "again", "--json")
    assert (imported.returncode, json.loads(imported.stdout)["sent_bytes"]) == (ExitStatus.OK, 0)

    pack = max((served.state / "store/packs").rglob("*"), key=lambda path: path.stat().st_size)
    pack.write_bytes(pack.read_bytes()[:-1] + b"?")
    verified = cloner(served, "image-verify", "--image", "tree")
    assert verified.returncode == ExitStatus.INTEGRITY
    assert pack.name in verified.stderr
