"""Spoilt parts of a version are refused; at length: `./run soak tree-codec`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from soak.laws.tree_codec import LAW


def test_spoilt_parts_are_refused_or_have_one_meaning(tmp_path: Path) -> None:
    with LAW.open(tmp_path) as case:
        answers = Counter(str(case(seed)["answer"]) for seed in range(1500))
    assert answers["refused"] > 1000
