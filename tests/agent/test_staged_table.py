"""The table of staged failures says what is tested, and every row of it has a test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from agentbench.row import Row
from agentbench.rows import KILL_ROWS, ROWS
from agentbench.staged_table import ELSEWHERE, STAGED, Elsewhere, lines
from cloner_core.messages import DEPLOY_STAGES, SCRIPT_STAGES

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "staged-failures.md"


def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_table_is_the_tested_rows() -> None:
    told = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    wanted = list(lines())
    assert told == wanted, "docs/staged-failures.md is to hold:\n" + "\n".join(wanted)


@pytest.mark.parametrize("one", ELSEWHERE, ids=lambda one: one.what)
def test_a_row_with_a_test_elsewhere_has_it(one: Elsewhere) -> None:
    assert one.test in names_in(one.file)


def test_every_row_is_a_case() -> None:
    assert {"test_a_staged_failure", "test_a_server_killed"} <= names_in(STAGED)
    assert len(ROWS) + len(KILL_ROWS) + len(ELSEWHERE) >= 25


@pytest.mark.parametrize("word", ["network gone at", "server killed at"])
def test_no_stage_is_left_out(word: str) -> None:
    both = [*ROWS.values(), *KILL_ROWS.values()]
    assert {row.what for row in both if row.what.startswith(word)} == {
        f"{word} {stage}" for stage in DEPLOY_STAGES if stage not in SCRIPT_STAGES
    }


@pytest.mark.parametrize("row", [*ROWS.values(), *KILL_ROWS.values()], ids=lambda row: row.name)
def test_a_failure_has_cause_and_hint_and_nothing_else_has(row: Row) -> None:
    is_failed = row.state == "failed"
    assert [bool(row.stage), bool(row.cause), bool(row.expected_hint)] == [is_failed] * 3
