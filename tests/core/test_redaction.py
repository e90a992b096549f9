"""No secret passes, whether it is known by value or by its looks; the rest of a text stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.redaction import redact

CANARY = "CANARY5f0c1d2e"


@pytest.mark.parametrize(
    "text",
    [
        "BOOT_IMAGE=k cloner.server=https://10.0.0.1:8443 cloner.claim=CANARY5f0c1d2e BOOTIF=01-aa",
        'Unknown kernel command line parameters "cloner.claim=CANARY5f0c1d2e", will be passed to user space.',
        "cloner.claim=CANARY5f0c1d2",  # cut off by the kernel's longest line
        "Authorization: Bearer CANARY5f0c1d2e",
        '{"secret": "CANARY5f0c1d2e"}',
        "{'credential': 'CANARY5f0c1d2e', 'x': 1}",
        "POST /confirm secret=CANARY5f0c1d2e&machine_id=1",
        "password: CANARY5f0c1d2e",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY5f0c1d2e\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nCANARY5f0c1d2e",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    shown = redact(text)
    assert "CANARY" not in shown
    assert "***" in shown


@given(st.text(), st.text(alphabet="abcdefghij0123456789_-", min_size=8, max_size=50), st.text())
def test_a_known_secret_is_masked_wherever_it_stands(before: str, secret: str, after: str) -> None:
    assert secret not in redact(f"{before}{secret}{after}", [secret])
    assert secret not in redact(f"{before}{secret.upper()}{after}", [secret]).lower() or secret in before + after


@pytest.mark.parametrize(
    "text",
    [
        "[    1.5] vda: vda1 vda2 vda3",
        "label-id: 5f0c1d2e-0000-4000-8000-000000000000",
        "cloner.server=https://10.0.0.1:8443",
        "Secure boot disabled",
        "sha256 3f2a",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text, ["", "short"]) == text


def test_of_two_secrets_one_in_the_other_nothing_is_left() -> None:
    assert redact("abcdefghijkl", ["abcdefgh", "abcdefghijkl"]) == "***"
