"""Evidence names the commit it ran on, and whether files differed from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from soak.evidence import this_commit

pytestmark = pytest.mark.root  # starts git


def git(checkout: Path, *arguments: str) -> None:
    names = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(("git", "-C", str(checkout), *names, *arguments), check=True, capture_output=True)


def test_a_changed_file_makes_the_commit_dirty_and_new_evidence_does_not(tmp_path: Path) -> None:
    assert this_commit(tmp_path) == "unknown"
    (tmp_path / "docs" / "evidence").mkdir(parents=True)
    code, evidence = tmp_path / "code", tmp_path / "docs" / "evidence" / "law.json"
    for path in (code, evidence):
        path.write_text("first")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = this_commit(tmp_path)
    assert len(commit) == 12
    evidence.write_text("second")
    assert this_commit(tmp_path) == commit
    code.write_text("second")
    assert this_commit(tmp_path) == f"{commit}-dirty"
