"""What the decoders of msgspec raise on bytes that are not what they should be.

More than its own error: text that is not UTF-8 is a UnicodeDecodeError, and nesting without end a RecursionError.
Every reader of bytes from outside catches `UNREADABLE`.
"""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
