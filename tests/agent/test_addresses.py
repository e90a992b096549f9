"""Network interfaces as the kernel's files tell them."""

from __future__ import annotations

from pathlib import Path

from cloner_agent.addresses import read_links, read_macs


def test_interfaces_of_hardware_are_shown_those_with_a_carrier_first(tmp_path: Path) -> None:
    for name, carrier, is_real in (("xa0", "0", True), ("xb0", "1", True), ("xlo", "1", False), ("xc0", None, True)):
        place = tmp_path / "sys/class/net" / name
        place.mkdir(parents=True)
        if carrier is not None:
            (place / "carrier").write_text(f"{carrier}\n")
        if is_real:
            (place / "device").mkdir()
    inet6 = tmp_path / "proc/net/if_inet6"
    inet6.parent.mkdir(parents=True)
    inet6.write_text(
        "20010db8000000000000000000000005 02 40 00 80      xb0\nfe800000000000000000000000000001 02 40 20 80 xb0\n"
    )
    links = read_links(str(tmp_path))
    assert [(link.name, link.has_carrier) for link in links] == [("xb0", True), ("xa0", False), ("xc0", False)]
    assert links[0].addresses == ("2001:db8::5",)


def test_the_addresses_of_hardware_are_told_and_nothing_else(tmp_path: Path) -> None:
    for name, address, is_real in (
        ("eth0", "52:54:00:AA:00:01", True),
        ("br0", "52:54:00:aa:00:02", False),
        ("ib0", "80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:01:0f:2d", True),
        ("eth1", "52:54:00:aa:00:03", True),
    ):
        place = tmp_path / "sys/class/net" / name
        place.mkdir(parents=True)
        (place / "address").write_text(f"{address}\n")
        if is_real:
            (place / "device").mkdir()
    assert read_macs(str(tmp_path)) == ("52:54:00:aa:00:01", "52:54:00:aa:00:03")
    assert read_macs(str(tmp_path / "nosuch")) == ()
