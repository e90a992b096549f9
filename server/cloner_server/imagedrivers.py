"""What kernels can drive: an image's own, with what its initramfs holds, read from the store; and the installer's.

Kept in memory for the last few. Must not judge what a machine needs; `cloner_core.bootneeds` does.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cloner_core.bootfiles.image import kernels_of
from cloner_core.bootneeds import REBUILDERS
from cloner_core.errors import IntegrityError
from cloner_core.initrd import Initrd, InitrdError, read_initrd
from cloner_core.kernelmodules import ModuleTable, module_name
from cloner_server.catalog import Version
from cloner_server.imagefiles import list_files, read_files
from cloner_server.store.protocol import Store

log = logging.getLogger(__name__)

_KEPT = 4
_MODULES = ("usr/lib/modules/", "lib/modules/")
_TABLES = ("modules.dep", "modules.softdep", "modules.builtin", "modules.alias", "modules.builtin.modinfo")
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageDrivers:
    """The kernel an image boots by default, its modules, and its initramfs."""

    release: str  # as uname -r says
    initramfs: str  # path without the leading slash
    table: ModuleTable
    alias: str  # modules.alias
    builtin: str  # modules.builtin.modinfo
    initrd: Initrd | None  # None: it cannot be read
    trouble: str  # why; "" when it can
    rebuilders: frozenset[str]  # those of REBUILDERS that the image has


@lru_cache(maxsize=4)
def installer_modules(initramfs: Path) -> frozenset[str]:
    """Return the modules that the offered initramfs has, or its kernel has built in; empty when it cannot be read."""
    try:
        with initramfs.open("rb") as file:
            pieces = iter(lambda: file.read(_PIECE_BYTES), b"")
            found = read_initrd(pieces, lambda path: path.endswith("/modules.builtin"))
    except (InitrdError, OSError) as fault:
        log.warning("the drivers of the installer cannot be told: %s", fault)
        return frozenset()
    names = {module_name(path) for path in found.files if "/modules/" in path and ".ko" in path}
    lines = (line for text in found.kept.values() for line in text.decode(errors="replace").split())
    return frozenset(names.union(map(module_name, lines)))


@dataclass(frozen=True, slots=True)
class DriverShelf:
    """Looks images up; safe to use from several threads, one of which reads."""

    store: Store
    _kept: OrderedDict[bytes, ImageDrivers | None] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, version: Version) -> ImageDrivers | None:
        """Return what `version` has; None when it has no kernel with an initramfs and modules in the usual places."""
        with self._lock:
            if version.digest not in self._kept:
                self._kept[version.digest] = read_drivers(self.store, version)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(version.digest)
            return self._kept[version.digest]


def read_drivers(store: Store, version: Version) -> ImageDrivers | None:
    """Read what `DriverShelf.find` returns; raises IntegrityError for damaged parts."""
    tools = tuple(path.lstrip("/") for path in REBUILDERS)
    files = list_files(store, version, ("boot/", *_MODULES, *tools))
    names = [path.removeprefix("boot/") for path in files if path.startswith("boot/")]
    kernel = next((one for one in kernels_of(names) if one.initramfs), None)
    if kernel is None:
        return None
    home = next((f"{base}{kernel.version}/" for base in _MODULES if f"{base}{kernel.version}/modules.dep" in files), "")
    if not home:
        return None
    initramfs = f"boot/{kernel.initramfs}"
    wanted = {path: files[path] for path in (*(home + name for name in _TABLES), initramfs) if path in files}
    contents = read_files(store, version, tuple(wanted.values()))
    texts = {
        name: contents[files[home + name].number].decode(errors="replace") if home + name in files else ""
        for name in _TABLES
    }
    image = contents[files[initramfs].number]
    initrd, trouble = None, ""
    try:
        initrd = read_initrd(image[start : start + _PIECE_BYTES] for start in range(0, len(image), _PIECE_BYTES))
    except (InitrdError, IntegrityError) as fault:
        trouble = fault.message
    return ImageDrivers(
        release=kernel.version,
        initramfs=initramfs,
        table=ModuleTable.parse(texts["modules.dep"], texts["modules.softdep"], texts["modules.builtin"]),
        alias=texts["modules.alias"],
        builtin=texts["modules.builtin.modinfo"],
        initrd=initrd,
        trouble=trouble,
        rebuilders=frozenset(path for path in REBUILDERS if path.lstrip("/") in files),
    )
