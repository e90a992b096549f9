"""`cloner console`: the live screen of a node at work, through OpenSSH, and the password it takes."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from cloner_cli.api import segment
from cloner_cli.checking import Checks, fold_nodes
from cloner_cli.commands import Group, command, dry_run_option
from cloner_cli.documents import read_first_line
from cloner_cli.invocation import Invocation
from cloner_core.admin.consoles import ConsoleScope, ConsoleView, PasswordRequest, PasswordView
from cloner_core.admin.nodes import NodeView
from cloner_core.errors import ClonerError, InvalidError, RefusedError
from cloner_core.messages import PasswordHash
from cloner_core.passwords import DEFAULT_PASSWORD, SALT_BYTES, hash_password, require_password

_SSH_FAILED = 255
_OPTIONS = (
    "GlobalKnownHostsFile=/dev/null",
    "StrictHostKeyChecking=yes",
    "HostKeyAlgorithms=ssh-ed25519",
    "CheckHostIP=no",
    "UpdateHostKeys=no",
    "PubkeyAuthentication=no",
    "PreferredAuthentications=password",
    "NumberOfPasswordPrompts=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "ServerAliveInterval=15",
    "LogLevel=ERROR",
)


class _ConsoleGroup(Group):
    """`cloner console NODE` is `cloner console open NODE`."""

    @property
    def default_command(self) -> click.Command:
        """The command that is meant when none is named."""
        return self.commands["open"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `open` before whatever names no command."""
        words = [word for word in args if word not in ("--json", "--dry-run")]
        is_named = bool(words) and (words[0] in self.commands or words[0] in ("-h", "--help"))
        return super().parse_args(ctx, args if is_named or not words else ["open", *args])


@click.group("console", cls=_ConsoleGroup)
def console_command() -> None:
    """The live screen of a node while it is cloned, or holds after a failure: `cloner console NODE`."""


@command("open", example="cloner console open node01", group=console_command)
@click.argument("name", metavar="NODE")
def console_open(run: Invocation, name: str) -> None:
    """Show the screen of NODE on this terminal, until q or Ctrl-C; `open` may be left out.

    OpenSSH asks for the password; the host key is the one this server gave the agent, so it asks for nothing else.
    Without a terminal the screen is printed once. With --json, how the console is reached: address, port, user, host
    key, fingerprint.
    """
    view = run.api.get(f"/v1/nodes/{segment(name)}/console", ConsoleView)
    if run.is_json:
        run.result(view, str)
        return
    if view.password == "default":
        run.say(f"warning: this console takes the password everybody knows, '{DEFAULT_PASSWORD}'")
    if not view.is_open:
        run.say("the agent has not opened its console yet; a small machine does when its restore is over")
    with tempfile.TemporaryDirectory(prefix="cloner-console-") as folder:
        known = Path(folder, "known_hosts")
        known.write_text(f"{_alias(view)} {view.host_key}\n")
        try:
            status = run.world.run_program(ssh_argv(view, known))
        except FileNotFoundError as error:
            raise ClonerError("there is no ssh on this machine", hint="apt-get install openssh-client") from error
    if status == _SSH_FAILED:
        why = "the machine may have restarted" if view.is_open else "try again when the restore is over"
        raise ClonerError(
            f"ssh could not show the console of {view.node} at {view.address}",
            hint=f"{why}: cloner task show {view.task}; another password: cloner console password",
        )


@command("password", example="cloner console password --site", group=console_command)
@click.option("--site", "is_site", is_flag=True, help="For every node that has none of its own or of a group.")
@click.option("--nodes", "-n", multiple=True, metavar="SET", help="For these nodes: node[01-16],@rack1.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="For the nodes of a group. Repeatable.")
@click.option("--reset", is_flag=True, help="Take away what was set; the next wider one counts again.")
@dry_run_option
def console_password(
    run: Invocation, *, is_site: bool, nodes: tuple[str, ...], groups: tuple[str, ...], reset: bool, dry_run: bool
) -> None:
    """Set the password that consoles take, for agents that start from now on; those that run keep theirs.

    It is asked for on a terminal, twice; elsewhere it is the first line of standard input. Only a salted hash leaves
    this command. A node's own goes before its groups', these before the site's.
    """
    if sum((is_site, bool(nodes), bool(groups))) != 1:
        raise click.UsageError("for whom? one of --site, --nodes, --group")
    scope: ConsoleScope = "site" if is_site else "node" if nodes else "group"
    names: tuple[str, ...] = groups
    if nodes:
        checks = Checks()
        names = tuple(checks.nodes(run.api, nodes))
        checks.exist(run.api, nodes=names)
        checks.settle()
    password = None if reset else _asked_password(run)
    request = PasswordRequest(scope=scope, names=names, password=password, dry_run=dry_run)
    views = run.api.post("/v1/console/passwords", list[PasswordView], request)
    whom = {"site": "the site", "node": fold_nodes(names), "group": f"group {', '.join(names)}"}[scope]
    what = "taken away" if reset else "set"
    run.result(views, lambda: f"console password of {whom} {f'would be {what}' if dry_run else what}")


def ssh_argv(view: ConsoleView, known_hosts: Path) -> tuple[str, ...]:
    """Return the OpenSSH command that reaches exactly this console and asks for nothing but the password."""
    options = (*_OPTIONS, f"UserKnownHostsFile={known_hosts}", f"HostKeyAlias={_alias(view)}")
    words = [word for option in options for word in ("-o", option)]
    return ("ssh", "-F", "none", *words, "-p", str(view.port), "-l", view.user, "--", view.address)


def warn_of_default(run: Invocation, views: Sequence[NodeView]) -> None:
    """Say which of `views` have a console that takes the password everybody knows."""
    open_to_all = [view.name for view in views if view.console_password == "default"]
    if open_to_all:
        whose = fold_nodes(open_to_all)
        run.say(f"warning: the console of {whose} takes the password everybody knows: cloner console password --site")


def _asked_password(run: Invocation) -> PasswordHash:
    if run.world.can_ask():
        typed = click.prompt("Password of the console", hide_input=True, confirmation_prompt=True, err=True)
    else:
        typed = read_first_line(Path("-"))
        if not typed:
            raise RefusedError("there is no terminal to ask at, and standard input is empty", hint="echo … | cloner …")
    require_password(typed)
    if typed == DEFAULT_PASSWORD:
        raise InvalidError("this is the password everybody knows", hint="choose another")
    return hash_password(typed, secrets.token_bytes(SALT_BYTES))


def _alias(view: ConsoleView) -> str:
    """Return the name under which the host key is known: not the node's, whose clone has keys of its own."""
    return f"cloner-console-{view.node}"
