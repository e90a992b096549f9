"""Hardware models: named rules by what the firmware says a machine is, and which of them a setting comes from.

Pure. A node's own setting wins over its model's, a model's over the site's. Of several models that match, the one
whose patterns say most wins, so that "Dell*" may stand beside "PowerEdge R640".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cloner_core.facts import Dmi

SITE = {"local_method": "exit", "boot_order": "network-first"}
"""What holds where neither the node nor a model says anything."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PATTERN_CHARACTERS = 200
_WILD = re.compile(r"\[[^]]*\]|[*?]")


@dataclass(frozen=True, slots=True)
class Model:
    """One rule."""

    name: str
    vendor: str  # shell pattern; "" any
    product: str
    local_method: str  # "": says nothing of it
    boot_order: str

    def means(self, dmi: Dmi) -> bool:
        """Whether a machine that says `dmi` of itself is of this model."""
        pairs = (self.vendor, dmi.vendor), (self.product, dmi.product)
        return all(fnmatchcase(said.strip(), pattern) for pattern, said in pairs if pattern)

    @property
    def weight(self) -> int:
        """How much its patterns say: their characters that stand for themselves."""
        return len(_WILD.sub("", self.vendor)) + len(_WILD.sub("", self.product))


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it comes from."""

    value: str
    source: str  # "node", "model NAME", "site"


def setting_of(field: str, own: str, dmi: Dmi | None, models: Sequence[Model]) -> Setting:
    """Return the value of `field` ("local_method", "boot_order") for a node that has `own`, "" when it has none.

    `dmi` is None while nobody knows what the machine is.
    """
    if own:
        return Setting(own, "node")
    saying = [model for model in models if getattr(model, field) and dmi is not None and model.means(dmi)]
    if not saying:
        return Setting(SITE[field], "site")
    best = min(saying, key=lambda model: (-model.weight, model.name))
    return Setting(str(getattr(best, field)), f"model {best.name}")


def model_faults(model: Model) -> list[str]:
    """Return what is wrong with a rule, each fault with its field."""
    faults = []
    if not _NAME.fullmatch(model.name):
        faults.append(
            f"name: '{model.name}' is not lower-case letters, digits, dots, hyphens, underscores (at most 63)"
        )
    for field in ("vendor", "product"):
        text = getattr(model, field)
        if not text.isprintable() or len(text) > _PATTERN_CHARACTERS or text != text.strip():
            faults.append(f"{field}: want a pattern of at most {_PATTERN_CHARACTERS} printable characters")
    if not model.vendor and not model.product:
        faults.append("vendor, product: at least one must be given; '*' means any")
    if not model.local_method and not model.boot_order:
        faults.append("local_method, boot_order: a model that says neither has no effect")
    return faults
