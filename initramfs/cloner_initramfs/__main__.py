"""`python -m cloner_initramfs --out DIR`: builds the layers and puts them, with the kernel, into a directory."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import msgspec

from cloner_core.errors import ClonerError
from cloner_initramfs import Cache, default_cache, write_installer
from cloner_initramfs.drivers import FLAVOURS


def main(arguments: list[str] | None = None) -> int:
    """Build and copy; return the exit status."""
    parser = argparse.ArgumentParser(prog="cloner_initramfs", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory for base, drivers and kernel")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where built layers are kept")
    parser.add_argument("--drivers", choices=sorted(FLAVOURS), default="vm", help="which kernel and modules")
    parser.add_argument("--json", action="store_true", help="print what was built as JSON")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.monotonic()
    try:
        manifest = write_installer(Cache(chosen.cache), chosen.out, flavour=chosen.drivers)
    except ClonerError as error:
        print(f"cloner_initramfs: {error}", file=sys.stderr)
        return error.exit_status
    if chosen.json:
        print(msgspec.json.encode(manifest).decode())
        return 0
    for one in manifest.layers:
        print(f"{one.name}: {one.size_bytes / 2**20:.1f} MiB, unpacked {one.unpacked_bytes / 2**20:.1f} MiB")
    needed = manifest.needed_memory_bytes / 2**20
    print(f"kernel {manifest.release}; a node needs {needed:.0f} MiB; {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
