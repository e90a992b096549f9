"""The system on a disk is named as a person knows it, whatever its files hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.describing import describe_signature
from cloner_core.facts import Signature
from cloner_core.systems import system_name

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nID=debian\n'


@pytest.mark.parametrize(
    ("os_release", "hostname", "named"),
    [
        (DEBIAN, "db01\n", "Debian GNU/Linux 12 (bookworm), host db01"),
        ("NAME=Alpine\n", "", "Alpine"),
        ("", "# set by hand\n\nweb.example.org\n", "host web.example.org"),
        ("", "", ""),
        ("PRETTY_NAME=\"half\nNAME='Whole OS'\n", "", "Whole OS"),
        ("PRETTY_NAME=a\x1b[2Jb", "x\x07", "a?[2Jb, host x?"),
        ("\0\0 no text=1", "", ""),
    ],
)
def test_a_system_is_named(os_release: str, hostname: str, named: str) -> None:
    assert system_name(os_release, hostname) == named


@settings(max_examples=100)
@given(st.text(max_size=300), st.text(max_size=300))
def test_no_file_is_too_strange(os_release: str, hostname: str) -> None:
    named = system_name(f"PRETTY_NAME={os_release}", hostname)
    assert named.isprintable()
    assert len(named) <= 220


def test_what_is_on_a_partition_is_said_in_words() -> None:
    root = Signature("/dev/vda3", "ext4", "u-1", "root", system="Debian 12, host db01")
    assert describe_signature(root, with_uuid=False) == "/dev/vda3: ext4 'root' with Debian 12, host db01"
    assert describe_signature(Signature("/dev/sda2", "ntfs", label="\x1b[2J")) == "/dev/sda2: ntfs (Windows) '?[2J'"
    assert describe_signature(Signature("/dev/sda9", "")) == "/dev/sda9: unknown content"
