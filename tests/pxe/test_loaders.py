"""Loaders are found by name, and every missing one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner_core.errors import NotFoundError
from cloner_pxe.loaders import find_loaders


def test_the_first_folder_that_has_it_wins(tmp_path: Path) -> None:
    for folder, name in (("one", "a.efi"), ("two", "a.efi"), ("two", "b.efi")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"x")
    found = find_loaders({"a.efi", "b.efi"}, [tmp_path / "one", tmp_path / "two"])
    assert found == {"a.efi": tmp_path / "one/a.efi", "b.efi": tmp_path / "two/b.efi"}


def test_every_missing_loader_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"x\.efi, y\.kpxe"):
        find_loaders(["y.kpxe", "x.efi"], [tmp_path])
