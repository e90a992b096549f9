"""Laws of the module resolver, on tables as depmod writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_core.kernelmodules import ModuleTable, module_name

DEP = """\
kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/arch/x86/crypto/crc32c-intel.ko.xz:
kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko kernel/drivers/net/net_failover.ko
kernel/net/core/failover.ko:
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko
kernel/drivers/nvme/host/nvme-core.ko:
kernel/drivers/nvme/target/nvmet.ko: kernel/drivers/nvme/host/nvme-core.ko
"""
SOFTDEP = "# Soft dependencies\nsoftdep libcrc32c pre: crc32c-intel\nsoftdep xfs post: not_in_this_kernel\n"
BUILTIN = "kernel/fs/ext4/ext4.ko\n"
TABLE = ModuleTable.parse(DEP, SOFTDEP, BUILTIN)


def test_dependencies_of_dependencies_come_along() -> None:
    assert TABLE.closure(["virtio_net"]) == [
        "kernel/drivers/net/net_failover.ko",
        "kernel/drivers/net/virtio_net.ko",
        "kernel/net/core/failover.ko",
    ]


def test_soft_dependencies_come_along_and_absent_ones_do_not_matter() -> None:
    assert TABLE.closure(["xfs"]) == [
        "kernel/arch/x86/crypto/crc32c-intel.ko.xz",
        "kernel/fs/xfs/xfs.ko",
        "kernel/lib/libcrc32c.ko",
    ]


def test_what_is_built_in_is_there_without_a_file() -> None:
    assert TABLE.closure(["ext4"]) == []


@pytest.mark.parametrize("spelt", ["nvme-core", "nvme_core"])
def test_dash_and_underscore_name_the_same_module(spelt: str) -> None:
    assert TABLE.closure([spelt]) == ["kernel/drivers/nvme/host/nvme-core.ko"]


def test_all_wanted_modules_that_are_missing_are_named_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        TABLE.closure(["ahci", "ext4", "e1000e"])
    assert caught.value.faults == ("ahci", "e1000e")


def test_optional_modules_are_taken_when_they_are_there() -> None:
    assert TABLE.closure([], optional=["ahci", "libcrc32c"]) == [
        "kernel/arch/x86/crypto/crc32c-intel.ko.xz",
        "kernel/lib/libcrc32c.ko",
    ]


def test_a_directory_is_taken_whole_and_not_its_neighbour() -> None:
    assert sorted(TABLE.beneath(["kernel/drivers/nvme/host"])) == ["nvme", "nvme_core"]


@given(st.sets(st.sampled_from(sorted(TABLE.paths))))
def test_a_closure_is_closed(wanted: set[str]) -> None:
    chosen = TABLE.closure(wanted)
    names = {module_name(path) for path in chosen}
    assert wanted <= names
    assert all(set(TABLE.depends[name]) <= names for name in names)
    assert TABLE.closure(names) == chosen


@given(st.text(), st.text(), st.text())
def test_any_text_is_a_table(dep: str, softdep: str, builtin: str) -> None:
    table = ModuleTable.parse(dep, softdep, builtin)
    assert set(table.paths) == set(table.depends)
