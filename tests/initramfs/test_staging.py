"""Laws of staging: links bring their targets, libraries come along, what is missing is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloner_core.errors import InvalidError
from cloner_initramfs.contents import stdlib_leaves_out, wheel_leaves_out
from cloner_initramfs.packages import merge_directories
from cloner_initramfs.staging import Staging
from initramfsbench.elves import made


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    sysroot, root = tmp_path / "sysroot", tmp_path / "root"
    sysroot.mkdir()
    root.mkdir()
    merge_directories(sysroot)
    files = {
        "usr/bin/tool": made(needed=("liba.so.1",), interpreter="/lib64/ld.so"),
        "usr/lib64/ld.so": made(),
        "usr/lib/x86_64-linux-gnu/liba.so.1.2": made(needed=("libb.so", "libc.so")),
        "usr/lib/x86_64-linux-gnu/libb.so": made(needed=("liba.so.1",)),
        "usr/lib/libc.so": made(),
        "usr/lib/x86_64-linux-gnu/unused.so": made(),
        "usr/share/text": b"words",
        "usr/share/tests/text": b"words",
    }
    for name, content in files.items():
        path = sysroot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (sysroot / "usr/lib/x86_64-linux-gnu/liba.so.1").symlink_to("liba.so.1.2")
    (sysroot / "usr/bin/alias").symlink_to("/bin/tool")
    (sysroot / "usr/bin/loop").symlink_to("loop")
    (sysroot / "usr/bin/out").symlink_to("../../../outside")
    (tmp_path / "outside").write_text("a file of the building machine")
    return Staging(sysroot, root)


def staged(staging: Staging) -> set[str]:
    found = (path for path in staging.root.rglob("*") if path.is_symlink() or path.is_file())
    return {str(path.relative_to(staging.root)) for path in found} - {"bin", "sbin", "lib", "lib64"}


def test_a_program_brings_its_loader_and_the_libraries_of_its_libraries(staging: Staging) -> None:
    staging.take(["usr/bin/tool"])
    staging.take_libraries()
    assert staged(staging) == {
        "usr/bin/tool",
        "usr/lib64/ld.so",
        "usr/lib/x86_64-linux-gnu/liba.so.1",
        "usr/lib/x86_64-linux-gnu/liba.so.1.2",
        "usr/lib/x86_64-linux-gnu/libb.so",
        "usr/lib/libc.so",
    }


def test_a_link_brings_its_target_and_stays_a_link(staging: Staging) -> None:
    staging.take(["bin/alias"])
    assert staged(staging) == {"usr/bin/alias", "usr/bin/tool"}
    assert os.readlink(staging.root / "usr/bin/alias") == "/bin/tool"


@pytest.mark.parametrize("path", ["usr/bin/nothing", "usr/bin/loop", "usr/bin/out", "../outside"])
def test_what_the_packages_do_not_hold_is_refused_by_name(staging: Staging, path: str) -> None:
    with pytest.raises(InvalidError) as caught:
        staging.take(["usr/share/text", path])
    assert caught.value.faults == (path,)


def test_a_library_that_is_nowhere_is_named_with_who_wants_it(staging: Staging) -> None:
    (staging.sysroot / "usr/lib/libc.so").unlink()
    staging.take(["usr/bin/tool"])
    with pytest.raises(InvalidError) as caught:
        staging.take_libraries()
    assert caught.value.faults == ("libc.so, wanted by usr/lib/x86_64-linux-gnu/liba.so.1.2",)


def test_a_wheel_finds_the_libraries_it_carries(staging: Staging) -> None:
    for name, content in {
        "w/x.so": made(needed=("libown.so",), runpath="$ORIGIN/../w.libs"),
        "w.libs/libown.so": made(),
    }.items():
        staging.write(f"usr/lib/python3/dist-packages/{name}", content)
    before = staged(staging)
    staging.take_libraries()
    assert staged(staging) == before


def test_a_tree_is_taken_without_what_is_left_out(staging: Staging) -> None:
    staging.take_tree("usr/share", leave_out=lambda path: path == "tests")
    assert staged(staging) == {"usr/share/text"}


@pytest.mark.parametrize(
    ("path", "is_left_out"),
    [
        ("asyncio/base_events.py", False),
        ("asyncio/test", True),
        ("idlelib", True),
        ("encodings/utf_8.py", False),
        ("encodings/cp1006.py", True),
        ("lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", False),
        ("lib-dynload/_sqlite3.cpython-311-x86_64-linux-gnu.so", True),
        (".", False),
    ],
)
def test_the_standard_library_is_trimmed(path: str, is_left_out: bool) -> None:
    assert stdlib_leaves_out(path) is is_left_out


@pytest.mark.parametrize(
    ("path", "is_left_out"),
    [
        ("psutil/__init__.py", False),
        ("psutil/tests/test_linux.py", True),
        ("bitarray/test_bitarray.py", True),
        ("msgspec/_core.pyi", True),
        ("x.so", False),
    ],
)
def test_wheels_are_trimmed(path: str, is_left_out: bool) -> None:
    assert wheel_leaves_out(path) is is_left_out
