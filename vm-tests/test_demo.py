"""The demo, as `./run demo --json --keep` runs it: to its end, then looked at from outside, then told to go."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloner_core.sightings import BootStep
from cloner_server.tasks.rules import token_hash
from vmlab import host
from vmlab.head import CHECKOUT, Said, environment

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

DEMO_S = 1400
GONE_S = 60
CLONER = "import sys; from cloner_cli.main import main; sys.exit(main())"


@dataclass
class Kept:
    """A demo that has ended well and left its lab up."""

    out: str
    story: str
    holder: int

    def told(self, name: str) -> list[str]:
        """Return the words that the story says reach the clone, the server, or the logs."""
        match = re.search(rf"\] +the {name}: +(.*)", self.story)
        assert match is not None, self.story
        return shlex.split(match[1])

    @property
    def namespace(self) -> str:
        words = self.told("clone")
        return words[words.index("exec") + 1]

    @property
    def database(self) -> Path:
        return Path(self.told("server")[3]).with_suffix("") / "cloner.db"

    def cloner(self, *arguments: str | Path) -> Said:
        """Run one `cloner` command against the lab's server, over the socket that the story names."""
        words = self.told("server")
        assert words[:3] == ["./run", "cloner", "--socket"]
        argv = [sys.executable, "-c", CLONER, "--socket", words[3], *map(str, arguments)]
        done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    assert '-m vmlab.demo "$@"' in (CHECKOUT / "run").read_text(), "what `./run demo` runs is what is run here"
    out, story = tmp_path / "out", tmp_path / "story"
    argv = [sys.executable, "-m", "vmlab.demo", "--json", "--keep"]
    with out.open("wb") as stdout, story.open("wb") as stderr:
        demo = subprocess.Popen(argv, env=environment(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    try:
        status = demo.wait(DEMO_S)
    finally:
        if demo.poll() is None:
            demo.send_signal(signal.SIGINT)  # it ends the process that holds the lab, and so the lab
            demo.wait(GONE_S)
    assert status == 0, story.read_text()[-8000:]
    match = re.search(r"stopped with: kill (\d+)", story.read_text())
    assert match is not None, story.read_text()
    made = Kept(out.read_text(), story.read_text(), int(match[1]))
    yield made
    if is_alive(made.holder):
        os.kill(made.holder, signal.SIGTERM)


def test_the_demo_ends_with_a_verified_receipt_of_a_clone_that_lives_and_goes_when_told(
    kept: Kept, tmp_path: Path
) -> None:
    lines = kept.out.splitlines()
    receipt = json.loads(lines[-1])
    body = receipt["receipt"]["body"]
    assert receipt["receipt"]["confirmed_s"] > receipt["receipt"]["accepted_s"]
    assert receipt["receipt"]["confirmed_by"] == "phone-home"
    file = tmp_path / "receipt.json"
    file.write_text(lines[-1])
    made = [event for event in kept.cloner("events", "--json").json if event["what"] == "made"]
    key = made[0]["detail"]["key"]  # told when the server was new: not the key the receipt itself names
    assert f"signed by {key}" in kept.cloner("receipt", "verify", "--file", file, "--key", key).out
    task = kept.cloner("task", "show", body["task_id"], "--json").json
    assert (task["state"], kept.cloner("node", "show", body["node"], "--json").json["netboot"]) == ("done", "local")

    # Each step of the machine's boots was seen.
    shown = kept.cloner("node", "show", body["node"]).out
    assert {str(step) for step in BootStep} - {str(BootStep.LOCAL)} <= set(shown.split()), shown

    # The clone is who the receipt says, and the printed command reaches it.
    words = kept.told("clone")
    unattended = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    at = words.index("ssh") + 1
    one_shot = "ls -d /var/lib/cloner /usr/lib/cloner /etc/systemd/system/cloner-confirm.service 2>/dev/null"
    said = host.run([*words[:at], *unattended, *words[at:], f"hostname; cat /etc/machine-id; {one_shot}; true"]).split()
    assert said == [body["node"], body["machine_id"]], "the one-shot has removed itself, its secret included"

    # What the clone called home with is nowhere in its journal or its kernel's log; nor is the claim of its agent.
    seen = host.run([*words[:at], *unattended, *words[at:], "journalctl --no-pager -o export; dmesg"])
    assert "Linux version" in seen
    serial = "".join(path.read_text(errors="replace") for path in Path(kept.told("logs")[0]).glob("*.log"))
    with sqlite3.connect(f"file:{kept.database}?mode=ro", uri=True) as database:
        kept_of = (("token_hash", "claims"), ("confirm_hash", "attempts"), ("credential_hash", "attempts"))
        hashes = {row[0] for name, table in kept_of for row in database.execute(f"SELECT {name} FROM {table}")}
    assert tokens(serial) & hashes, "the claim is on the agent's command line: this search finds what is there"
    assert not tokens(seen) & hashes

    # SIGTERM to the one process it names removes the namespace with all that runs in it, and its scratch.
    programs = host.run(["ip", "netns", "pids", kept.namespace]).split()
    directory = Path(kept.told("server")[3]).parent
    assert len(programs) >= 2
    os.kill(kept.holder, signal.SIGTERM)
    end = time.monotonic() + GONE_S
    while is_alive(kept.holder):
        assert time.monotonic() < end, "the process that holds the lab does not end"
        time.sleep(0.2)
    assert not Path("/run/netns", kept.namespace).exists()
    assert not directory.exists()
    assert [pid for pid in programs if is_alive(int(pid))] == []
    shutil.rmtree(kept.told("logs")[0])  # kept with the lab; of no use after a good run


def tokens(text: str) -> set[str]:
    """Return what the server would keep of every word of `text` that is as long as one of its tokens."""
    return {token_hash(word) for word in re.findall(r"(?<![\w-])[\w-]{40,43}(?![\w-])", text)}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
