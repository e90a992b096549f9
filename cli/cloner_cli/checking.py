"""What a command line names, checked as a whole: every malformed set, unknown node, image and layout in one go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloner_cli.api import Api
from cloner_core.admin import ImageView, LayoutView, NodeView
from cloner_core.errors import InvalidError, NotFoundError, UnreachableError

MAX_NODES_NAMED = 65_536
_RANGE = re.compile(r"(\d+)-(\d+)")
_REFERENCE = re.compile(r"([^:\s]+)(?::([1-9][0-9]{0,8}))?")


@dataclass
class Checks:
    """Gathers faults; `settle` raises them together."""

    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    _hint: str = ""

    def nodes(self, sets: Sequence[str]) -> list[str]:
        """Return the names in `sets`, each once, in the order of the sets."""
        names: dict[str, None] = {}
        for text in sets:
            names.update(dict.fromkeys(self._expand(text)))
        if not names and not self.wrong:
            self.wrong.append("no node is named")
        return list(names)

    def image(self, text: str) -> tuple[str, int | None]:
        """Return name and number of "debian:3"; the number is None when there is none, the name "" for ""."""
        if not text:
            return "", None
        match = _REFERENCE.fullmatch(text)
        if match is None:
            self.wrong.append(f"image '{text}': want NAME or NAME:NUMBER")
            return "", None
        return match[1], int(match[2]) if match[2] else None

    def exist(
        self, api: Api, *, nodes: Sequence[str] = (), image: str = "", version: int | None = None, layout: str = ""
    ) -> None:
        """Note which of these the server does not know."""
        try:
            if nodes:
                known = {node.name for node in api.get("/v1/nodes", list[NodeView])}
                self._lack("node", [name for name in nodes if name not in known], "cloner node list")
            if image:
                self._check_image(api, image, version)
            if layout:
                layouts = {view.name for view in api.get("/v1/layouts", list[LayoutView])}
                self._lack("layout", [] if layout in layouts else [layout], "cloner disklayout-list")
        except UnreachableError:
            self.settle()  # what is wrong without asking anybody comes first
            raise

    def settle(self, headline: str = "nothing was changed") -> None:
        """Raise when there is a fault: InvalidError if any is malformed, else NotFoundError."""
        if self.wrong:
            raise InvalidError(headline, faults=[*self.wrong, *self.missing], hint=self._hint)
        if self.missing:
            raise NotFoundError("\n  - ".join((headline, *self.missing)), hint=self._hint)

    def _check_image(self, api: Api, image: str, version: int | None) -> None:
        numbers = [view.number for view in api.get("/v1/images", list[ImageView]) if view.image == image]
        if not numbers:
            self._lack("image", [image], "cloner image-list")
        elif version is not None and version not in numbers:
            self._lack("image", [f"{image}:{version}"], "cloner image-list")

    def _lack(self, kind: str, names: list[str], listing: str) -> None:
        if names:
            shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
            self.missing.append(f"no such {kind}: {shown}")
            self._hint = f"{self._hint}; {listing}" if self._hint else f"what there is: {listing}"

    def _expand(self, text: str) -> list[str]:
        # ClusterShell is slow to import, and its "@group" would run programs named in files of this machine.
        from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

        counts = 1
        for first, last in _RANGE.findall(text):
            counts *= max(1, min(int(last) - int(first) + 1, MAX_NODES_NAMED + 1))
        if counts > MAX_NODES_NAMED:  # expanding it would take the machine's memory
            self.wrong.append(f"node set '{text}': names more than {MAX_NODES_NAMED} nodes")
            return []
        try:
            return list(NodeSet(text, resolver=RESOLVER_NOGROUP))
        except NodeSetException as fault:
            self.wrong.append(f"node set '{text}': {fault}")
            return []


def fold_nodes(names: Sequence[str]) -> str:
    """Return names as a node set: "node[01-03,07]"; "" for none."""
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

    return str(NodeSet.fromlist(names, resolver=RESOLVER_NOGROUP))
