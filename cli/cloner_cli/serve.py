"""`cloner serve`: the server in this process. Its settings are those of server.toml; a given option goes before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cloner_cli.commands import WAYS, FilePath, command
from cloner_cli.invocation import Invocation
from cloner_cli.reporting import give


@command(
    "serve",
    example="cloner serve --interface eth1 --dhcp 10.77.0.100-10.77.0.200 --installer /var/lib/cloner-installer",
)
@click.option("--config", type=FilePath(), help="Settings file; /etc/cloner/server.toml by default.")
@click.option("--state", metavar="DIR", help="Where everything that lasts is kept.")
@click.option("--installer", metavar="DIR", help="Kernel and initramfs layers, made by 'cloner initramfs build'.")
@click.option("--interface", metavar="IF", help="Where nodes are; needed for DHCP.")
@click.option("--address", metavar="IP", help="As nodes reach this server; the interface's own by default.")
@click.option("--dhcp", metavar="FIRST-LAST", help="Give out these addresses.")
@click.option("--proxy-dhcp", is_flag=True, help="Only add boot information to another DHCP server's answers.")
@click.option("--no-dhcp", is_flag=True, help="Leave DHCP to another server altogether.")
@click.option("--beside-another-dhcp", is_flag=True, default=None, help="Start though another DHCP server answers.")
@click.option("--router", metavar="IP", help="Default route told by DHCP.")
@click.option("--tls-port", type=int, metavar="PORT", help="API of nodes.")
@click.option("--http-port", type=int, metavar="PORT", help="Boot files and confirmation.")
@click.option("--tftp-port", type=int, metavar="PORT", help="Boot loader; 0: none.")
@click.option("--confirm", type=WAYS, help="How a clone is known to have booted, unless its node says otherwise.")
def serve_command(
    run: Invocation, config: Path | None, dhcp: str | None, proxy_dhcp: bool, no_dhcp: bool, **options: Any
) -> None:
    """Run the server until SIGTERM: API, boot services and image store in one process.

    With --socket its own socket is made elsewhere. A line that begins with CLONER READY says that it answers.
    """
    from cloner_server.config import CONFIG_FILE, load_config
    from cloner_server.serve import serve

    modes = {"--dhcp": dhcp, "--proxy-dhcp": "proxy" if proxy_dhcp else None, "--no-dhcp": "none" if no_dhcp else None}
    chosen = {name: mode for name, mode in modes.items() if mode is not None}
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)} exclude each other")
    given = {name: value for name, value in options.items() if value is not None}
    given |= {"dhcp": next(iter(chosen.values()))} if chosen else {}
    given |= {"socket": str(run.socket)} if run.is_socket_given else {}
    if config is not None and not config.is_file():
        raise click.UsageError(f"{config} is no file")
    serve(load_config(config or CONFIG_FILE, given), announce=give)
