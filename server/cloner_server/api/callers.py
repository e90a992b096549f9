"""What every handler of the admins' door takes: the server's parts, and who is asking."""

from __future__ import annotations

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from cloner_server.api.faults import AnyRequest
from cloner_server.core import Core
from cloner_server.state.database import Act

CoreDependency = NamedDependency[SkipValidation[Core]]


def who(core: Core, request: AnyRequest) -> Act:
    """Return the author a root-only socket lets the caller name, for the audit."""
    name = request.headers.get("cloner-author", "root")[:64]
    return core.act(name if name.isprintable() else "root")
