"""How sshd of a clone is told of its host certificates."""

from __future__ import annotations

import re

from cloner_core.identity.values import IdentityFile
from cloner_core.messages import Vaulted

_INCLUDE = re.compile(rb"^[ \t]*include[ \t=]+.*/etc/ssh/sshd_config\.d/\*", re.IGNORECASE)
_MATCH = re.compile(rb"^[ \t]*match[ \t=]", re.IGNORECASE)
_PART = "/etc/ssh/sshd_config.d/05-cloner.conf"


def reads_parts(config: bytes) -> bool:
    """Tell whether an sshd_config(5) takes in /etc/ssh/sshd_config.d, outside of any Match block."""
    for line in config.splitlines():
        if _MATCH.match(line):
            return False
        if _INCLUDE.match(line):
            return True
    return False


def certificate_part(vaulted: Vaulted) -> IdentityFile:
    """Return the part of sshd's configuration that names the host certificates."""
    certified = [key.algorithm for key in vaulted.host_keys if key.certificate]
    lines = [f"HostCertificate /etc/ssh/ssh_host_{algorithm}_key-cert.pub" for algorithm in certified]
    return IdentityFile(_PART, ("\n".join(("# Written by Cloner.", *lines)) + "\n").encode())
