"""Relays at the command line: their tokens, which there are, and what a relay needs before it speaks to anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clibench.desk import Desk
from cloner_cli.multicastview import session_text, sessions_table
from cloner_cli.relay import relays_table
from cloner_cli.relayhead import parse_fingerprint, read_token
from cloner_core.admin.relays import RelayView
from cloner_core.admin.sessions import SeatState, SeatView, SessionState, SessionView
from cloner_core.errors import ClonerError, InvalidError

HERE = RelayView(
    "rack3",
    is_present=True,
    token_expires_s=2e9,
    heard_s=1.8e9,
    address="10.1.0.7",
    version="0.1.0",
    interface="eth1",
    network="10.88.0.1/24",
    speed_bps=1e10,
    budget_bps=7e9,
    cache_used_bytes=12 << 30,
    cache_limit_bytes=50 << 30,
    sessions=("3", "4"),
)


def session(**fields: Any) -> SessionView:
    told: dict[str, Any] = {
        "id": "3",
        "state": SessionState.GATHERING,
        "image": "golden",
        "number": 1,
        "author": "tester",
        "created_s": 1000.0,
        "started_s": None,
        "ended_s": None,
        "why": "",
        "least": 0,
        "wait_s": 600.0,
        "priority": 0,
        "rate_bps": 700e6,
        "interface": "eth1",
        "group": "239.255.67.3",
        "port": 47003,
        "hops": 1,
        "seats": (SeatView("n01", SeatState.AWAITED, "1"),),
    }
    return SessionView(**{**told, **fields})


def test_a_token_of_a_relay_comes_with_what_to_type_there(desk: Desk) -> None:
    made = desk.run("token", "create", "--relay", "rack3", "--expires", "30d")
    assert len(made.stdout.strip()) == 43
    (view,) = desk.json("token", "list")
    assert (view["relay"], view["image"]) == ("rack3", "")
    assert "--name rack3 --token-file FILE --fingerprint " in made.stderr
    fingerprint = made.stderr.split("--fingerprint ")[1].split()[0]
    assert parse_fingerprint(fingerprint) == fingerprint
    assert "rack3" in desk.run("token", "list").stdout
    dropped = desk.run("token", "remove", view["id"]).stdout
    assert dropped == f"withdrew {view['id']}, which was for the relay rack3\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--relay", "rack3", "--capture", "debian"), "a capture or for a relay"),
        ((), "--relay NAME"),
        (("--relay", "rack 3"), "rack 3"),
        (("--relay", "rack3", "-l", "simple"), "captures nothing"),
        (("--relay", "rack3", "--install-line"), "golden nodes"),
    ],
)
def test_a_token_for_two_things_or_none_is_refused(desk: Desk, words: tuple[str, ...], said: str) -> None:
    assert said in desk.refused("token", "create", *words).stderr
    assert desk.json("token", "list") == []


def test_relays_are_listed(desk: Desk) -> None:
    lines = relays_table([HERE, RelayView("rack9", is_present=False)]).splitlines()
    for said in ("rack3", "here", "10.1.0.7", "10.88.0.1/24", "10 Gbit/s", "7 Gbit/s", "12.0 GiB of 50.0 GiB", "3,4"):
        assert said in lines[1], said
    for said in ("rack9", "away", "never", "no token"):
        assert said in lines[2], said


def test_a_session_says_on_whose_wire_it_is_and_what_is_still_fetched() -> None:
    told = session(relay="rack3", fetching="relay rack3 has 120 of 800 packs")
    assert "rack3: relay rack3 has 120 of 800 packs" in session_text(told)
    assert "rack3" in sessions_table([told])
    assert "none, the server sends" in session_text(session())


@pytest.mark.parametrize("text", ["ab" * 32, ":".join(["AB"] * 32)])
def test_a_fingerprint_is_read_as_people_write_it(text: str) -> None:
    assert parse_fingerprint(text) == "ab" * 32


@pytest.mark.parametrize("text", ["", "ab" * 31, "zz" * 32])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="not the SHA-256"):
        parse_fingerprint(text)


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [("t", 0o640, "can be read by others"), ("", 0o600, "holds no token"), ("a b", 0o600, "holds no token")],
)
def test_a_token_file_that_is_wrong_is_named(tmp_path: Path, content: str, mode: int, said: str) -> None:
    file = tmp_path / "relay.token"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(ClonerError, match=said):
        read_token(file)
    with pytest.raises(ClonerError, match="is not there"):
        read_token(tmp_path / "none")
    file.write_text("t0ken\n")
    file.chmod(0o600)
    assert read_token(file) == "t0ken"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--name": "rack 3"}, "rack 3"),
        ({"--fingerprint": "none"}, "not the SHA-256"),
        ({"--server": "https://head/"}, "is not HOST"),
        ({"--cache-size": "much"}, "not a size"),
        ({"--rate": "fast"}, "not a rate"),
        ({"--token-file": "/nowhere/token"}, "/nowhere/token is not there"),
    ],
)
def test_a_relay_says_what_is_wrong_before_it_speaks_to_anybody(
    desk: Desk, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("t")
    words = {
        "--server": "127.0.0.1:1",
        "--name": "rack3",
        "--token-file": str(token),
        "--fingerprint": "ab" * 32,
        "--cache": str(tmp_path / "cache"),
    }
    said_words = [word for pair in (words | changes).items() for word in pair]
    assert said in desk.refused("relay", *said_words).stderr
