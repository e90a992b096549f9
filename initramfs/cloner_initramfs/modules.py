"""Works out which kernel modules a set of wanted ones brings along.

Pure: the tables of depmod in, module paths out. Must not read files or know why a module is wanted.
Source: modules.dep(5), modprobe.d(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

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
        missing = [name for name in queue if not self._has(name)]
        if missing:
            raise InvalidError("this kernel lacks modules that are wanted", faults=sorted(missing))
        queue += [name for name in map(normal, optional) if self._has(name)]
        chosen: set[str] = set()
        while queue:
            name = queue.pop()
            if name in chosen or name not in self.paths:
                continue
            chosen.add(name)
            queue += self.depends[name]
            queue += self.soft.get(name, ())
        return sorted(self.paths[name] for name in chosen)

    def _has(self, name: str) -> bool:
        return name in self.paths or name in self.builtin


def module_name(path: str) -> str:
    """Return the module's name for a path such as `kernel/fs/nls/nls_cp437.ko.xz`."""
    return normal(PurePosixPath(path).name.partition(".ko")[0])


def normal(name: str) -> str:
    """Return the name as the kernel spells it: `-` and `_` are the same to modprobe."""
    return name.replace("-", "_")
