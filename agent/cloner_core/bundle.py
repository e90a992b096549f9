"""The bundle of a failure: what the machine looked like, as named texts, without secrets and of bounded size.

Pure: the agent gathers (`cloner_agent.bundle`), the server keeps. Both go through `make_bundle`'s bounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from cloner_core.describing import sendable
from cloner_core.messages import Failure, Strict
from cloner_core.redaction import redact

MAX_BUNDLE_BYTES = 1 << 20
"""Of the whole bundle as JSON."""
_PART_CHARACTERS = 256 << 10
_MESSAGE_CHARACTERS = 8 << 10


class Part(Strict, frozen=True):
    """One text of a bundle: "kernel-log", "tables-before", …"""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    text: Annotated[str, Meta(max_length=_PART_CHARACTERS)]
    note: Annotated[str, Meta(max_length=1000)] = ""  # why it is missing, or what was cut off


class Bundle(Strict, frozen=True):
    """What an agent tells about its failure beside the failure itself."""

    failure: Failure
    agent_version: Annotated[str, Meta(max_length=200)]
    taken_s: float  # by the node's clock
    parts: Annotated[tuple[Part, ...], Meta(max_length=64)]


class BundleView(Strict, frozen=True):
    """A bundle as the server kept it."""

    task: str
    attempt: str
    received_s: float
    bundle: Bundle


def make_bundle(
    failure: Failure, parts: Iterable[Part], secrets: Collection[str], *, agent_version: str, taken_s: float
) -> Bundle:
    """Return a bundle of `parts`, redacted first and cut afterwards, so that a cut never splits a secret.

    The ends of texts are kept: the last lines of a log are those about the failure.
    """
    words = redact(failure.message, secrets)[:_MESSAGE_CHARACTERS], redact(failure.hint, secrets)[:_MESSAGE_CHARACTERS]
    told = msgspec.structs.replace(failure, message=words[0], hint=words[1])
    kept = [_clean(part, secrets) for part in parts]
    while True:
        bundle = Bundle(failure=told, agent_version=agent_version[:200], taken_s=taken_s, parts=tuple(kept))
        longest = max(range(len(kept)), key=lambda index: len(kept[index].text), default=-1)
        if len(msgspec.json.encode(bundle)) <= MAX_BUNDLE_BYTES or longest < 0 or not kept[longest].text:
            return bundle
        kept[longest] = _cut(kept[longest], len(kept[longest].text) // 2)


def redact_bundle(bundle: Bundle) -> Bundle:
    """Return `bundle` without what looks like a secret: an agent of another version may know fewer of them."""
    return make_bundle(bundle.failure, bundle.parts, (), agent_version=bundle.agent_version, taken_s=bundle.taken_s)


def render_bundle(view: BundleView) -> str:
    """Return a kept bundle as one text, a heading before each part."""
    failure = view.bundle.failure
    head = (
        f"bundle of task {view.task}, attempt {view.attempt}\n"
        f"agent {view.bundle.agent_version}\n"
        f"failed in stage {failure.stage}, cause {failure.cause}: {failure.message}\n"
        f"hint: {failure.hint}\n"
    )
    return head + "".join(
        f"\n===== {part.name}{f' ({part.note})' if part.note else ''} =====\n{part.text.rstrip()}\n"
        for part in view.bundle.parts
    )


def _clean(part: Part, secrets: Collection[str]) -> Part:
    clean = Part(name=part.name, text=redact(sendable(part.text), secrets), note=redact(part.note, secrets)[:900])
    return _cut(clean, _PART_CHARACTERS)


def _cut(part: Part, characters: int) -> Part:
    over = len(part.text) - characters
    if over <= 0:
        return part
    note = f"{part.note}; " if part.note and "beginning left out" not in part.note else ""
    return Part(name=part.name, text=part.text[over:], note=f"{note}the beginning left out")
