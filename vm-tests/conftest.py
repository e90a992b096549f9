"""Fixtures of the tests that start virtual machines."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from cloner_initramfs import Cache, default_cache
from vmlab import Lab

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test failed, so that the lab keeps its logs."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A fresh lab; its logs stay when the test fails."""
    with Lab(title=request.node.name) as made:
        yield made
        made.evidence.failed = request.node.stash.get(_FAILED, False)


@pytest.fixture(scope="session")
def cache() -> Cache:
    """The cache of built layers and golden trees, kept between runs."""
    return Cache(default_cache())
