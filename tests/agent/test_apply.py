"""Every kind of step a plan can hold can be applied."""

from __future__ import annotations

import typing

from cloner_agent.apply import applied_kinds
from cloner_core.steps import AnyAction


def test_the_closed_set_of_actions_is_covered() -> None:
    assert applied_kinds() == frozenset(typing.get_args(AnyAction))
