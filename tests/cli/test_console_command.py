"""`cloner console`: the exact ssh that is run, and passwords that never leave the command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_core.messages import Beat, BeatReply, ConsoleReport, Progress, Stage
from cloner_core.passwords import is_password
from cloner_server.state import consoles
from serverbench.scene import Agent

WARNING = "takes the password everybody knows"


@pytest.fixture
def agent(desk: Desk) -> Agent:
    """Return an agent at work on n01, its console open."""
    desk.scene.add_node()
    desk.scene.arm(has_identity=False)
    desk.scene.sent_from = "10.77.0.101"
    agent = Agent(desk.scene)
    agent.hello()
    agent.told("beat", BeatReply, Beat(progress=Progress(stage=Stage.RESTORE), console=ConsoleReport(is_open=True)))
    return agent


@pytest.mark.parametrize("words", [("console", "n01"), ("console", "open", "n01")])
def test_ssh_is_told_the_one_key_and_to_ask_nothing_but_the_password(
    desk: Desk, agent: Agent, words: tuple[str, ...]
) -> None:
    seen: list[tuple[tuple[str, ...], str]] = []

    def run(argv: Sequence[str]) -> int:
        known = next(word.partition("=")[2] for word in argv if word.startswith("UserKnownHostsFile="))
        seen.append((tuple(argv), Path(known).read_text()))
        return 0

    desk.run_program = run
    done = desk.run(*words)
    assert done.exit_code == 0, done.output
    assert WARNING in done.stderr
    ((argv, known),) = seen
    view = desk.json("console", "open", "n01")
    assert known == f"cloner-console-n01 {view['host_key']}\n"
    assert argv[0] == "ssh"
    assert argv[-2:] == ("--", "10.77.0.101")
    for option in ("StrictHostKeyChecking=yes", "HostKeyAlias=cloner-console-n01", "PubkeyAuthentication=no"):
        assert option in argv
    assert not Path(next(word for word in argv if "known_hosts" in word).partition("=")[2]).exists()


def test_json_tells_how_the_console_is_reached_and_starts_nothing(desk: Desk, agent: Agent) -> None:
    for words in (("console", "n01"), ("console", "open", "n01")):
        view = desk.json(*words)
        assert (view["address"], view["user"], view["port"]) == ("10.77.0.101", "ssh", 22)
        assert view["fingerprint"].startswith("SHA256:")


def test_what_keeps_the_console_shut_is_said(desk: Desk, agent: Agent) -> None:
    def absent(argv: Sequence[str]) -> int:
        raise FileNotFoundError

    desk.run_program = absent
    assert "openssh-client" in desk.run("console", "n01").stderr
    desk.run_program = lambda _: 255
    failed = desk.run("console", "n01")
    assert (failed.exit_code, "task show" in failed.stderr) == (1, True)
    assert desk.run("console", "n99").exit_code == 3
    agent.told("rebooting", dict[str, object])
    refused = desk.run("console", "n01")
    assert (refused.exit_code, "runs no agent" in refused.stderr) == (4, True)


def test_a_password_is_taken_from_a_pipe_and_only_its_hash_is_sent(desk: Desk, agent: Agent) -> None:
    done = desk.run("console", "password", "--nodes", "n01", typed="correct horse\n")
    assert done.exit_code == 0, done.output
    assert "correct horse" not in repr(desk.scene.state_dump())
    with desk.scene.core.database.read() as connection:
        (kept,) = consoles.kept_passwords(connection).values()
    assert is_password("correct horse", kept)
    view = desk.json("node", "show", "n01")
    assert view["console_password"] == "node"
    assert WARNING not in desk.run("node", "show", "n01").stderr


def test_on_a_terminal_the_password_is_asked_for_twice_and_never_shown(desk: Desk) -> None:
    desk.has_terminal = True
    done = desk.run("console", "password", "--site", typed="correct horse\ncorrect horse\n")
    assert done.exit_code == 0, done.output
    assert "correct horse" not in done.output
    assert "password of the site set" in done.stdout
    desk.refused("console", "password", "--site", typed="correct horse\nwrong horse\n")


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        ((), "correct horse\n"),
        (("--site", "--nodes", "n01"), "correct horse\n"),
        (("--nodes", "n99"), "correct horse\n"),
        (("--group", "rack9"), "correct horse\n"),
        (("--site",), ""),
        (("--site",), "short\n"),
        (("--site",), "breakin\n"),
        (("--site", "--password", "correct horse"), ""),
    ],
    ids=[
        "for nobody",
        "for two",
        "no node",
        "no group",
        "nothing typed",
        "short",
        "the default",
        "on the command line",
    ],
)
def test_what_cannot_be_set_is_refused(desk: Desk, words: tuple[str, ...], typed: str) -> None:
    desk.refused("console", "password", *words, typed=typed)


def test_reset_asks_nothing_and_a_dry_run_changes_nothing(desk: Desk) -> None:
    before = desk.scene.state_dump()
    assert desk.run("console", "password", "--site", "--dry-run", typed="correct horse\n").exit_code == 0
    assert desk.scene.state_dump() == before
    desk.run("console", "password", "--site", typed="correct horse\n")
    assert desk.run("console", "password", "--site", "--reset").exit_code == 0
    assert desk.json("status")["warnings"]


@pytest.mark.parametrize("words", [("node", "list"), ("node", "show", "n01"), ("watch",)])
def test_the_default_password_is_warned_of_until_it_is_changed(desk: Desk, words: tuple[str, ...]) -> None:
    desk.scene.add_node()
    assert WARNING in desk.run(*words).stderr
    desk.run("console", "password", "--site", typed="correct horse\n")
    assert WARNING not in desk.run(*words).stderr


def test_the_warning_names_the_nodes_it_is_about(desk: Desk) -> None:
    desk.scene.add_node()
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    assert "n[01-02]" in desk.run("node", "list").stderr
