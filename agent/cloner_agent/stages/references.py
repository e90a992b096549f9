"""The image's references to its old filesystems, rewritten in the closed list of files, and a right fstab.

Must not decide what is replaced; that is `cloner_core.references` and `cloner_core.fstab`.
"""

from __future__ import annotations

import logging
import os

from blake3 import blake3

from cloner_agent.attempt import Attempt
from cloner_agent.rooted import Rooted
from cloner_agent.stages.encryption import means_in
from cloner_agent.stages.listed import listed_files, replace_content
from cloner_core import references
from cloner_core.crypttab import CRYPTTAB, make_crypttab
from cloner_core.fstab import make_fstab
from cloner_core.steps import Rewrite

log = logging.getLogger(__name__)


def rewrite(attempt: Attempt, action: Rewrite) -> None:
    """Rewrite, and remember what was written and which identifiers are gone, for initramfs, check and receipt."""
    changed: list[str] = []
    with Rooted(attempt.tools.target) as tree:
        texts = {path: tree.read(path) for path in listed_files(tree, references.REWRITTEN_FILES)}
        mapping = references.mapping_of(attempt.plan, action.references, texts)
        attempt.record.replaced = tuple(mapping)
        wanted = {path: references.rewrite(path, content, mapping, attempt.plan) for path, content in texts.items()}
        fstab = make_fstab(wanted.get(references.FSTAB), attempt.plan.entries)
        for note in fstab.notes:
            attempt.tools.reporter.note(note)
        wanted[references.FSTAB] = fstab.content
        if attempt.plan.crypts or CRYPTTAB in wanted:
            crypts = attempt.plan.crypts
            crypttab = make_crypttab(wanted.get(CRYPTTAB), crypts, means_in(tree))
            for note in crypttab.notes:
                attempt.tools.reporter.note(note)
            if crypts or crypttab.notes:  # each note tells of a changed line
                wanted[CRYPTTAB] = crypttab.content
        for path, content in wanted.items():
            if content == texts.get(path):
                continue
            if path in texts:
                replace_content(tree, path, content)
            else:
                tree.mkdir(os.path.dirname(path))
                tree.write(path, content)
            attempt.record.written_boot[os.fsencode(path.lstrip("/"))] = blake3(content).digest()
            changed.append(path)
    attempt.record.rewritten = tuple(changed)
    log.info("references rewritten in %s", ", ".join(changed) or "no file")
