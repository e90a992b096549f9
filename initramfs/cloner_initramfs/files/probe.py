"""Prints what the initramfs offers the agent, one `cloner-probe: name=value` line each; for `cloner.probe=1`.

Stands alone: it must say what is missing even when the agent's own packages are.
"""

import ctypes
import importlib
import json
import os
import platform
import ssl
import time

MODULES = (
    "psutil",
    "pyudev",
    "blake3",
    "bitarray",
    "backports.zstd",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "msgspec",
    "msgpack",
    "asyncssh",
    "cloner_core",
    "cloner_agent",
    "cloner_multicast.feed",
)
LIBRARIES = ("libudev.so.1", "libzstd.so.1")  # loaded by name


def say(name: str, value: object) -> None:
    """Print one fact."""
    print(f"cloner-probe: {name}={json.dumps(value)}", flush=True)


def main() -> int:
    """Print all facts; return 1 when a module or library cannot be loaded."""
    say("python", platform.python_version())
    say("kernel", platform.release())
    missing = {}
    for name in MODULES:
        started = time.monotonic()
        try:
            importlib.import_module(name)
        except (ImportError, OSError, AttributeError) as error:
            missing[name] = repr(error)
        else:
            say(f"import.{name}", round(time.monotonic() - started, 3))
    for name in LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            missing[name] = repr(error)
    say("missing", missing)
    say("openssl", ssl.OPENSSL_VERSION)
    say("efivars", os.path.isdir("/sys/firmware/efi/efivars") and len(os.listdir("/sys/firmware/efi/efivars")))
    if "pyudev" not in missing:
        import pyudev

        disks = pyudev.Context().list_devices(subsystem="block", DEVTYPE="disk")
        real = [one for one in disks if not one.sys_name.startswith("loop")]
        # ID_SERIAL of SCSI and NVMe has the model before the serial number; virtio has no short form.
        say("disks", {one.sys_name: one.get("ID_SERIAL_SHORT") or one.get("ID_SERIAL") for one in real})
    say("interfaces", sorted(os.listdir("/sys/class/net")))
    if "psutil" not in missing:
        import psutil

        memory = psutil.virtual_memory()
        say("memory_bytes", {"total": memory.total, "available": memory.available})
    say("rootfs_free_bytes", (found := os.statvfs("/")).f_bavail * found.f_frsize)
    with open("/proc/uptime") as file:
        say("uptime_s", float(file.read().split()[0]))
    return 1 if missing else 0


raise SystemExit(main())
