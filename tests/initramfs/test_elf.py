"""Laws of the ELF reader, on files made here and on the interpreter that runs the test."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_initramfs import elf
from initramfsbench.elves import made


def test_needed_libraries_and_loader_are_read() -> None:
    content = made(needed=("libc.so.6", "libz.so.1"), interpreter="/lib64/ld-linux-x86-64.so.2")
    assert elf.dynamic(content) == elf.Dynamic("/lib64/ld-linux-x86-64.so.2", ("libc.so.6", "libz.so.1"), ())


@pytest.mark.parametrize(
    ("content", "search"),
    [
        pytest.param(made(runpath="$ORIGIN/../x.libs:/opt/lib"), ("$ORIGIN/../x.libs", "/opt/lib"), id="runpath"),
        pytest.param(made(rpath="/old"), ("/old",), id="rpath"),
        pytest.param(made(rpath="/old", runpath="/new"), ("/new",), id="runpath wins over rpath"),
    ],
)
def test_the_search_path_is_read(content: bytes, search: tuple[str, ...]) -> None:
    assert elf.dynamic(content).search == search


def test_the_running_interpreter_needs_a_c_library() -> None:
    wants = elf.dynamic(Path(sys.executable).resolve().read_bytes())
    assert any(name.startswith("libc.so") for name in wants.needed)
    assert wants.interpreter.startswith("/")


@given(st.binary(max_size=300))
def test_bytes_that_are_no_elf_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidError):
        elf.dynamic(content)


@given(st.integers(0, 2000), st.integers(1, 255))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(at: int, change: int) -> None:
    content = bytearray(made(needed=("libc.so.6",), runpath="/x", interpreter="/lib64/ld"))
    at %= len(content)
    content[at] ^= change
    with contextlib.suppress(InvalidError):
        elf.dynamic(bytes(content))


@given(st.integers(0, 2000))
def test_a_file_cut_short_is_read_or_refused(length: int) -> None:
    content = made(needed=("libc.so.6",), interpreter="/lib64/ld")
    with contextlib.suppress(InvalidError):
        elf.dynamic(content[: min(length, len(content) - 1)])
