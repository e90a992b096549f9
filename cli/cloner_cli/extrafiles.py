"""`--file PATH=TEMPLATE`: extra files of nodes, read where the command runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cloner_cli.checking import Checks
from cloner_core.extrafiles import MAX_BYTES, ExtraFile


def extra_files(checks: Checks, words: Sequence[str]) -> tuple[ExtraFile, ...]:
    """Return the files that `words` name, each with the permissions of its template; an empty word names none."""
    files = []
    for word in filter(None, words):
        path, separator, template = word.partition("=")
        if not path or not separator or not template:
            checks.wrong.append(f"file '{word}': want PATH=TEMPLATE")
            continue
        try:
            with Path(template).open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                content = file.read(MAX_BYTES + 1).decode()
        except (OSError, UnicodeDecodeError) as fault:
            why = "not UTF-8" if isinstance(fault, UnicodeDecodeError) else fault.strerror
            checks.wrong.append(f"file '{word}': {template} cannot be read: {why}")
            continue
        if "\0" in content or len(content.encode()) > MAX_BYTES:
            checks.wrong.append(f"file '{word}': {template} is no text of at most {MAX_BYTES} bytes")
            continue
        files.append(ExtraFile(path=path, content=content, mode=mode))
    return tuple(files)
