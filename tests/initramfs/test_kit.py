"""Laws of the kit: its bytes are its files' alone, and what is given away names what it needs by digest."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from pathlib import Path

import pytest

from cloner_core.errors import IntegrityError, NotFoundError
from cloner_initramfs.kit import ARCHIVE, INSTALL, MANIFEST, archive_name, install_name, put_kit, read_kit, write_kit
from initramfsbench.kits import make_kit

FILES = {"usr/bin/cloner": b"#!/bin/sh\n", "usr/lib/x.pyc": b"\0" * 5000, "usr/lib/a.so": b"elf"}


def tree(root: Path, names: list[str], time_s: int) -> Path:
    """Make a tree, its files in an order and of a time."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
        path.chmod(0o700 if name.endswith("cloner") else 0o600)
        os.utime(path, (time_s, time_s))
    (root / "bin").symlink_to("usr/bin")
    return root


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for number, names in enumerate((list(FILES), list(reversed(FILES)))):
        place = tmp_path / f"kit{number}"
        place.mkdir()
        made.append((write_kit(tree(tmp_path / f"tree{number}", names, number), place), place / ARCHIVE))
    (first, archive), (second, other) = made
    assert first == second
    assert archive.read_bytes() == other.read_bytes()
    with tarfile.open(archive) as tar:
        found = {entry.name: (entry.mode, entry.uid, entry.linkname) for entry in tar if not entry.isdir()}
    assert found == {
        "bin": (0o777, 0, "usr/bin"),
        "usr/bin/cloner": (0o755, 0, ""),
        "usr/lib/a.so": (0o644, 0, ""),
        "usr/lib/x.pyc": (0o644, 0, ""),
    }
    assert first.unpacked_bytes == sum(map(len, FILES.values()))


def test_the_script_names_the_archive_by_its_digest(tmp_path: Path) -> None:
    manifest = make_kit(tmp_path / "kit")
    script = (tmp_path / "kit" / INSTALL).read_bytes()
    assert manifest.archive_digest == hashlib.sha256(b"an archive").hexdigest()
    assert manifest.install_digest == hashlib.sha256(script).hexdigest()
    assert f"archive={archive_name(manifest)} digest={manifest.archive_digest}".encode() in script
    assert not re.search(rb"@[A-Z_]+@", script), "everything is filled in"
    assert read_kit(tmp_path / "kit") == manifest


def test_a_new_kit_takes_the_place_of_the_former(tmp_path: Path) -> None:
    out = tmp_path / "state/kit"
    make_kit(tmp_path / "old", b"old")
    make_kit(tmp_path / "new", b"new")
    old = put_kit(tmp_path / "old", out)
    assert (out / archive_name(old)).read_bytes() == b"old"
    new = put_kit(tmp_path / "new", out)
    assert sorted(path.name for path in out.iterdir()) == sorted((MANIFEST, archive_name(new), install_name(new)))
    assert read_kit(out) == new
    assert put_kit(tmp_path / "new", out) == new, "once more is no harm"


def test_what_is_no_kit_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no kit for golden nodes") as refused:
        read_kit(tmp_path)
    assert refused.value.hint == "cloner kit build"
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_kit(tmp_path)
