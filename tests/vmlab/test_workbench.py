"""What a program tells on a node's console is what the test gets."""

from __future__ import annotations

import pytest

from cloner_core.facts import Signature
from vmlab.onnode.reporting import tell
from vmlab.workbench import told


def test_facts_are_found_among_whatever_else_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    tell("raid1-lvm", {"faults": [], "text": "a\nb 'ü' workbench: x=1"})
    tell("found", Signature("/dev/vda", "gpt"))
    said = capsys.readouterr().out
    heard = told(f"[ 3.1] kernel: x=1\r\n{said}cloner-init [5 s]: probe ended with status 0\n")
    assert heard["raid1-lvm"] == {"faults": [], "text": "a\nb 'ü' workbench: x=1"}
    assert set(heard) == {"raid1-lvm", "found"}
