"""A bundle is bounded whatever is put into it, keeps the ends of texts, and never cuts a secret in two."""

from __future__ import annotations

import msgspec
import pytest

from cloner_core.bundle import MAX_BUNDLE_BYTES, Bundle, BundleView, Part, make_bundle, redact_bundle, render_bundle
from cloner_core.messages import Cause, Failure, Stage

FAILURE = Failure(stage=Stage.MKFS, cause=Cause.TOOL, message="mkfs failed", hint="look", is_destroyed=True)
CANARY = "CANARY5f0c1d2e"


def bundle(*parts: Part, failure: Failure = FAILURE, secrets: tuple[str, ...] = ()) -> Bundle:
    return make_bundle(failure, parts, secrets, agent_version="1", taken_s=5.0)


@pytest.mark.parametrize("character", ["a", "\u0001", "\u20ac", "\U0001f600", "\udc80", '"'])
def test_a_bundle_is_never_longer_than_its_bound(character: str) -> None:
    made = bundle(*(Part(name=f"part-{number}", text=character * 300_000) for number in range(6)))
    text = msgspec.json.encode(made)
    assert len(text) <= MAX_BUNDLE_BYTES
    assert msgspec.json.decode(text, type=Bundle) == made
    assert all(part.text and "beginning left out" in part.note for part in made.parts)


def test_a_failure_of_any_length_fits() -> None:
    failure = msgspec.structs.replace(FAILURE, message="m" * (3 << 20), hint="h" * (3 << 20))
    assert len(msgspec.json.encode(bundle(failure=failure))) <= MAX_BUNDLE_BYTES


def test_the_end_of_a_text_is_kept() -> None:
    (part,) = bundle(Part(name="log", text="x" * 400_000 + "the last line")).parts
    assert part.text.endswith("the last line")


def test_a_secret_at_the_place_of_the_cut_leaves_nothing_behind() -> None:
    for shift in range(0, 30, 3):
        text = CANARY + "x" * ((256 << 10) - shift)
        (part,) = bundle(Part(name="log", text=text), secrets=(CANARY,)).parts
        assert not any(CANARY[-size:] in part.text for size in range(3, len(CANARY)))


def test_every_text_of_a_bundle_is_redacted() -> None:
    failure = msgspec.structs.replace(FAILURE, message=f"said {CANARY}", hint=f"try {CANARY}")
    made = bundle(Part(name="log", text=CANARY, note=CANARY), failure=failure, secrets=(CANARY,))
    assert CANARY.encode() not in msgspec.json.encode(made)


def test_what_an_agent_missed_is_masked_by_its_looks() -> None:
    sent = Bundle(FAILURE, "1", 5.0, (Part("command-line", f"quiet cloner.claim={CANARY} panic=-1"),))
    assert redact_bundle(sent).parts[0].text == "quiet cloner.claim=*** panic=-1"


def test_a_bundle_is_shown_with_a_heading_for_each_part() -> None:
    made = bundle(Part(name="log", text="one\ntwo\n"), Part(name="lsblk", text="", note="not over after 40 s"))
    shown = render_bundle(BundleView(task="7", attempt="7-1", received_s=1.0, bundle=made))
    assert "===== log =====\none\ntwo\n" in shown
    assert "===== lsblk (not over after 40 s) =====" in shown
    assert "failed in stage mkfs, cause tool: mkfs failed" in shown
