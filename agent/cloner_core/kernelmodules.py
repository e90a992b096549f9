"""Works out which kernel modules a set of wanted ones brings along, and which of them drive a device.

Pure: the tables of depmod in, module paths out. Must not read files or know why a module is wanted.
Source: modules.dep(5), modprobe.d(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from cloner_core.errors import InvalidError


@dataclass(frozen=True, slots=True)
class ModuleTable:
    """What one kernel release offers; names use `_`, never `-`."""

    paths: Mapping[str, str]  # name -> path beneath the release's directory
    depends: Mapping[str, tuple[str, ...]]  # name -> names of hard dependencies, all levels
    soft: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> names wanted before or after
    builtin: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, dep: str, softdep: str, builtin: str) -> ModuleTable:
        """Build the table from the text of modules.dep, modules.softdep and modules.builtin."""
        paths: dict[str, str] = {}
        depends: dict[str, tuple[str, ...]] = {}
        for line in dep.splitlines():
            path, _, needs = line.partition(":")
            if path:
                paths[module_name(path)] = path
                depends[module_name(path)] = tuple(module_name(need) for need in needs.split())
        soft: dict[str, tuple[str, ...]] = {}
        for line in softdep.splitlines():
            words = line.split()
            if len(words) > 2 and words[0] == "softdep":
                wanted = tuple(normal(word) for word in words[2:] if not word.endswith(":"))
                soft[normal(words[1])] = soft.get(normal(words[1]), ()) + wanted
        return cls(paths, depends, soft, frozenset(module_name(line) for line in builtin.split()))

    def beneath(self, directories: Sequence[str]) -> Iterator[str]:
        """Yield the names of all modules beneath these directories of the release, such as `kernel/drivers/nvme`."""
        prefixes = tuple(f"{directory.rstrip('/')}/" for directory in directories)
        return (name for name, path in self.paths.items() if path.startswith(prefixes))

    def closure(self, wanted: Iterable[str], *, optional: Iterable[str] = ()) -> list[str]:
        """Return the sorted paths of the modules wanted and everything they need.

        What is built in counts as present. A soft dependency this kernel lacks is left out, as modprobe does.
        Raises InvalidError naming every wanted module that the kernel does not have.
        """
        queue = [normal(name) for name in wanted]
        missing = [name for name in queue if not self.has(name)]
        if missing:
            raise InvalidError("this kernel lacks modules that are wanted", faults=sorted(missing))
        queue += [name for name in map(normal, optional) if self.has(name)]
        chosen: set[str] = set()
        while queue:
            name = queue.pop()
            if name in chosen or name not in self.paths:
                continue
            chosen.add(name)
            queue += self.depends[name]
            queue += self.soft.get(name, ())
        return sorted(self.paths[name] for name in chosen)

    def has(self, name: str) -> bool:
        """Tell whether the kernel has `name`, as a module or built in."""
        return normal(name) in self.paths or normal(name) in self.builtin

    def lacking(self, name: str, present: Set[str]) -> frozenset[str]:
        """Return what of the module `name`, and of those it depends on, is neither `present` nor built in."""
        wanted = {normal(name), *self.depends.get(normal(name), ())}
        return frozenset(wanted - present - self.builtin)


def module_name(path: str) -> str:
    """Return the module's name for a path such as `kernel/fs/nls/nls_cp437.ko.xz`."""
    return normal(path.rsplit("/", 1)[-1].partition(".ko")[0])


def normal(name: str) -> str:
    """Return the name as the kernel spells it: `-` and `_` are the same to modprobe."""
    return name.replace("-", "_")


def drivers_of(modaliases: Iterable[str], alias: str, builtin: str = "") -> dict[str, frozenset[str]]:
    """Return for each of `modaliases` (sysfs, "pci:v0000…") the modules that say they drive such a device.

    `alias` is the text of modules.alias, `builtin` that of modules.builtin.modinfo, whose modules are part of the
    kernel and may have no file. Source: depmod(8), modpost's do_table().
    """
    wanted = {modalias: modalias.partition(":")[0] for modalias in modaliases}
    found: dict[str, set[str]] = {modalias: set() for modalias in wanted}
    for pattern, name in (*_alias_lines(alias), *_builtin_aliases(builtin)):
        bus, fixed = pattern.partition(":")[0], pattern.partition("*")[0]
        for modalias, of_bus in wanted.items():
            if bus == of_bus and modalias.startswith(fixed.partition("[")[0]) and fnmatchcase(modalias, pattern):
                found[modalias].add(normal(name))
    return {modalias: frozenset(names) for modalias, names in found.items()}


def _alias_lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "alias":
            yield words[1], words[2]


def _builtin_aliases(text: str) -> Iterator[tuple[str, str]]:
    for entry in text.split("\0"):
        name, _, value = entry.partition(".alias=")
        if value:
            yield value, name
