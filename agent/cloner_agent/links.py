"""Shows the interfaces as sysfs has them: link, speed, how often the carrier came and went, errors of the wire.

Only reads; what `ip` shows beside it has no speed and no changes of the carrier.
"""

from __future__ import annotations

from pathlib import Path

# Documentation/ABI/testing/sysfs-class-net and -statistics.
_FIELDS = (
    "address",
    "operstate",
    "carrier",
    "speed",
    "duplex",
    "mtu",
    "carrier_changes",
    "carrier_up_count",
    "carrier_down_count",
    "statistics/rx_errors",
    "statistics/rx_crc_errors",
    "statistics/rx_dropped",
    "statistics/tx_errors",
    "statistics/tx_dropped",
)


def describe_interfaces(root: str = "/") -> str:
    """Return a line for each interface: "eth0: driver e1000e, address …, carrier 1, speed 1000, …".

    What an interface does not tell (the speed of one without a link) is left out. `root` stands before /sys.
    """
    net = Path(root) / "sys/class/net"
    return "\n".join(_line(path) for path in sorted(net.iterdir()))


def _line(interface: Path) -> str:
    driver = interface / "device/driver"
    told = [f"driver {driver.resolve().name}"] if driver.exists() else []
    for field in _FIELDS:
        try:
            value = (interface / field).read_text(errors="replace").strip()
        except OSError:  # EINVAL: the interface is down
            continue
        told.append(f"{field.rpartition('/')[2]} {value}")
    return f"{interface.name}: {', '.join(told)}"
