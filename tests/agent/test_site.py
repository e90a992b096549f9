"""The agent believes the kernel command line and the site layer only when they are whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_agent.site import load_trust, parse_arguments
from cloner_core.errors import InvalidError
from cloner_core.messages import PROTOCOL

LINE = "quiet cloner.server=https://10.77.0.1:8443 cloner.claim=abc BOOTIF=01-52-54-00-12-34-56 console=ttyS0 panic=-1"
KEY = "11" * 32


def test_a_whole_command_line_is_read() -> None:
    arguments = parse_arguments(LINE)
    assert (arguments.host, arguments.port, arguments.claim) == ("10.77.0.1", 8443, "abc")
    assert arguments.boot_mac == "52:54:00:12:34:56"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("", (False, False)),
        ("cloner.wait=1", (True, False)),
        ("cloner.discover=1", (False, True)),
        ("cloner.wait=0", (False, False)),
    ],
)
def test_what_it_is_to_do_instead_of_a_deploy_is_said_by_a_word(word: str, told: tuple[bool, bool]) -> None:
    arguments = parse_arguments(f"{LINE} {word}")
    assert (arguments.is_wait, arguments.is_discover) == told


def test_the_claim_is_never_shown() -> None:
    assert "abc" not in repr(parse_arguments(LINE))


def test_of_a_repeated_argument_the_last_counts() -> None:
    assert parse_arguments(LINE + " cloner.claim=later").claim == "later"


def test_every_fault_of_a_command_line_is_named() -> None:
    with pytest.raises(InvalidError) as caught:
        parse_arguments("cloner.server=http://x BOOTIF=zz")
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["cloner.server", "cloner.claim", "BOOTIF"]


@given(st.text())
def test_no_command_line_raises_anything_else(line: str) -> None:
    try:
        parse_arguments(line)
    except InvalidError:
        return


def test_the_site_layer_is_read_whatever_else_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    (tmp_path / "site.json").write_text(f'{{"protocol": {PROTOCOL}, "server_key": "{KEY}", "console": {{}}}}')
    trust = load_trust(tmp_path)
    assert (trust.ca_pem, trust.server_key) == ("PEM", bytes.fromhex(KEY))


@pytest.mark.parametrize(
    "site",
    [
        "",
        "{}",
        f'{{"protocol": {PROTOCOL - 1}, "server_key": "{KEY}"}}',
        f'{{"protocol": {PROTOCOL}, "server_key": "11"}}',
        "[]",
    ],
    ids=["empty", "no fields", "other protocol", "short key", "not an object"],
)
def test_a_site_layer_that_is_not_ours_is_refused(tmp_path: Path, site: str) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    (tmp_path / "site.json").write_text(site)
    with pytest.raises(InvalidError):
        load_trust(tmp_path)
