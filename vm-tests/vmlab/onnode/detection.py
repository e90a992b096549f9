"""Makes what a layout says on the disks of a node, with the plan's own steps, and detects it again.

The layout is in the file /layout.json; `core.worlds` of the unit tests is here as well.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cloner_agent.detecting import ask
from cloner_agent.host import run
from cloner_agent.probe import probe
from cloner_agent.stages.volumes import make_encrypted
from cloner_core.detection import detect
from cloner_core.fstab import make_fstab
from cloner_core.layout import parse_layout
from cloner_core.messages import BootPolicy
from cloner_core.plan import Plan
from cloner_core.plan.sequence import steps_of
from cloner_core.steps import Command, LuksFormat, Mount
from core.worlds import built, crypttab_of
from vmlab.onnode.reporting import tell

TREE = Path("/mnt/tree")


def main() -> None:
    """Tell the layout that was detected, and what was said with it."""
    layout = parse_layout(Path("/layout.json").read_bytes())
    plan = built(probe(run), layout)
    _make(plan)
    detected = detect(ask(run, tree=str(TREE)), layout.name)
    tell("layout", detected.layout)
    tell("notes", detected.notes)


def _make(plan: Plan) -> None:
    tools: Any = SimpleNamespace(tools=SimpleNamespace(run=run, keys=Path("/run/keys")))
    for step in steps_of(plan, hostname="node01", boot=BootPolicy(), inodes={}):
        match step.action:
            case Command(argv=argv, stdin=stdin, timeout_s=timeout_s):
                run(argv, stdin=stdin, timeout_s=timeout_s)
                if argv[0] == "sfdisk":
                    run(("udevadm", "settle"))
            case LuksFormat():
                make_encrypted(tools, step.action)
            case Mount(device=device, filesystem=filesystem, where=where, options=options):
                place = TREE / where.lstrip("/")
                place.mkdir(parents=True, exist_ok=True)
                run(("mount", "-t", filesystem, "-o", options, device, str(place)))
    run(("udevadm", "settle"))
    (TREE / "etc").mkdir(exist_ok=True)
    (TREE / "etc/fstab").write_bytes(make_fstab(None, plan.entries).content)
    (TREE / "etc/crypttab").write_text(crypttab_of(plan))
    for one in plan.swapfiles:
        (TREE / one.path.lstrip("/")).write_bytes(bytes(one.size_bytes))


if __name__ == "__main__":
    main()
