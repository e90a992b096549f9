"""update-filesystem, update-options, and what counts where given options are others than those kept with an image."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import Result

from clibench.desk import Desk
from cloner_cli.pacing import Pacer
from cloner_core.errors import ExitStatus
from cloner_server.store.local import LocalStore
from cloner_server.store.protocol import SizedSegment
from serverbench.scene import LAYOUT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "golden"
    for folder in ("etc", "usr/bin", "srv/data", "var/log", "home/alice"):
        (root / folder).mkdir(parents=True)
    (root / "etc/hostname").write_text("golden\n")
    (root / "usr/bin/big").write_bytes(os.urandom(2 << 20))
    (root / "srv/data/table").write_bytes(os.urandom(1 << 20))
    (root / "home/alice/thesis").write_bytes(os.urandom(3 << 20))
    (root / "var/log/messages").write_text("started\n")
    return root


def words(verb: str, tree: Path, *more: str) -> list[str]:
    return [verb, "--root", str(tree), "--image", "debian", *more]


@pytest.fixture
def captured(desk: Desk, tree: Path) -> Desk:
    """Return a desk whose server has debian:1, captured without /srv/data."""
    desk.json(*words("new-image", tree, "--disklayout", "simple", "--exclude-paths", "/srv/data"))
    return desk


def kept(desk: Desk) -> dict[str, Any]:
    view = desk.scene.admins.get("/v1/images/debian/options").json()
    return {**view["options"], "revision": view["revision"]}


def listed(desk: Desk, version: str) -> set[str]:
    with TemporaryDirectory() as folder:
        desk.json("image-extract", "--image", f"debian:{version}", "--to", folder)
        return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def numbers(desk: Desk) -> list[int]:
    return [view["number"] for view in desk.json("image-list") if view["image"] == "debian"]


def test_an_update_is_made_with_the_options_of_the_capture_before(captured: Desk, tree: Path) -> None:
    (tree / "etc/motd").write_text("news\n")
    told = captured.json(*words("update-filesystem", tree, "-m", "news"))
    assert (told["number"], told["new_packs"], told["conflicts"]) == (2, 1, [])
    assert told["options"] == {"layout": "simple", "exclude_paths": ["/srv/data"], "exclude_devices": []}
    assert told["new_stored_bytes"] < 1000
    assert listed(captured, "2") - listed(captured, "1") == {"etc/motd"}
    assert not any(path.startswith("srv/data") for path in listed(captured, "2"))
    assert kept(captured)["revision"] == 1
    shown = captured.run("image-details", "--image", "debian:1").stdout
    assert re.search(r"next layout +simple\nnext without +/srv/data\n", shown)


def test_an_update_of_an_image_there_is_not_changes_nothing(desk: Desk, tree: Path) -> None:
    result = desk.refused(*words("update-filesystem", tree, "--disklayout", "simple"))
    assert result.exit_code == ExitStatus.NOT_FOUND
    assert "debian" in result.stderr


def test_a_new_image_needs_a_layout(desk: Desk, tree: Path) -> None:
    result = desk.refused(*words("new-image", tree))
    assert result.exit_code == ExitStatus.USAGE
    assert "--disklayout: no layout is kept with debian" in result.stderr


VERBS = ("new-image", "update-filesystem")
OTHER = ("--exclude-paths", "/var/log,/home/alice", "--exclude-paths", "/srv/data")


@pytest.mark.parametrize("verb", VERBS)
def test_prompt_is_an_error_without_a_terminal_and_shows_each_difference(captured: Desk, tree: Path, verb: str) -> None:
    result = captured.refused(*words(verb, tree, *OTHER))
    assert result.exit_code == ExitStatus.REFUSED
    for line in ("stored is nothing, given is /home/alice", "stored is nothing, given is /var/log"):
        assert f"--exclude-paths: {line}" in result.stderr
    assert "--update-conflict server" in result.stderr


def test_yes_does_not_say_which_options_count(captured: Desk, tree: Path) -> None:
    captured.has_terminal = True
    assert captured.refused(*words("update-filesystem", tree, *OTHER, "--yes")).exit_code == ExitStatus.REFUSED


def test_prompt_asks_at_a_terminal(captured: Desk, tree: Path) -> None:
    captured.has_terminal = True
    declined = captured.refused(*words("update-filesystem", tree, *OTHER), typed="n\n")
    assert "Take and keep those given?" in declined.stderr
    assert captured.refused(*words("update-filesystem", tree, *OTHER), typed="y\nn\n").exit_code == ExitStatus.REFUSED
    taken = captured.run(*words("update-filesystem", tree, *OTHER), typed="y\ny\n")
    assert taken.exit_code == 0
    assert "Capture this?" in taken.stderr
    assert kept(captured)["exclude_paths"] == ["/home/alice", "/srv/data", "/var/log"]
    assert not {"var/log/messages", "home/alice/thesis"} & listed(captured, "2")


def test_the_server_wins_and_tells_what_was_ignored(captured: Desk, tree: Path) -> None:
    result = captured.run(*words("update-filesystem", tree, *OTHER, "--update-conflict", "server"))
    assert result.exit_code == 0
    assert "note: ignored: --exclude-paths /home/alice,/srv/data,/var/log" in result.stderr
    assert (kept(captured)["exclude_paths"], kept(captured)["revision"]) == (["/srv/data"], 1)
    assert "home/alice/thesis" in listed(captured, "2")


def test_the_command_line_wins_and_is_kept(captured: Desk, tree: Path) -> None:
    told = captured.json(*words("update-filesystem", tree, "--exclude-paths", "", "--update-conflict", "commandline"))
    assert told["conflicts"] == [["--exclude-paths", "/srv/data", "-"]]
    assert (kept(captured)["exclude_paths"], kept(captured)["revision"]) == ([], 2)
    assert "srv/data/table" in listed(captured, "2")


@pytest.mark.parametrize("policy", ["prompt", "server", "commandline"])
def test_a_dry_run_shows_the_conflicts_and_what_would_be_sent(captured: Desk, tree: Path, policy: str) -> None:
    before, stored = captured.scene.state_dump(), captured.stored()
    (tree / "etc/motd").write_text("news\n")
    result = captured.run(*words("update-filesystem", tree, *OTHER, "--update-conflict", policy, "--dry-run", "--json"))
    told = json.loads(result.stdout)
    assert (result.exit_code, told["number"], told["dry_run"]) == (0, None, True)
    assert [row[2] for row in told["conflicts"]] == ["/home/alice", "/var/log"]
    assert 0 < told["new_stored_bytes"] < 1000
    assert "/home/alice" in result.stderr
    assert (captured.scene.state_dump(), captured.stored()) == (before, stored)


def test_options_that_somebody_changes_meanwhile_are_not_lost(captured: Desk, tree: Path) -> None:
    def change() -> None:
        captured.on_ask = lambda: None
        captured.json("update-options", "--image", "debian", "--exclude-paths", "/var/log", "--yes")

    captured.on_ask = change
    result = captured.run(*words("update-filesystem", tree, "--exclude-paths", "", "--update-conflict", "commandline"))
    assert result.exit_code == ExitStatus.CONFLICT
    assert "have revision 2, wanted 1" in result.stderr
    assert kept(captured)["exclude_paths"] == ["/var/log"]
    assert numbers(captured) == [1]


def test_what_will_be_captured_is_shown(captured: Desk, tree: Path) -> None:
    result = captured.run(*words("update-filesystem", tree, "--exclude-paths", "/srv/data"))
    said = result.stderr
    assert "/home/alice" in said
    assert said.index("/home/alice") < said.index("/usr/bin")
    for text in (
        "left out as you said: /srv/data",
        "left out always: what is in /proc, /sys, /dev, /run, /tmp",
        "image debian after debian:1: ",
        "it fits",
        "an image is no backup",
    ):
        assert text in said
    told = captured.json(*words("update-filesystem", tree))["survey"]
    assert told["mounts"] == [
        {"path": "/", "type": "", "entries": told["entries"], "data_bytes": (5 << 20) + len("golden\nstarted\n")}
    ]
    assert told["largest"][0] == {"path": "/home/alice", "data_bytes": 3 << 20}


def test_an_update_sends_what_differs_of_the_tree(captured: Desk, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    put = LocalStore.put_segment

    def watched(store: LocalStore, name: bytes, size: int, stored: bytes, onto: Sequence[SizedSegment] = ()) -> bool:
        sent.append((len(stored), len(onto)))
        return put(store, name, size, stored, onto)

    monkeypatch.setattr(LocalStore, "put_segment", watched)
    store = captured.scene.core.catalog.store
    assert isinstance(store, LocalStore)
    for number in range(200):
        (tree / f"usr/bin/program-{number}").write_bytes(os.urandom(40))
    captured.json(*words("update-filesystem", tree))
    (tree / "etc/motd").write_text("news\n")
    captured.json(*words("update-filesystem", tree))
    [(_, _), (whole, known), (differing, onto)] = [(0, 0), *sent]
    assert (known, onto) == (1, 1)
    assert differing < whole / 10
    before = {name for name, _ in store.segments.names()}
    for name in before:
        store.segments.path_of(name).unlink()  # as if a gc had taken them
    sent.clear()
    captured.json(*words("update-filesystem", tree))
    assert [onto for _, onto in sent] == [1, 0]


def test_a_store_without_room_is_told_before_anything_is_sent(
    captured: Desk, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(captured.scene.core.catalog.store), "space", lambda _: (1 << 30, 1 << 20))
    said = captured.run(*words("update-filesystem", tree, "--dry-run")).stderr
    assert (
        "warning: up to 5.0 MiB are new to the server, before they are compressed, and it has room for 1.0 MiB" in said
    )


def test_a_rate_is_kept_to(captured: Desk, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []

    class Watched(Pacer):
        def __init__(self, bytes_per_s: int) -> None:
            super().__init__(bytes_per_s)
            self.bytes_per_s = bytes_per_s

        def pieces(self, content: bytes) -> Iterator[bytes]:
            sent.append((self.bytes_per_s, len(content)))
            return super().pieces(content)

    monkeypatch.setattr("cloner_cli.pacing.Pacer", Watched)
    result = captured.refused(*words("update-filesystem", tree, "--rate", "fast"))
    assert "'fast' is not a rate" in result.stderr
    (tree / "etc/motd").write_text("news\n")
    told = captured.json(*words("update-filesystem", tree, "--rate", "1Gbit"))
    assert sent == [(125_000_000, told["new_stored_bytes"])]


# update-options


def change(desk: Desk, *more: str, typed: str = "") -> Result:
    return desk.run("update-options", "--image", "debian", *more, typed=typed)


def test_options_are_changed_without_a_version(captured: Desk) -> None:
    result = change(captured, "--exclude-paths", "/var/log/*,/srv/data", "--yes")
    assert result.exit_code == 0, result.stderr
    assert "--exclude-paths  -       /var/log/*" in result.stderr
    assert kept(captured) == {
        "layout": "simple",
        "exclude_paths": ["/srv/data", "/var/log/*"],
        "exclude_devices": [],
        "revision": 2,
    }
    assert numbers(captured) == [1]
    event = captured.json("events")[-1]
    assert (event["object"], event["what"]) == ("image/debian", "options changed")


def test_options_that_are_so_already_change_nothing(captured: Desk) -> None:
    before = captured.scene.state_dump()
    result = change(captured, "--exclude-paths", "/srv/data/", "--disklayout", "simple")
    assert "are so already (revision 1)" in result.stdout
    assert captured.scene.state_dump() == before


def test_options_are_asked_about_and_a_dry_run_changes_nothing(captured: Desk) -> None:
    captured.refused("update-options", "--image", "debian", "--exclude-paths", "/home")
    before = captured.scene.state_dump()
    assert "would be changed" in change(captured, "--exclude-paths", "/home", "--dry-run").stdout
    assert captured.scene.state_dump() == before
    captured.has_terminal = True
    captured.refused("update-options", "--image", "debian", "--exclude-paths", "/home", typed="n\n")
    assert change(captured, "--exclude-paths", "/home", typed="y\n").exit_code == 0


REFUSED = {
    "nothing is given": (("--yes",), ExitStatus.USAGE, "no option is given"),
    "a conflict policy": (("--exclude-paths", "/a", "--update-conflict", "server"), ExitStatus.USAGE, "means nothing"),
    "a layout there is not": (("--disklayout", "none", "--yes"), ExitStatus.NOT_FOUND, "none"),
    "a path that is none": (("--exclude-paths", "a/../b", "--yes"), ExitStatus.USAGE, "not a path from the root"),
    "a device that is none": (("--exclude-devices", "colour=red", "--yes"), ExitStatus.USAGE, "colour"),
}


@pytest.mark.parametrize(("more", "status", "text"), REFUSED.values(), ids=list(REFUSED))
def test_options_that_cannot_be(captured: Desk, more: tuple[str, ...], status: ExitStatus, text: str) -> None:
    result = captured.refused("update-options", "--image", "debian", *more)
    assert (result.exit_code, text in result.stderr) == (status, True)


def test_options_of_a_version_or_an_unknown_image(captured: Desk) -> None:
    of_version = captured.refused("update-options", "--image", "debian:1", "--exclude-paths", "/a")
    assert "not of a version" in of_version.stderr
    unknown = captured.refused("update-options", "--image", "other", "--exclude-paths", "/a", "--yes")
    assert unknown.exit_code == ExitStatus.NOT_FOUND


def test_options_go_with_the_last_version(captured: Desk, tree: Path) -> None:
    captured.json("image-remove", "--image", "debian:1", "--yes")
    view = captured.scene.admins.get("/v1/images/debian/options").json()
    assert (view["options"], view["revision"]) == (None, 2)
    told = captured.json(*words("new-image", tree, "--disklayout", "simple"))
    assert (told["number"], kept(captured)["revision"]) == (2, 3)


def test_another_layout_of_the_same_name_is_shown_and_decided(captured: Desk, tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.json"
    path.write_text("\n".join(line for line in LAYOUT.splitlines() if "swap" not in line))
    more = ("--disklayout", "simple", "--disklayout-file", str(path))
    refused = captured.refused(*words("update-filesystem", tree, *more))
    assert "layout simple:1 is another one" in refused.stderr
    captured.json(*words("update-filesystem", tree, *more, "--update-conflict", "server"))
    assert captured.json("disklayout", "--disklayout", "simple")["number"] == 1
    captured.json(*words("update-filesystem", tree, *more, "--update-conflict", "commandline"))
    assert captured.json("disklayout", "--disklayout", "simple")["number"] == 2
