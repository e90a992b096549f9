"""Laws that hold for every command: an example, --json, --dry-run where something changes, documented statuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cloner_cli.commands import Command
from cloner_cli.main import COMMANDS, cli
from cloner_cli.statuses import MEANINGS
from cloner_core.errors import ExitStatus

DOCS = Path(__file__).parents[2] / "docs"
CHANGING = {
    "capture",
    "channel remove",
    "channel set",
    "console password",
    "deploy",
    "fix-efiboot",
    "erase",
    "disklayout-upload",
    "group protect",
    "group unprotect",
    "image-export",
    "image-extract",
    "image-import",
    "init",
    "initramfs build",
    "kit build",
    "machine forget",
    "installer remove",
    "installer use",
    "make-installer",
    "manual",
    "model remove",
    "model set",
    "multicast-image",
    "multicast-start",
    "multicast-stop",
    "netboot",
    "script",
    "new-image",
    "image keep",
    "image-remove",
    "node add",
    "node import",
    "state export",
    "state import",
    "node remove",
    "confirm",
    "node accept",
    "node set",
    "store gc",
    "store repack",
    "task abort",
    "task retry",
    "token create",
    "token remove",
    "update-disklayout",
    "update-filesystem",
    "update-options",
}
READING = {
    "store plan-gc",
    "store stats",
    "channel list",
    "config",
    "console open",
    "disklayout",
    "disklayout-list",
    "events",
    "failures",
    "fit",
    "group list",
    "group show",
    "identify",
    "identity",
    "image-details",
    "image-diff",
    "image-list",
    "image-verify",
    "installer list",
    "installer show",
    "kit show",
    "known-hosts",
    "layout check",
    "layout picture",
    "layout schema",
    "machine facts",
    "machine list",
    "model list",
    "multicast-list",
    "multicast-show",
    "multicast-status",
    "node facts",
    "node list",
    "node recovery-key",
    "node show",
    "plan",
    "receipt show",
    "receipt verify",
    "relay",
    "relay-list",
    "serve",
    "status",
    "store check",
    "task bundle",
    "task list",
    "task log",
    "task show",
    "task wait",
    "token list",
    "token show",
    "watch",
}


def leaves(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from leaves(found, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", found


ALL = dict(leaves(cli))


def options(command: click.Command) -> set[str]:
    return {text for param in command.params for text in param.opts}


def test_every_command_is_known_to_read_or_to_change() -> None:
    assert set(ALL) == CHANGING | READING


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_command_has_an_example_of_itself_and_json(name: str) -> None:
    command = ALL[name]
    assert isinstance(command, Command)
    assert command.example.startswith(f"cloner {name}")
    assert {"--json", "--socket"} <= options(command)
    shown = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.stdout
    assert ("--dry-run" in options(command)) == (name in CHANGING)


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_option_says_what_it_is_for(name: str) -> None:
    unsaid = [p.opts[0] for p in ALL[name].params if isinstance(p, click.Option) and not p.help]
    assert unsaid == []


@pytest.mark.parametrize("name", sorted(ALL))
def test_no_path_of_a_command_may_be_empty(name: str) -> None:
    for param in ALL[name].params:
        if isinstance(param.type, click.Path):
            with pytest.raises(click.BadParameter, match="empty"):
                param.type.convert("", param, None)


def test_the_help_lists_every_exit_status() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).stdout
    assert set(MEANINGS) == set(ExitStatus)
    for status in ExitStatus:
        assert re.search(rf"^ +{int(status)} +\S", shown, re.MULTILINE), status


def test_the_documents_list_every_exit_status_and_every_command() -> None:
    statuses = (DOCS / "exit-status.md").read_text()
    assert [s for s in ExitStatus if f"| {int(s)} | {s.name} |" not in statuses] == []
    told = (DOCS / "cli.md").read_text()
    assert [name for name in ALL if f"`cloner {name}" not in told] == []


def test_no_command_is_listed_that_does_not_exist() -> None:
    assert {name.split()[0] for name in ALL} == set(COMMANDS)
