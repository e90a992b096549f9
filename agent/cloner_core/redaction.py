"""Takes secrets out of text that leaves the place it was written for: by their value, and by how they look.

A value that is known is replaced wherever it stands; the patterns catch what was never told to the caller, such as
the claim that the kernel repeats from its command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"
_SHORTEST = 8  # a shorter "secret" would tear holes into every word
_PATTERNS = (
    # The kernel says its command line twice in its log: once whole, once as "Unknown … parameters \"…\"".
    (re.compile(r"(cloner\.claim=)[^\s\"'\\]+", re.IGNORECASE), rf"\g<1>{MASK}"),
    (re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]+", re.IGNORECASE), rf"\g<1>{MASK}"),
    (re.compile(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    (
        re.compile(
            r"((?:credential|secret|password|passphrase|token|random[_-]seed)[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&}]+",
            re.IGNORECASE,
        ),
        rf"\g<1>{MASK}",
    ),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` with every one of `secrets`, and everything that looks like one, replaced by ***."""
    known = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)
    if known:
        text = re.sub("|".join(map(re.escape, known)), MASK, text, flags=re.IGNORECASE)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
