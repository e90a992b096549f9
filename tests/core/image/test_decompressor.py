"""The decompressor with memory of its own: what it takes, and that it takes nothing else, with libzstd and without."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import IntegrityError
from cloner_core.image import decompressor
from cloner_core.image.compression import compress, decompress
from cloner_core.image.decompressor import Decompressor
from cloner_core.image.digest import Bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST = 1 << 16
CONTENT = b"content" * 100


@pytest.fixture(params=["with libzstd", "without"])
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Decompressor]:
    if request.param == "without":
        monkeypatch.setattr(decompressor, "_LIBRARY", "libnosuch.so.1")
    decompressor._library.cache_clear()
    yield Decompressor(MOST)
    decompressor._library.cache_clear()


def test_frame_after_frame_gives_its_content(made: Decompressor) -> None:
    for content in (CONTENT, b"x", bytes(MOST), CONTENT):
        assert bytes(made.decompress(compress(content), len(content), "it")) == content


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_a_frame_may_lie_in_any_memory(made: Decompressor, form: Callable[[bytes], Bytes]) -> None:
    assert bytes(made.decompress(form(compress(CONTENT)), len(CONTENT), "it")) == CONTENT


FRAME = compress(CONTENT)
SKIPPED = b"\x50\x2a\x4d\x18\x03\0\0\0abc"  # RFC 8878, 3.1.2: a frame of three bytes to be skipped
WRONG = {
    "nothing": b"",
    "no frame": b"x" * 40,
    "the half of one": FRAME[: len(FRAME) // 2],
    "all but a byte": FRAME[:-1],
    "a byte more": FRAME + b"x",
    "two frames": FRAME + FRAME,
    "two that together are as long": compress(CONTENT[:350]) * 2,
    "a longer content": compress(CONTENT + b"x"),
    "a shorter content": compress(CONTENT[:-1]),
    "a frame to be skipped": SKIPPED,
    "one to be skipped, then the frame": SKIPPED + FRAME,
    "the frame, then one to be skipped": FRAME + SKIPPED,
    "a frame of a dictionary": zstd.compress(
        CONTENT, zstd_dict=zstd.train_dict([CONTENT[at:] for at in range(99)], 512)
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_anything_but_one_frame_of_that_content_is_refused(made: Decompressor, name: str) -> None:
    with pytest.raises(IntegrityError, match=r"\Ait "):
        made.decompress(WRONG[name], len(CONTENT), "it")
    assert bytes(made.decompress(FRAME, len(CONTENT), "it")) == CONTENT, "and the next one is as before"


@pytest.mark.parametrize(("window", "is_taken"), [(13 << 3, True), (13 << 3 | 1, False), (31 << 3, False)])
def test_a_window_above_eight_mebibytes_is_refused(made: Decompressor, window: int, *, is_taken: bool) -> None:
    """A frame that tells its window and not the size of its content (RFC 8878, 3.1.1.1), else whole."""
    assert FRAME[4] == 0x60, "the content is the window, and its size has two bytes"
    told = FRAME[:4] + bytes([0, window]) + FRAME[7:]
    if is_taken:
        assert bytes(made.decompress(told, len(CONTENT), "it")) == CONTENT
    else:
        with pytest.raises(IntegrityError, match=r"\Ait "):
            made.decompress(told, len(CONTENT), "it")


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 255)), max_size=3))
def test_what_the_other_one_takes_it_takes_alike(piece: bytes, changes: list[tuple[int, int]]) -> None:
    """Not the other way round: libzstd is of another release than the module, and that one may be stricter."""
    content = piece * 7
    stored = bytearray(compress(content))
    for at, flip in changes:
        stored[at % len(stored)] ^= flip
    try:
        wanted = decompress(stored, len(content), "it")
    except IntegrityError:
        return
    assert bytes(Decompressor(MOST).decompress(stored, len(content), "it")) == wanted


def test_libzstd_is_there_where_this_runs() -> None:
    """Else the tests above show nothing of it, and a restore is slow."""
    assert decompressor._library() is not None
