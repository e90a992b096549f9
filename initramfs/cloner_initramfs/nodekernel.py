"""The kernel of the machine this runs on, with the modules and firmware an installer needs, as one layer.

The modules are those of the flavour `full`, those that are loaded here, and those that drive the devices named.
Firmware is taken of the modules that are loaded here or drive such a device: that of all network cards is larger than
the memory of many a node.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloner_core import newc
from cloner_core.errors import InvalidError, NotFoundError, RefusedError
from cloner_core.kernelmodules import ModuleTable, drivers_of, module_name, normal
from cloner_initramfs import host
from cloner_initramfs.drivers import FLAVOURS
from cloner_initramfs.layer import compress, entries_of

REQUIRED = ("vfat", "loop")
"""Without these no clone is made: the ESP, and what the agent mounts."""

_KERNELS = ("boot/vmlinuz-{}", "usr/lib/modules/{}/vmlinuz", "lib/modules/{}/vmlinuz")
_CONFIGS = ("boot/config-{}", "usr/lib/modules/{}/config", "lib/modules/{}/config")
_MODULES = ("usr/lib/modules", "lib/modules")
_FIRMWARE = ("lib/firmware/updates/{}", "lib/firmware/updates", "lib/firmware/{}", "lib/firmware")
_PACKED = ("", ".xz", ".zst")
_TABLES = ("modules.order", "modules.builtin", "modules.builtin.modinfo")
_NO_KERNEL = "install a kernel with its modules there, or name another system with --root"
_UNPACKS = re.compile(r"^CONFIG_RD_ZSTD=y$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class NodeKernel:
    """A kernel and what it needs to be an installer's."""

    release: str
    kernel: Path
    layer: bytes
    modules: tuple[str, ...]  # names, sorted
    firmware: int  # files
    undriven: tuple[str, ...]  # of the devices asked for: no module of this kernel drives them
    lacking: tuple[str, ...]  # modules of the flavour `full` that this kernel does not have


Run = Callable[[Sequence[str | Path]], str]


def collect(
    root: Path, release: str, loaded: Iterable[str], modaliases: Iterable[str], run: Run = host.run
) -> NodeKernel:
    """Return the kernel `release` of the system at `root`, with what drives `modaliases`.

    `loaded` are the names of the modules that are in use. Raises NotFoundError when a part of the kernel is not there,
    RefusedError when it cannot be an installer's.
    """
    kernel = _first(root, _KERNELS, release)
    home = next((root / one / release for one in _MODULES if (root / one / release / "modules.dep").is_file()), None)
    if kernel is None or home is None:
        what = "kernel in /boot" if kernel is None else "modules in /lib/modules"
        there = ", ".join(_releases(root))
        raise NotFoundError(
            f"the system at {root} has no {what} of the release {release}",
            hint=f"--kernel names one of those with modules: {there}" if there else _NO_KERNEL,
        )
    config = _first(root, _CONFIGS, release)
    if config is not None and not _UNPACKS.search(config.read_text(errors="replace")):
        raise RefusedError(
            f"the kernel {release} cannot unpack the server's userland: it lacks CONFIG_RD_ZSTD",
            hint="kernels from 5.9 on can have it; the server has its own (cloner initramfs build --drivers full)",
        )
    table = ModuleTable.parse(*(_text(home / f"modules.{name}") for name in ("dep", "softdep", "builtin")))
    if missing := [name for name in REQUIRED if not table.has(name)]:
        raise RefusedError(f"the kernel {release} has no {' and no '.join(missing)}: no clone can be made with it")
    found = drivers_of(modaliases, _text(home / "modules.alias"), _text(home / "modules.builtin.modinfo"))
    driving = {name for names in found.values() for name in names}
    used = {normal(name) for name in loaded if table.has(name)} | {name for name in driving if table.has(name)}
    full = FLAVOURS["full"]
    optional = (*full.wanted, *full.optional, *table.beneath(full.directories), *used)
    paths = table.closure(REQUIRED, optional=optional)
    with tempfile.TemporaryDirectory(prefix="cloner-installer-") as place:
        staged = Path(place)
        _stage_modules(home, staged, release, paths, run)
        firmware = list(_firmware(root, release, [home / path for path in table.closure(used)], run))
        for inside, source in firmware:
            _copy(source, staged / "usr/lib/firmware" / inside)
        layer = compress(newc.with_parents(entries_of(staged)))
    return NodeKernel(
        release=release,
        kernel=kernel,
        layer=layer,
        modules=tuple(sorted(map(module_name, paths))),
        firmware=len(firmware),
        undriven=tuple(one for one, names in found.items() if not names),
        lacking=tuple(sorted(name for name in full.wanted if not table.has(name))),
    )


def only_release(root: Path) -> str:
    """Return the release of the one kernel with modules in the system at `root`; raises InvalidError naming several."""
    found = _releases(root)
    if len(found) != 1:
        raise InvalidError(
            f"the system at {root} has {len(found)} kernels with modules{': ' if found else ''}{', '.join(found)}",
            hint="--kernel RELEASE names one" if found else _NO_KERNEL,
        )
    return found[0]


def _releases(root: Path) -> list[str]:
    return sorted({path.parent.name for one in _MODULES for path in (root / one).glob("*/modules.dep")})


def _stage_modules(home: Path, staged: Path, release: str, paths: Sequence[str], run: Run) -> None:
    target = staged / "usr/lib/modules" / release
    for path in (*paths, *(name for name in _TABLES if (home / name).is_file())):
        _copy(home / path, target / path)
    run(["depmod", "-b", staged / "usr", release])


def _firmware(root: Path, release: str, modules: Sequence[Path], run: Run) -> Iterator[tuple[str, Path]]:
    """Give path beneath the firmware directory and file of each firmware that `modules` name and that is there."""
    if not modules:
        return
    named = run(["modinfo", "-F", "firmware", *modules]).split()
    for name in dict.fromkeys(named):
        places = (root / where.format(release) / f"{name}{end}" for where in _FIRMWARE for end in _PACKED)
        # Some name patterns, and most name more than a site installs.
        found = next((place for place in places if place.is_file()), None)
        if found is not None:
            yield f"{name}{found.name.removeprefix(Path(name).name)}", found


def _first(root: Path, patterns: Sequence[str], release: str) -> Path | None:
    return next((path for pattern in patterns if (path := root / pattern.format(release)).is_file()), None)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
