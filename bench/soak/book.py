"""The record of a soak under way: a line for each case, so that a killed soak goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cloner_core.errors import NotFoundError


class Entry(msgspec.Struct, frozen=True):
    """One case that was tried."""

    seed: int
    seconds: float
    figures: Mapping[str, float | str]
    failure: str = ""  # "" when the law held


class Heading(msgspec.Struct, frozen=True):
    """What the entries of a book have in common; a book with another heading is of no use."""

    law: str
    commit: str
    first_seed: int
    count: int


@dataclass(frozen=True, slots=True)
class Book:
    """The file that remembers the cases of one soak."""

    path: Path
    heading: Heading

    @classmethod
    def open(cls, path: Path) -> Book:
        """Return the book at `path` with the heading it has; raises NotFoundError when there is none."""
        try:
            heading = msgspec.json.decode(path.read_bytes().split(b"\n", 1)[0], type=Heading)
        except (FileNotFoundError, msgspec.DecodeError) as error:
            raise NotFoundError(
                f"there is no book at {path}", hint="a soak that came to its end leaves none"
            ) from error
        return cls(path, heading)

    def entries(self) -> list[Entry]:
        """Return what was tried so far; nothing when the book is of another soak."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        # What follows the last newline was cut off by the kill.
        try:
            if not lines[:-1] or msgspec.json.decode(lines[0], type=Heading) != self.heading:
                return []
            return [msgspec.json.decode(line, type=Entry) for line in lines[1:-1]]
        except msgspec.DecodeError:
            return []

    def rewrite(self, entries: list[Entry]) -> None:
        """Make the book hold exactly these entries."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(msgspec.json.encode(self.heading) + b"\n")
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Append one entry."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        """Forget the soak, which has come to its end."""
        self.path.unlink(missing_ok=True)
