"""Settings of the server: every fault at once, before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloner_core.errors import InvalidError
from cloner_server.config import ServerConfig, load_config


def test_what_is_given_goes_before_the_file_and_that_before_the_default(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('tls_port = 9443\nhttp_port = 9080\nkernel_arguments = ["console=ttyS1"]\n')
    config = load_config(file, {"http_port": 80})
    assert (config.tls_port, config.http_port, config.tftp_port) == (9443, 80, 69)
    assert config.kernel_arguments == ("console=ttyS1",)


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none", {}) == ServerConfig()


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    given = {"address": "10.77.0", "tls_port": 70000, "dhcp": "10.1.1.1", "claim_life_s": 7200.0, "attempts": 0}
    with pytest.raises(InvalidError) as caught:
        load_config(tmp_path / "none", given)
    told = " ".join(caught.value.faults)
    assert [name for name in (*given, "interface") if name not in told] == []


@pytest.mark.parametrize("value", ["inf", "nan", "-inf", "0.0"])
def test_a_number_that_counts_to_nowhere_is_refused(tmp_path: Path, value: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f"keep_days = {value}\nlost_s = {value}\n")
    with pytest.raises(InvalidError) as caught:
        load_config(file, {})
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["lost_s", "keep_days"]


@pytest.mark.parametrize("content", [b"tls_port = ", b"tls_port = 'x'", b"future = 1", b"\x00", b"state = '/\xff'"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "server.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidError, match=r"server\.toml"):
        load_config(file, {})


@pytest.mark.parametrize(
    "given",
    [{"dhcp": "proxy", "interface": "eth0"}, {"dhcp": "10.0.0.5-10.0.0.9", "interface": "eth0"}, {"dhcp": "none"}],
)
def test_each_way_of_dhcp_is_accepted(tmp_path: Path, given: dict[str, Any]) -> None:
    assert load_config(tmp_path / "none", given).dhcp == given["dhcp"]
