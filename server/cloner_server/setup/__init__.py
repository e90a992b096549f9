"""Prepares a machine to be a server: looks at it, says what stands in the way, writes settings and unit.

Examined first, changed afterwards: `examine` returns a value that says all of it, `apply` does what the value says.
"""

from __future__ import annotations

from cloner_server.setup.examining import Asked, examine
from cloner_server.setup.preparation import Change, Finding, Kind, Preparation, apply

__all__ = ["Asked", "Change", "Finding", "Kind", "Preparation", "apply", "examine"]
