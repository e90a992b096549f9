"""Which agent this is, as the server is told."""

from __future__ import annotations

import platform
from importlib import metadata


def agent_version() -> str:
    """Return the version of the agent as installed, or of the Python that runs it when it was only copied."""
    try:
        return metadata.version("cloner")
    except metadata.PackageNotFoundError:
        return f"unpackaged (Python {platform.python_version()})"
