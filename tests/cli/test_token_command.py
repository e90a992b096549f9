"""Tokens on the command line, and what a node without a server is told of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_cli.nodefile import read_node_file
from cloner_core.errors import ClonerError, ExitStatus, RefusedError


def test_a_token_is_printed_once_and_withdrawn(desk: Desk) -> None:
    made = desk.run("token", "create", "--capture", "debian", "-l", "rack", "--expires", "7d", "--note", "rack 7")
    shown = made.stdout.strip()
    assert len(shown) == 43
    (view,) = desk.json("token", "list")
    assert (view["image"], view["layouts"], view["expires_s"] - view["created_s"]) == ("debian", ["rack"], 7 * 86400)
    listed = desk.run("token", "list").stdout
    assert "rack 7" in listed
    assert shown not in listed
    assert desk.run("token", "remove", view["id"]).stdout == f"withdrew {view['id']}, which captured debian\n"
    assert desk.json("token", "list") == []


def test_a_dry_run_makes_and_withdraws_no_token(desk: Desk) -> None:
    assert desk.json("token", "create", "--capture", "debian", "--dry-run")["token"] == ""
    assert desk.json("token", "list") == []
    desk.run("token", "create", "--capture", "debian")
    (view,) = desk.json("token", "list")
    assert desk.run("token", "remove", view["id"], "--dry-run").stdout.startswith("would withdraw")
    assert desk.json("token", "list") == [view]
    assert "no such token" in desk.refused("token", "remove", "nothing", "--dry-run").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "--capture", "a b"), "a b"),
        (("create", "--capture", "debian", "--expires", "9999d"), "at most 366d"),
        (("create", "--capture", "debian", "--expires", "soon"), "not a time"),
        (("create",), "--capture"),
        (("remove", "nothing"), "no such token"),
    ],
)
def test_what_is_no_token_is_refused(desk: Desk, words: tuple[str, ...], said: str) -> None:
    assert said in desk.refused("token", *words).stderr


@pytest.mark.parametrize(
    ("server", "want"),
    [
        ("head", ("head", 8443)),
        ("head:9000", ("head", 9000)),
        ("fd00::1", ("fd00::1", 8443)),
        ("[fd00::1]:9000", ("fd00::1", 9000)),
        ("[fd00::1]", ("fd00::1", 8443)),
    ],
)
def test_where_the_server_is(tmp_path: Path, server: str, want: tuple[str, int]) -> None:
    file = tmp_path / "node.toml"
    file.touch(0o600)
    file.write_text("server = 'other:1'\ntoken = 't'\n")
    assert read_node_file(file, server)[:2] == want
    file.write_text(f"server = '{server}'\ntoken = 't'\n")
    assert read_node_file(file)[:2] == want


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("server = 'head'", ExitStatus.USAGE, "token: it is missing"),
        ("token = 't'", ExitStatus.USAGE, "node.toml: server: ''"),
        ("server = 'head:70000'\ntoken = 't'", ExitStatus.USAGE, "'head:70000' is not HOST"),
        ("server = 'https://head/'\ntoken = 't'", ExitStatus.USAGE, "is not HOST"),
        ("server = 'head'\ntokens = 't'", ExitStatus.USAGE, "tokens"),
        ("server = ", ExitStatus.USAGE, "node.toml: Invalid value"),
        (None, ExitStatus.NOT_FOUND, "is not there"),
    ],
)
def test_a_node_file_that_is_wrong_is_named(tmp_path: Path, text: str | None, status: ExitStatus, said: str) -> None:
    file = tmp_path / "node.toml"
    if text is not None:
        file.touch(0o600)
        file.write_text(text)
    with pytest.raises(ClonerError) as refused:
        read_node_file(file)
    assert refused.value.exit_status is status
    assert said in str(refused.value)
    assert "cloner token create" in refused.value.hint or "HOST" in said or "server: ''" in said


def test_a_token_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("server = 'head'\ntoken = 't'\n")
    file.chmod(0o640)
    with pytest.raises(RefusedError, match="can be read by others"):
        read_node_file(file)


def test_which_server_is_meant(desk: Desk, tmp_path: Path) -> None:
    here, there = tmp_path / "cloner.sock", tmp_path / "node.toml"
    run = desk.invocation()
    run.world, run.socket = replace(run.world, node_file=there), here
    assert not run.is_remote, "nothing is known: the usual socket"
    there.touch()
    assert run.is_remote, "this machine was told of a server"
    here.touch()
    assert not run.is_remote, "this machine is a server"
    run.server = "head"
    assert run.is_remote, "it was named"
    run.server = ""
    here.unlink()
    run.use_socket(here)
    assert not run.is_remote, "a socket was named"
