"""What a command line names, checked as a whole: every malformed set, unknown node, image and layout in one go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloner_cli.api import NOTHING, Api, Query, segment
from cloner_cli.text import first_few
from cloner_core.admin.images import ImageView, LayoutView
from cloner_core.admin.nodes import GroupView, NodeView
from cloner_core.errors import InvalidError, NotFoundError, UnreachableError
from cloner_core.facts import normalize_mac
from cloner_core.image.reference import VersionName, parse_reference

if TYPE_CHECKING:
    from ClusterShell.NodeUtils import GroupResolver

MAX_NODES_NAMED = 65_536
_ASKS_SERVER = "@*?"  # signs of a node set that only the server's groups and nodes give a meaning
_MOST_DIGITS, _SHOWN = 63, 100
_LONG_NUMBER = re.compile(rf"\d{{{_MOST_DIGITS + 1}}}")
_PART = re.compile(r"\[([^\[\]]*)\]|[,!&^]")  # of a node set: a list of ranges, or what stands between two terms
_RANGE = re.compile(r"\s*(\d+)-(\d+)(?:/(\d+))?")


@dataclass
class Checks:
    """Gathers faults; `settle` raises them together."""

    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    _hint: str = ""
    _unknown_groups: list[str] = field(default_factory=list)

    def nodes(self, api: Api, sets: Sequence[str]) -> list[str]:
        """Return the names in `sets`, each once, in the order of the sets; `api` is asked only for groups."""
        resolver = None
        try:
            if any(sign in text for text in sets for sign in _ASKS_SERVER):
                resolver = _server_groups(api, self._unknown_groups)
        except UnreachableError:
            for text in sets:
                self._expand(text, None)
            self.settle()  # what is wrong without asking anybody comes first
            raise
        names: dict[str, None] = {}
        for text in sets:
            names.update(dict.fromkeys(self._expand(text, resolver)))
        self._lack("group", list(dict.fromkeys(self._unknown_groups)), "cloner group list")
        if not names and not self.wrong and not self.missing:
            self.wrong.append("no node is named")
        return list(names)

    def macs(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return hardware addresses in their one form."""
        known = []
        for text in texts:
            try:
                known.append(normalize_mac(text))
            except ValueError as fault:
                self.wrong.append(str(fault))
        return tuple(known)

    def image(self, text: str) -> tuple[str, VersionName | None]:
        """Return name and version of "debian:3" or "debian:prod"; None is the newest, the name is "" for ""."""
        try:
            return parse_reference(text) if text else ("", None)
        except InvalidError as fault:
            self.wrong.append(fault.message)
            return "", None

    def exist(
        self,
        api: Api,
        *,
        nodes: Sequence[str] = (),
        image: str = "",
        version: VersionName | None = None,
        layout: str = "",
        layout_number: int | None = None,
    ) -> None:
        """Note which of these the server does not know."""
        try:
            if nodes:
                known = {node.name for node in api.get("/v1/nodes", list[NodeView])}
                self._lack("node", [name for name in nodes if name not in known], "cloner node list")
            if image:
                self._check_image(api, image, version)
            if layout:
                self._check_layout(api, layout, layout_number)
        except UnreachableError:
            self.settle()  # what is wrong without asking anybody comes first
            raise

    def settle(self, headline: str = "nothing was changed") -> None:
        """Raise when there is a fault: InvalidError if any is malformed, else NotFoundError."""
        if self.wrong:
            raise InvalidError(headline, faults=[*self.wrong, *self.missing], hint=self._hint)
        if self.missing:
            raise NotFoundError("\n  - ".join((headline, *self.missing)), hint=self._hint)

    def _check_image(self, api: Api, image: str, version: VersionName | None) -> None:
        path = f"/v1/images/{segment(image)}"
        if self._is_known(api, path, ImageView, {"number": version}):
            return
        if version is None or not self._is_known(api, path, ImageView):
            self._lack("image", [image], "cloner image-list")
        elif isinstance(version, str):
            self._lack("channel", [f"{image}:{version}"], "cloner channel list")
        else:
            self._lack("image", [f"{image}:{version}"], "cloner image-list")

    def _check_layout(self, api: Api, layout: str, number: int | None) -> None:
        path = f"/v1/layouts/{segment(layout)}"
        if self._is_known(api, path, LayoutView, {"number": number}):
            return
        is_numbered = number is not None and self._is_known(api, path, LayoutView)
        self._lack("layout", [f"{layout}:{number}" if is_numbered else layout], "cloner disklayout-list")

    @staticmethod
    def _is_known(api: Api, path: str, kind: type[object], query: Query = NOTHING) -> bool:
        try:
            api.get(path, kind, query)
        except NotFoundError:
            return False
        return True

    def _lack(self, kind: str, names: list[str], listing: str) -> None:
        if names:
            shown = first_few(names, 20)
            self.missing.append(f"no such {kind}: {shown}")
            self._hint = f"{self._hint}; {listing}" if self._hint else f"what there is: {listing}"

    def _expand(self, text: str, resolver: GroupResolver | None) -> list[str]:
        # ClusterShell is slow to import, and its own resolver would run programs named in files of this machine.
        from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
        from ClusterShell.NodeUtils import GroupResolverError

        if _LONG_NUMBER.search(text):  # Python reads none of thousands of digits, and no host name has one
            self.wrong.append(f"node set '{text[:_SHOWN]}…': has a number of more than {_MOST_DIGITS} digits")
            return []
        if _most_named(text) > MAX_NODES_NAMED:  # expanding it would take the machine's memory
            self.wrong.append(f"node set '{text}': names more than {MAX_NODES_NAMED} nodes")
            return []
        lacking = len(self._unknown_groups)
        try:
            names = list(NodeSet(text, resolver=resolver or RESOLVER_NOGROUP))
        except GroupResolverError as fault:
            self.wrong.append(f"node set '{text}': there is no source of groups '{fault}'; want @GROUP")
            return []
        except NodeSetException as fault:
            self.wrong.append(f"node set '{text}': {fault}")
            return []
        if text.strip() and not names and len(self._unknown_groups) == lacking:
            self.wrong.append(f"node set '{text}': names no node")
        return names


def _most_named(text: str) -> int:
    """Return the most names that a node set can have: within a term its lists multiply, terms add up at most."""
    total, term = 0, 1
    for part in _PART.finditer(text):
        if part[1] is None:
            total, term = total + term, 1
        else:
            term *= sum(map(_length, part[1].split(",")))
    return total + term


def _length(numbers: str) -> int:
    """Return how many numbers "1-16", "1-16/2" or "7" are."""
    if (found := _RANGE.match(numbers)) is None:
        return 1
    first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
    return max(1, (last - first) // max(1, step) + 1)


def known_nodes(api: Api, sets: Sequence[str]) -> frozenset[str] | None:
    """Return the names in `sets`, None for all nodes; raises when one is malformed or unknown."""
    if not sets:
        return None
    checks = Checks()
    names = checks.nodes(api, sets)
    checks.exist(api, nodes=names)
    checks.settle()
    return frozenset(names)


def _server_groups(api: Api, unknown: list[str]) -> GroupResolver:
    """Return what resolves "@group" as the server knows it; groups that do not exist go to `unknown`."""
    from ClusterShell.NodeUtils import GroupResolver, GroupSource

    class ServerGroups(GroupSource):  # type: ignore[misc]  # ClusterShell has no types
        """The groups of one moment."""

        def resolv_map(self, group: str) -> Any:
            if group not in self.groups:
                unknown.append(group)
            return self.groups.get(group, [])

    groups = {group.name: list(group.nodes) for group in api.get("/v1/groups", list[GroupView])}
    everybody = [node.name for node in api.get("/v1/nodes", list[NodeView])]
    return GroupResolver(ServerGroups("server", groups, everybody))


def fold_nodes(names: Sequence[str]) -> str:
    """Return names as a node set: "node[01-03,07]"; "" for none."""
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

    return str(NodeSet.fromlist(names, resolver=RESOLVER_NOGROUP))
