"""Names nobody should ask TFTP for; at length: `./run soak tftp-names`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from soak.laws.tftp_names import LAW

pytestmark = pytest.mark.netns


def test_only_listed_files_are_sent_whatever_the_name(tmp_path: Path) -> None:
    with LAW.open(tmp_path) as case:
        answers = Counter(str(case(seed)["answer"]) for seed in range(500))
    assert min(answers["served"], answers["refused"]) > 0
