"""Where the first programs of a netboot lie on the server: names to files, found once at start."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cloner_core.errors import NotFoundError

DEBIAN_FOLDERS = (Path("/usr/lib/ipxe"), Path("/usr/lib/shim"), Path("/usr/lib/grub/x86_64-efi-signed"))


def find_loaders(names: Iterable[str], folders: Iterable[Path] = DEBIAN_FOLDERS) -> dict[str, Path]:
    """Return the file of each name, from the first folder that has it.

    Raises NotFoundError that lists every name missing.
    """
    places = tuple(folders)
    found = {
        name: folder / name for name in sorted(set(names)) for folder in reversed(places) if (folder / name).is_file()
    }
    missing = sorted(set(names) - set(found))
    if missing:
        raise NotFoundError(
            f"boot loaders missing: {', '.join(missing)} (looked in {', '.join(map(str, places))})",
            hint="install the Debian packages ipxe and shim-signed, or name their folder",
        )
    return found
