"""The scripts of an image: an admin's pre-scripts here in the initramfs, the post-scripts confined in the clone.

Pre-scripts may do what they are for: the machine is theirs, but for what the agent knows. Must not decide which run
when; that is the plan's.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

import msgspec
from blake3 import blake3

from cloner_agent.attempt import Attempt
from cloner_agent.confined import FILES, Ended, OutputLog, Program
from cloner_agent.failures import AbortError, StageError
from cloner_agent.host import stream
from cloner_agent.rooted import Rooted
from cloner_core.messages import Cause
from cloner_core.scripts import OnFailure, Script, ScriptRun, ScriptType, interpreter, script_environment
from cloner_core.steps import RunScript

log = logging.getLogger(__name__)

_NEVER_RAN = -1
_FACTS = "facts.json"
_MINE = (b"etc/machine-id", b"etc/ssh/ssh_host_")
"""What makes the clone this node: a script that writes it makes it another, which the server would not believe."""


def run_script(attempt: Attempt, action: RunScript) -> None:
    """Run one script and keep what came of it; a failure ends the deploy or is noted, as the script says."""
    script = next(s for s in attempt.task.scripts.scripts if (s.type, s.name) == (action.type, action.name))
    if script.digest != action.digest:
        raise StageError(Cause.PLAN_MISMATCH, f"{script.type}-script '{script.name}' is not the one of the plan")
    what = f"{script.type}-script '{script.name}'"
    log.info("%s (%s)", what, script.digest)
    run = _run_pre if script.type is ScriptType.PRE else _run_post
    try:
        ended = run(attempt, script)
    except AbortError:
        raise
    except StageError as error:
        _keep(attempt, script, _NEVER_RAN, 0)
        _fail(attempt, script, f"{what} could not be run: {error.message}")
        return
    _keep(attempt, script, _NEVER_RAN if ended.is_late else ended.status, ended.seconds)
    if not ended.is_good:
        last = next((line for line in reversed(ended.last_lines) if line), "")
        _fail(attempt, script, f"{what} {ended.tell()}" + (f": {last}" if last else ""))
    if script.type is ScriptType.POST:
        _accept_changes(attempt, what)


def environment(attempt: Attempt, script: Script, directory: str) -> dict[str, str]:
    """Return what `script` is told; `directory` is where it and its files lie. The list is in docs/scripts.md."""
    task, network = attempt.task, attempt.task.network
    links = (*network.interfaces, *network.bonds, *network.vlans)
    told = {
        "CLONER_NODE": task.node,
        "CLONER_HOSTNAME": network.hostname,
        "CLONER_TASK": task.task_id,
        "CLONER_ATTEMPT": task.attempt_id,
        "CLONER_IMAGE": task.version.image,
        "CLONER_VERSION": str(task.version.number),
        "CLONER_VERSION_DIGEST": task.version.digest,
        "CLONER_LAYOUT": task.layout.name,
        "CLONER_DISKS": " ".join(planned.disk.path for planned in attempt.plan.disks),
        "CLONER_FIRMWARE": attempt.facts.firmware.value,
        "CLONER_ARCH": attempt.facts.arch,
        "CLONER_MAC": attempt.facts.boot_mac,
        "CLONER_ADDRESSES": " ".join(address for link in links for address in link.addresses),
        "CLONER_GATEWAY": next((link.gateway for link in links if link.gateway), ""),
        "CLONER_FACTS": f"{directory}/{_FACTS}",
        "CLONER_TARGET": "/" if script.type is ScriptType.POST else "",
    }
    return script_environment(script, told)


def _run_pre(attempt: Attempt, script: Script) -> Ended:
    directory = Path(tempfile.mkdtemp(prefix="cloner-script-"))
    try:
        path = directory / script.name
        path.write_text(script.content, encoding="utf-8")
        path.chmod(0o500)
        (directory / _FACTS).write_bytes(msgspec.json.encode(attempt.facts))
        output = OutputLog(script.name)
        # Its own processes and mounts: what it leaves behind ends with it, and the agent's are not to be seen.
        walls = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        ended = stream(
            (*walls, "--", "sh", "-c", 'exec "$0" 2>&1', str(path)),
            output.hear,
            environment=environment(attempt, script, str(directory)),
            timeout_s=script.timeout_s,
            watch=attempt.tools.reporter.check,
            grace_s=0,  # unshare(1) does not hear SIGTERM
        )
        output.close()
        status = ended.status if ended.status >= 0 else 128 - ended.status
        return Ended(status, ended.seconds, ended.is_late, output.last_lines(), output.dropped_bytes)
    finally:
        shutil.rmtree(directory)


def _run_post(attempt: Attempt, script: Script) -> Ended:
    tools, program = attempt.tools, interpreter(script)
    with Rooted(tools.target) as tree:
        if not tree.exists(program):
            raise StageError(Cause.SCRIPT, f"the image has no {program}, which its first line names")
    return tools.confine(
        tools.target,
        Program(
            argv=(f"{FILES}/{script.name}",),
            timeout_s=script.timeout_s,
            environment=environment(attempt, script, FILES),
            files={script.name: script.content.encode(), _FACTS: msgspec.json.encode(attempt.facts)},
            hostname=attempt.task.network.hostname,
        ),
        watch=tools.reporter.check,
    )


def _keep(attempt: Attempt, script: Script, status: int, seconds: float) -> None:
    run = ScriptRun(script.type, script.name, script.digest, status, round(seconds, 3))
    attempt.record.scripts.append(run)


def _fail(attempt: Attempt, script: Script, message: str) -> None:
    if script.on_failure is OnFailure.FAIL:
        raise StageError(Cause.SCRIPT, message)
    attempt.tools.reporter.note(message)


def _accept_changes(attempt: Attempt, what: str) -> None:
    """Take what the script made of files that were written before as what the check shall find."""
    with Rooted(attempt.tools.target) as tree:
        for written in (attempt.record.written_identity, attempt.record.written_boot):
            for path, digest in list(written.items()):
                now = _digest(tree, path)
                if now is None or now == digest:
                    continue
                if path.startswith(_MINE):
                    raise StageError(Cause.SCRIPT, f"{what} changed /{os.fsdecode(path)}, which is this node's own")
                written[path] = now
                attempt.tools.reporter.note(f"{what} changed /{os.fsdecode(path)}")


def _digest(tree: Rooted, path: bytes) -> bytes | None:
    """Return the digest of a file; None when it cannot be read, which the check will tell."""
    try:
        return bytes(blake3(tree.read(path, limit_bytes=1 << 30)).digest())
    except OSError:
        return None
