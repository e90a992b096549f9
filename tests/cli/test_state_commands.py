"""A server is sealed and made anew from the command line; the passphrase never stands in it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus

PASS = "correct horse battery staple"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(PASS + "\n")
    return tmp_path / "secret"


@pytest.fixture
def state(desk: Desk, tmp_path: Path) -> list[str]:
    """Where this server's state is; no settings."""
    config = tmp_path / "server.toml"
    config.write_text("")
    return ["--state", str(desk.scene.core.state_directory), "--config", str(config)]


def sealed(desk: Desk, state: list[str], secret: Path, file: Path, *more: str) -> None:
    told = desk.json("state", "export", str(file), *state, "--passphrase-file", str(secret), *more)
    assert (told["path"], told["size_bytes"]) == (str(file), file.stat().st_size)


def test_export_and_import_make_the_same_server(desk: Desk, state: list[str], secret: Path, tmp_path: Path) -> None:
    file, new = tmp_path / "x.state", tmp_path / "new"
    sealed(desk, state, secret, file, "--images")
    there = ["--state", str(new), "--config", str(tmp_path / "etc.toml"), "--passphrase-file", str(secret)]
    shown = desk.run("state", "import", str(file), *there, "--dry-run")
    assert shown.stdout.startswith("whole ")
    assert not new.exists()
    shown = desk.run("state", "import", str(file), *there)
    assert shown.exit_code == 0, shown.output
    assert "store       whole" in shown.stdout
    assert desk.scene.core.site.public_key.hex() in shown.stdout
    with sqlite3.connect(new / "cloner.db") as database:
        authors = dict(database.execute("SELECT what, author FROM events WHERE what LIKE 'state %'").fetchall())
    assert authors == {"state export begun": "tester", "state imported": "tester"}


def test_without_images_it_says_what_to_copy(desk: Desk, state: list[str], secret: Path, tmp_path: Path) -> None:
    file, new = tmp_path / "x.state", tmp_path / "new"
    sealed(desk, state, secret, file)
    there = ["--state", str(new), "--config", str(tmp_path / "etc.toml"), "--passphrase-file", str(secret)]
    shown = desk.run("state", "import", str(file), *there)
    assert shown.exit_code == 0
    assert f"copy the old store's packs into {new}/store/packs" in shown.stderr


def test_a_damaged_image_ends_with_7_and_all_else_is_there(
    desk: Desk, state: list[str], secret: Path, tmp_path: Path
) -> None:
    file, new = tmp_path / "x.state", tmp_path / "new"
    for path in (desk.scene.core.state_directory / "store" / "packmaps").glob("*/*"):
        path.unlink()
    sealed(desk, state, secret, file, "--images")
    there = ["--state", str(new), "--config", str(tmp_path / "etc.toml"), "--passphrase-file", str(secret)]
    shown = desk.run("state", "import", str(file), *there)
    assert shown.exit_code == ExitStatus.INTEGRITY
    assert "all else is imported" in shown.stderr
    assert "version golden/1" in shown.stderr
    assert "copy the old store's packs" not in shown.stderr
    assert (new / "cloner.db").is_file()


def test_the_passphrase_is_asked_for_twice_to_seal_and_once_to_open(
    desk: Desk, state: list[str], tmp_path: Path
) -> None:
    desk.has_terminal = True
    file = tmp_path / "x.state"
    shown = desk.run("state", "export", str(file), *state, typed=f"{PASS}\n{PASS}\n")
    assert shown.exit_code == 0, shown.output
    assert PASS not in shown.output
    there = ["--state", str(tmp_path / "new"), "--config", str(tmp_path / "etc.toml")]
    shown = desk.run("state", "import", str(file), *there, typed=f"{PASS}\n")
    assert shown.exit_code == 0, shown.output


def test_each_refusal_has_its_status_and_leaves_nothing(
    desk: Desk, state: list[str], secret: Path, tmp_path: Path
) -> None:
    file, new = tmp_path / "x.state", tmp_path / "new"
    sealed(desk, state, secret, file)
    for name, text in {"wrong": "another one, wrong\n", "short": "short\n", "empty": "\n"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-1])
    (tmp_path / "script").write_text("#!/bin/sh\n" * 20)
    there = ["--state", str(new), "--config", str(tmp_path / "etc.toml"), "--passphrase-file"]
    for words, status, says in (
        (["import", str(file), *there, str(tmp_path / "wrong")], ExitStatus.REFUSED, "passphrase is wrong"),
        (["import", str(file), *there, str(tmp_path / "empty")], ExitStatus.USAGE, "empty line"),
        (["import", str(tmp_path / "cut"), *there, str(secret)], ExitStatus.INTEGRITY, "cut off"),
        (["import", str(tmp_path / "script"), *there, str(secret)], ExitStatus.USAGE, "not an export"),
        (["import", str(tmp_path / "none"), *there, str(secret)], ExitStatus.USAGE, "No such file"),
        (["import", str(file), *there, str(tmp_path / "none")], ExitStatus.USAGE, "No such file"),
        (["import", str(file), *state, "--passphrase-file", str(secret)], ExitStatus.REFUSED, "not blank"),
        (["import", str(file), *there[:-1]], ExitStatus.REFUSED, "no terminal"),
        (["export", str(file), *state, "--passphrase-file", str(secret)], ExitStatus.CONFLICT, "exists"),
        (["export", str(new), *state, "--passphrase-file", str(tmp_path / "short")], ExitStatus.USAGE, "at least 12"),
        (["export", str(new), *there, str(secret)], ExitStatus.NOT_FOUND, "no state"),
        (["export", str(tmp_path / "gone/x"), *state, "--dry-run"], ExitStatus.USAGE, "there is no directory"),
        (["export", str(file / "x"), *state, "--dry-run"], ExitStatus.USAGE, "is no directory"),
    ):
        result = desk.refused("state", *words)
        assert result.exit_code == status, (words, result.output)
        assert says in result.stderr
        assert not new.exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("real")])
def test_only_a_regular_file_is_ever_replaced(
    desk: Desk, state: list[str], secret: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    there = tmp_path / "there"
    make(there)
    before = there.lstat()
    for more in ([], ["--force"], ["--force", "--dry-run"]):
        result = desk.refused("state", "export", str(there), *state, "--passphrase-file", str(secret), *more)
        assert (result.exit_code, "no regular file" in result.stderr) == (ExitStatus.USAGE, True)
    assert (there.lstat().st_ino, there.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_a_dry_run_of_an_export_needs_no_passphrase(desk: Desk, state: list[str], tmp_path: Path) -> None:
    shown = desk.run("state", "export", str(tmp_path / "x"), *state, "--dry-run", "--json")
    told = json.loads(shown.stdout)
    assert (told["dry_run"], told["versions"]) == (True, 1)
    assert not (tmp_path / "x").exists()
