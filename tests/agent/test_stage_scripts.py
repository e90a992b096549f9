"""Scripts on a node: what they are told, what their end means, and that nothing of them stays. Starts real ones."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from agentbench.mountedtree import mounted_tree
from agentbench.scene import Scene, facts, task
from cloner_agent.attempt import Attempt
from cloner_agent.failures import AbortError, StageError
from cloner_agent.stages.scripts import run_script
from cloner_core.messages import BeatReply, Cause
from cloner_core.network import Interface, NodeNetwork
from cloner_core.plan import Contents, plan_task
from cloner_core.scripts import OnFailure, Script, ScriptSet, ScriptType
from cloner_core.sizes import MIB
from cloner_core.steps import RunScript

pytestmark = pytest.mark.root
PRE, POST = ScriptType.PRE, ScriptType.POST
DOCUMENT = Path(__file__).parents[2] / "docs" / "scripts.md"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def clone(scene: Scene) -> Iterator[Path]:
    scene.target.rmdir()
    with mounted_tree(scene.target) as root:
        yield root


def attempt_with(scene: Scene, *scripts: Script) -> Attempt:
    nic = Interface("52:54:00:00:00:01", addresses=("10.0.0.7/24",), gateway="10.0.0.1")
    network = NodeNetwork("node01.example.org", (nic,))
    one = task(scripts=ScriptSet(1, scripts), network=network)
    plan = plan_task(facts(), one, (Contents("/", 10 * MIB, 100),))
    old = scene.attempt
    return Attempt(old.tools, one, facts(), old.version, plan)


def run_all(attempt: Attempt) -> None:
    for step in attempt.plan.steps:
        if isinstance(step.action, RunScript):
            run_script(attempt, step.action)


def sh(kind: ScriptType, body: str, **fields: Any) -> Script:
    return Script(kind, fields.pop("name", "it"), f"#!/bin/sh\n{body}\n", **fields)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage().removeprefix("it: ") for r in caplog.records if r.getMessage().startswith("it: ")]


@pytest.mark.parametrize("kind", ScriptType)
def test_the_documented_environment_is_what_a_script_gets(
    scene: Scene, clone: Path, kind: ScriptType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    attempt = attempt_with(scene, sh(kind, 'env | grep ^CLONER_ | sort; sha256sum <"$CLONER_FACTS"; hostname'))
    run_all(attempt)
    told = dict(line.split("=", 1) for line in lines(caplog) if line.startswith("CLONER_"))
    directory = told.pop("CLONER_FACTS").removesuffix("/facts.json")
    assert directory == "/run/cloner" if kind is POST else directory.startswith("/tmp/cloner-script-")
    assert told == {
        "CLONER_ADDRESSES": "10.0.0.7/24",
        "CLONER_ARCH": "x86_64",
        "CLONER_ATTEMPT": "a1",
        "CLONER_DISKS": "/dev/vda",
        "CLONER_FIRMWARE": "uefi",
        "CLONER_GATEWAY": "10.0.0.1",
        "CLONER_HOSTNAME": "node01.example.org",
        "CLONER_IMAGE": "debian",
        "CLONER_LAYOUT": "plain",
        "CLONER_MAC": "52:54:00:00:00:01",
        "CLONER_NODE": "node01",
        "CLONER_SCRIPT": "it",
        "CLONER_TARGET": "/" if kind is POST else "",
        "CLONER_TASK": "7",
        "CLONER_TYPE": kind.value,
        "CLONER_VERSION": "3",
        "CLONER_VERSION_DIGEST": "ab" * 32,
    }
    documented = set(re.findall(r"^\| `(CLONER_[A-Z_]+)`", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == {*told, "CLONER_FACTS"}
    assert f"{sha256(msgspec.json.encode(facts())).hexdigest()}  -" in lines(caplog)
    if kind is POST:
        assert lines(caplog)[-1] == "node01.example.org"
    (run,) = attempt.record.scripts
    assert (run.type, run.name, run.status) == (kind, "it", 0)
    assert not Path(directory).exists()


@pytest.mark.parametrize("kind", ScriptType)
def test_a_failure_ends_the_deploy_or_is_noted_as_the_script_says(scene: Scene, clone: Path, kind: ScriptType) -> None:
    attempt = attempt_with(scene, sh(kind, "echo this machine has no battery >&2; exit 3"))
    with pytest.raises(StageError, match=r"ended with status 3 after .*: this machine has no battery") as caught:
        run_all(attempt)
    assert caught.value.cause is Cause.SCRIPT
    assert attempt.record.scripts[0].status == 3
    attempt = attempt_with(scene, sh(kind, "exit 3", on_failure=OnFailure.NOTE))
    run_all(attempt)
    assert attempt.record.scripts[0].status == 3
    assert "ended with status 3" in attempt.tools.reporter.notes[-1]


@pytest.mark.parametrize("kind", ScriptType)
def test_a_time_limit_ends_a_script_and_all_it_has_started(scene: Scene, clone: Path, kind: ScriptType) -> None:
    marker = f"876543.{os.getpid()}"  # another run of the tests may be beside this one
    many = f"for n in $(seq 100); do setsid sleep {marker} & done"  # they take a while to end
    attempt = attempt_with(scene, sh(kind, f"trap '' TERM; {many}; sleep {marker}", timeout_s=1))
    with pytest.raises(StageError, match="was killed at its time limit"):
        run_all(attempt)
    assert attempt.record.scripts[0].status == -1
    assert not any(marker.encode() in _cmdline(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def _cmdline(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("kind", ScriptType)
def test_an_abort_is_heard_while_a_script_runs(scene: Scene, clone: Path, kind: ScriptType) -> None:
    attempt = attempt_with(scene, sh(kind, "sleep 600", on_failure=OnFailure.NOTE))
    attempt.tools.reporter.follow(lambda _: None, lambda: BeatReply(order="abort", reason="enough"))
    with pytest.raises(AbortError, match="enough"):
        run_all(attempt)


def test_a_pre_script_sees_the_machine_and_neither_the_agent_nor_what_it_mounted_before(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = f"mount -t tmpfs x {tmp_path}; touch {tmp_path}/inside; ls /proc | grep -c '^[0-9]'; test -e /dev/null"
    run_all(attempt_with(scene, sh(PRE, body)))
    assert int(lines(caplog)[0]) < 8
    assert not (tmp_path / "inside").exists()


def test_what_a_post_script_changes_of_ours_is_noted_and_checked_as_it_is_now(scene: Scene, clone: Path) -> None:
    attempt = attempt_with(scene, sh(POST, "echo 10.0.0.9 licence >>/etc/hosts; echo mine >/etc/motd"))
    (clone / "etc/hosts").write_text("127.0.0.1 localhost\n")
    attempt.record.written_identity[b"etc/hosts"] = blake3(b"127.0.0.1 localhost\n").digest()
    run_all(attempt)
    assert (clone / "etc/motd").read_text() == "mine\n"
    now = (clone / "etc/hosts").read_bytes()
    assert now.endswith(b"10.0.0.9 licence\n")
    assert attempt.record.written_identity[b"etc/hosts"] == blake3(now).digest()
    assert attempt.tools.reporter.notes == ["post-script 'it' changed /etc/hosts"]


def test_a_post_script_must_not_make_the_clone_another_node(scene: Scene, clone: Path) -> None:
    attempt = attempt_with(scene, sh(POST, "echo 0 >/etc/machine-id"))
    (clone / "etc/machine-id").write_text("1\n")
    attempt.record.written_identity[b"etc/machine-id"] = blake3(b"1\n").digest()
    with pytest.raises(StageError, match="changed /etc/machine-id, which is this node's own"):
        run_all(attempt)


def test_an_interpreter_the_image_lacks_is_named(scene: Scene, clone: Path) -> None:
    attempt = attempt_with(scene, Script(POST, "it", "#!/opt/perl\nx\n"))
    with pytest.raises(StageError, match="the image has no /opt/perl"):
        run_all(attempt)


def test_a_script_that_is_not_the_one_of_the_plan_does_not_run(scene: Scene) -> None:
    attempt = attempt_with(scene, sh(PRE, "true"))
    (action,) = [step.action for step in attempt.plan.steps if isinstance(step.action, RunScript)]
    with pytest.raises(StageError, match="not the one of the plan"):
        run_script(attempt, msgspec.structs.replace(action, digest="00" * 32))


def examples() -> list[tuple[str, ScriptType, str]]:
    """Return name, type and text of each script in the document."""
    found = re.findall(r"<!-- (\w+): (pre|post) -->\n```\w+\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [(name, ScriptType(kind), text) for name, kind, text in found]


@pytest.mark.parametrize(("name", "kind", "text"), examples(), ids=[one[0] for one in examples()])
def test_the_examples_of_the_document_run(
    scene: Scene, clone: Path, name: str, kind: ScriptType, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (clone / "etc/ssh").mkdir()
    attempt = attempt_with(scene, Script(kind, "it", text))
    if name == "refuse":  # the machine of the test has less than it asks for
        with pytest.raises(StageError, match="node01 has 0 GiB of memory, want 64"):
            run_all(attempt)
        return
    run_all(attempt)
    assert attempt.record.scripts[0].status == 0
    if name == "motd":
        assert "node01, debian:3, task 7" in (clone / "etc/motd").read_text()
