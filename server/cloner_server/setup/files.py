"""The files that `cloner init` writes: settings and unit, each marked so that a later edit by hand is seen. Pure text.

The first line carries the digest of the rest: with another rest the file was edited, and is a person's.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec
from blake3 import blake3

from cloner_server.config import ServerConfig

_MARK = "# made by 'cloner init', digest "
_ORDER = ("interface", "address", "dhcp", "router", "installer", "state", "socket")


def marked(body: str) -> str:
    """Return `body` beneath the line that tells its digest."""
    return f"{_MARK}{_digest(body)}\n{body}"


def is_edited(text: str) -> bool:
    """Whether a file was written, or changed, by anybody else."""
    head, _, body = text.partition("\n")
    return head != f"{_MARK}{_digest(body)}"


def settings_text(config: ServerConfig) -> str:
    """Return server.toml: every setting that is not the default, and those a reader looks for."""
    default = ServerConfig()
    names = [
        name for name in _ORDER if name in ("interface", "dhcp") or getattr(config, name) != getattr(default, name)
    ]
    rest = [field for field in config.__struct_fields__ if field not in _ORDER]
    names += [name for name in rest if getattr(config, name) != getattr(default, name)]
    lines = ["# settings of 'cloner serve'; its options go before these, docs/cli.md"]
    lines += [f"{name} = {_toml(getattr(config, name))}" for name in names]
    return "\n".join(lines) + "\n"


def unit_text(command: Sequence[str], config_file: str) -> str:
    """Return the systemd unit that runs the server; `command` begins the words that run `cloner`."""
    words = " ".join(_unit_word(word) for word in (*command, "serve", "--config", config_file))
    return f"""[Unit]
Description=Cloner server: netboot, images, deploys
Wants=network-online.target
After=network-online.target
# Asked for again for ever: the interface may get its address late, and a server that gave up helps nobody.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={words}
Restart=on-failure
RestartSec=5
# 2: the settings are wrong; the journal says what
RestartPreventExitStatus=2
TimeoutStopSec=30
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
"""


def _digest(body: str) -> str:
    return blake3(body.encode()).hexdigest(16)


def _toml(value: object) -> str:
    """Return a value as TOML; for text, numbers, truth and lists of these JSON is TOML."""
    return msgspec.json.encode(value).decode()


def _unit_word(word: str) -> str:
    """Return a word of ExecStart; % and $ are systemd's (systemd.service(5))."""
    return shlex.quote(word.replace("%", "%%").replace("$", "$$"))
