"""The options of a capture that are kept with an image, and what counts where a command line says otherwise.

Pure. What is of one run alone (message, rate, --allow-secrets) is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from cloner_core.detection import parse_excluded
from cloner_core.errors import InvalidError, RefusedError
from cloner_core.image.tree import Text

LISTED_MOST = 1024


class Conflict(StrEnum):
    """What counts where what the server keeps and what is given or found differ."""

    PROMPT = "prompt"
    SERVER = "server"
    COMMANDLINE = "commandline"


Listed = Annotated[tuple[Text, ...], Meta(max_length=LISTED_MOST)]


class StoredOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an image is captured: kept with it, so that its next version is made as the one before.

    In canonical form (see `canonical`): lists are sorted, nothing is there twice.
    """

    layout: Text = ""  # the layout its nodes have; "" when none was said yet
    exclude_paths: Listed = ()  # absolute paths and patterns
    exclude_devices: Listed = ()  # "/dev/sdb", "model=INTEL*"


@dataclass(frozen=True, slots=True)
class GivenOptions:
    """What one command line says of these options; None: it does not say it, and what is stored counts."""

    layout: str | None = None
    exclude_paths: tuple[str, ...] | None = None  # (): none at all
    exclude_devices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the command line says otherwise than it is stored; "" stands for nothing."""

    flag: str  # "--exclude-paths"
    stored: str
    given: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The options that count, and how they came about."""

    options: StoredOptions
    differences: tuple[Difference, ...] = ()
    ignored: tuple[str, ...] = ()  # what was given in vain, as it is typed: "--exclude-paths /srv,/data"
    is_asked: bool = False  # a person is to be shown the differences, and to say yes to `options`


_FLAGS = {"layout": "--disklayout", "exclude_paths": "--exclude-paths", "exclude_devices": "--exclude-devices"}
DIFFERENCE_TITLES = ("OPTION", "STORED", "GIVEN")
"""The titles of a table of differences."""


def settle(stored: StoredOptions | None, given: GivenOptions, conflict: Conflict, *, can_ask: bool) -> Settled:
    """Return which options count: those `stored` with an image (None: it is new), or those `given`.

    A list that is given stands for the whole of the stored one. Raises InvalidError with every fault of what is given,
    RefusedError that shows every difference when somebody would have to be asked and nobody can be.
    """
    asked = canonical(_over(stored or StoredOptions(), given))
    differences = tuple(differences_of(stored, asked)) if stored is not None else ()
    if stored is None or not differences:
        return Settled(asked)
    if conflict is Conflict.SERVER:
        return Settled(stored, differences, tuple(_typed(stored, asked)))
    if conflict is Conflict.PROMPT and not can_ask:
        raise RefusedError(
            "\n  - ".join(("the options stored with the image are others than those given", *map(_line, differences))),
            hint="--update-conflict server takes what is stored, commandline takes and stores what is given",
        )
    return Settled(asked, differences, is_asked=conflict is Conflict.PROMPT)


def canonical(options: StoredOptions) -> StoredOptions:
    """Return `options` in the one form in which the same options are equal; raises InvalidError with every fault."""
    faults = [fault for text in options.exclude_paths if (fault := exclude_fault(text))]
    try:
        parse_excluded(options.exclude_devices, lambda path: path)
    except InvalidError as wrong:
        faults += wrong.faults
    if faults:
        raise InvalidError("the options of the capture cannot be used", faults=faults)
    devices = (word.strip() for text in options.exclude_devices for word in text.split(","))
    return StoredOptions(
        options.layout,
        _set(options.exclude_paths, lambda text: f"/{text.strip('/')}"),
        _set(devices, lambda word: word if word.startswith("/") or "=" in word or not word else f"/dev/{word}"),
    )


def exclude_fault(text: str) -> str:
    """Return why `text` cannot be a path that is left out; "" when it can."""
    parts = text.strip("/").split("/")
    if text.startswith("/") and not any(part in ("", ".", "..") for part in parts):
        return ""
    return f"{text!r} is not a path from the root of the tree, such as /srv/data or /var/log/*"


def differences_of(old: StoredOptions, new: StoredOptions) -> Iterator[Difference]:
    """Give what `new` has otherwise than `old`, both canonical: a line for each value of a list."""
    for field, flag in _FLAGS.items():
        before, after = getattr(old, field), getattr(new, field)
        if isinstance(before, str):
            if before != after:
                yield Difference(flag, before, after)
            continue
        yield from (Difference(flag, value, "") for value in before if value not in after)
        yield from (Difference(flag, "", value) for value in after if value not in before)


def difference_rows(differences: Sequence[Difference]) -> list[tuple[str, str, str]]:
    """Return the rows of a table under DIFFERENCE_TITLES."""
    return [(one.flag, one.stored or "-", one.given or "-") for one in differences]


def _over(stored: StoredOptions, given: GivenOptions) -> StoredOptions:
    said = {field: value for field in _FLAGS if (value := getattr(given, field)) is not None}
    return msgspec.structs.replace(stored, **said)


def _typed(stored: StoredOptions, asked: StoredOptions) -> Iterator[str]:
    for field, flag in _FLAGS.items():
        value = getattr(asked, field)
        if value != getattr(stored, field):
            text = value if isinstance(value, str) else ",".join(value)
            yield f"{flag} {text}" if text else f'{flag} ""'


def _line(one: Difference) -> str:
    return f"{one.flag}: stored is {one.stored or 'nothing'}, given is {one.given or 'nothing'}"


def _set(values: Iterable[str], spell: Callable[[str], str]) -> tuple[str, ...]:
    return tuple(sorted({spelt for value in values if (spelt := spell(value))}))
