"""Wrong requests over TLS get nothing and are all in the audit; at length: `./run soak wrong-requests`."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws.wrong_requests import LAW, Runs

pytestmark = pytest.mark.netns


def test_wrong_requests_of_every_kind_get_no_byte_of_an_image(tmp_path: Path) -> None:
    with LAW.open(tmp_path) as case:
        seen = [case(seed) for seed in range(1, 6)]
    assert all(int(each["counted"]) > 0 < int(each["noted"]) for each in seen), "the bound of the audit was not reached"


@pytest.mark.parametrize("at", [0, 1, 31, 32, 33, 100])
def test_a_run_of_an_image_is_found_wherever_it_stands(at: int) -> None:
    blob = bytes(range(256))
    runs = Runs([blob])
    assert runs.are_in(b"x" * 7 + blob[at : at + 64] + b"y")
    assert not runs.are_in(b"x" * 200 + blob[at : at + 31])
