"""The kit on the command line, and the line that installs it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec
import pytest

from clibench.desk import Desk
from cloner_cli.kit import install_line
from cloner_cli.main import COMMANDS
from cloner_core.admin.kit import KitView
from cloner_core.errors import ExitStatus
from initramfsbench.kits import make_kit

VIEW = KitView(
    version="0123456789ab",
    size_bytes=30 << 20,
    address="10.77.0.1",
    http_port=8080,
    tls_port=8443,
    install_path="/kit/install-aaaa",
    install_digest="a" * 64,
    ca_digest="c" * 64,
)


@pytest.fixture
def kit_of_server(desk: Desk) -> str:
    """Give the server a kit; return the digest of its script."""
    return make_kit(Path(desk.scene.core.state_directory, "kit")).install_digest


def test_the_line_is_one_line_with_both_digests_and_the_token_in_no_argument() -> None:
    line = install_line(VIEW, "tok-en_1")
    assert "\n" not in line
    assert len(line) < 1000, "a terminal takes 4095 bytes"
    assert line.count("10.77.0.1:8080/kit/install-aaaa") == 2
    assert f'echo "{"a" * 64}  $f"|sha256sum -c' in line
    assert f'sh "$f" 10.77.0.1:8080 8443 {"c" * 64};' in line
    assert re.findall(r".{8}tok-en_1.{3}", line) == ["R_TOKEN=tok-en_1 sh"], (
        "an assignment, which no process list shows"
    )


def test_a_token_comes_in_the_line_that_installs(desk: Desk, kit_of_server: str) -> None:
    made, core = desk.json("token", "create", "--capture", "debian", "--install-line"), desk.scene.core
    view = msgspec.convert(desk.json("kit", "show"), KitView)
    assert made["install_line"] == install_line(view, made["token"])
    assert (view.address, view.http_port, view.tls_port) == (core.address, core.rules.confirm_port, core.tls_port)
    assert view.install_path == f"/kit/install-{kit_of_server[:16]}"
    assert (view.install_digest, view.ca_digest) == (kit_of_server, hashlib.sha256(core.site.ca_pem).hexdigest())
    printed = desk.run("token", "create", "--capture", "debian", "--install-line")
    assert re.fullmatch(r"\{ history .*CLONER_TOKEN=\S{43} .*\)\n", printed.stdout)


def test_without_a_kit_no_token_is_made(desk: Desk) -> None:
    refused = desk.refused("token", "create", "--capture", "debian", "--install-line")
    assert refused.exit_code == ExitStatus.NOT_FOUND
    assert "cloner kit build" in refused.stderr
    assert "cloner kit build" in desk.refused("kit", "show").stderr


def test_a_dry_run_makes_neither(desk: Desk, kit_of_server: str, tmp_path: Path) -> None:
    assert "would make a token" in desk.run("token", "create", "--capture", "a", "--install-line", "--dry-run").stdout
    assert desk.json("token", "list") == []
    out = tmp_path / "kit"
    told = desk.json("kit", "build", "--out", str(out), "--cache", str(tmp_path / "cache"), "--dry-run")
    assert told == {"out": str(out), "cache": str(tmp_path / "cache")}
    assert not out.exists()
    assert kit_of_server in desk.run("kit", "show").stdout


def test_a_server_has_no_token_to_show(desk: Desk) -> None:
    assert "or is the server itself" in desk.refused("token", "show").stderr


def test_what_only_a_server_has_is_refused_by_name(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "serve", "cloner_server.not_of_the_kit")
    refused = desk.refused("serve")
    assert refused.exit_code == ExitStatus.REFUSED
    assert "here is the kit of a golden node" in refused.stderr
