"""The memory a node is asked for never falls below what the kernel takes to unpack."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_initramfs import Layer, needed_memory_bytes

MIB = 1 << 20


def layer(size_bytes: int, unpacked_bytes: int) -> Layer:
    return Layer("x", Path("x"), "00", size_bytes, unpacked_bytes)


@given(st.integers(0, 1 << 31), st.integers(0, 1 << 31))
def test_the_unpacked_files_fit_into_half_of_it(size: int, unpacked: int) -> None:
    assert needed_memory_bytes([layer(size, unpacked)]) // 2 >= unpacked


@given(st.lists(st.integers(0, 1 << 30), max_size=4), st.integers(0, 1 << 20))
def test_more_layers_never_need_less(sizes: list[int], more: int) -> None:
    layers = [layer(size // 3, size) for size in sizes]
    assert needed_memory_bytes([*layers, layer(1, 2)]) >= needed_memory_bytes(layers)
    assert needed_memory_bytes(layers, more_unpacked_bytes=more) >= needed_memory_bytes(layers)


@pytest.mark.parametrize(
    ("size_mib", "unpacked_mib", "fits_512"),
    [pytest.param(24, 71, True, id="base and vm drivers"), pytest.param(90, 260, False, id="all firmware")],
)
def test_the_layers_of_today_fit_a_small_node_and_big_ones_do_not(
    size_mib: int, unpacked_mib: int, fits_512: bool
) -> None:
    assert (needed_memory_bytes([layer(size_mib * MIB, unpacked_mib * MIB)]) <= 512 * MIB) is fits_512
