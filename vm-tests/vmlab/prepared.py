"""`python -m vmlab.prepared`: makes what many tests want and the cache lacks, once, before several of them want it."""

from __future__ import annotations

import sys

from cloner_core.errors import ClonerError
from cloner_initramfs import Cache, build_base, build_drivers, build_kit, default_cache
from vmlab.golden_busybox import golden_busybox
from vmlab.golden_debian import golden_debian


def prepare(cache: Cache) -> None:
    """Make layers, kit and golden trees that are not there yet; raises ClonerError when one cannot be made."""
    build_base(cache)
    for flavour in ("vm", "full"):
        build_drivers(cache, flavour)
    build_kit(cache)
    golden_busybox(cache)
    golden_debian(cache)


def main() -> int:
    """Prepare the cache of this machine; return the exit status."""
    try:
        prepare(Cache(default_cache()))
    except ClonerError as error:
        print(f"vmlab.prepared: {error}", file=sys.stderr)
        return int(error.exit_status)
    return 0


if __name__ == "__main__":
    sys.exit(main())
