"""`./run demo`: the main job for real, on one machine, in a network of its own.

A golden Debian tree is built and captured, a blank virtual machine netboots through its firmware's own PXE, is
cloned, boots from its own disk with its own identity, says so itself, and boots a second time through the server's
`local` answer. Status 0 only when all of that was seen.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cloner_core.errors import ClonerError, ExitStatus
from cloner_core.identity import ssh_fingerprint
from cloner_initramfs import Cache, default_cache
from vmlab.disk import GIB
from vmlab.errors import LabError
from vmlab.golden_debian import HOSTNAME, golden_debian
from vmlab.head import Head, build_installer
from vmlab.lab import Lab
from vmlab.machine import Machine
from vmlab.scene import IMAGE, LAYOUT, Node, free_bytes, golden_tree, layout_file
from vmlab.ssh import host_key, ssh

NEEDED_BYTES = 8 * GIB
DEPLOY_S = 900
BOOT_S = 600
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"

Shell = Callable[[str], str]


class Demo:
    """One run; `story` tells what is going on."""

    def __init__(self, *, is_json: bool) -> None:
        """Tell the story on stdout, or on stderr when stdout is for the receipt alone."""
        self._started = time.monotonic()
        self._is_json = is_json
        self._reach: tuple[str, ...] = ()
        self.receipt: dict[str, Any] = {}
        self._out = sys.stderr if is_json else sys.stdout

    def tell(self, text: str) -> None:
        """Print one line with the seconds since the start."""
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", file=self._out, flush=True)

    def run(self, lab: Lab, cache: Cache) -> None:
        """Do it all; raises ClonerError when anything is not as it should be."""
        installer = self._build(lab, cache)
        node = Node()
        head = Head(lab, installer)
        tree, key = golden_tree(cache, lab)
        head.start()
        self.tell("cloner serve is up: API, DHCP, TFTP and boot HTTP, SQLite and local files")
        self._capture(head, lab, tree)
        network = ["--mac", node.mac, "--address", f"{node.address}/24"]
        head.cloner("node", "add", node.name, *network, "--image", IMAGE, "--disklayout", LAYOUT)
        machine = Machine(lab, node.vm(lab))
        self._deploy(head, machine, node)
        shell = functools.partial(ssh, lab, node.address, key)
        receipt = head.json("receipt", "show", node.name)
        first = self._look_inside(lab, machine, shell, node, receipt)
        self._boot_again(head, machine, shell, node, first)
        self._show(receipt)
        self.receipt = head.json("receipt", "show", node.name)
        self._reach = (
            f"the clone:  ip netns exec {lab.name} ssh -i {key.path} root@{node.address}",
            f"the server: ./run cloner --socket {head.socket} task list",
            f"the logs:   {lab.evidence.directory}",
        )

    def tell_reach(self) -> None:
        """Say how to reach what is left running, and how to end it."""
        self.tell(f"the lab stays up until it is stopped with: kill {os.getpid()}")
        for line in self._reach:
            self.tell(f"  {line}")

    def _build(self, lab: Lab, cache: Cache) -> Path:
        if free_bytes(lab.directory) < NEEDED_BYTES:
            raise LabError(
                f"{lab.directory} has {free_bytes(lab.directory) >> 20} MiB free, the demo needs "
                f"{NEEDED_BYTES >> 20} MiB",
                hint="set TMPDIR to a roomier place",
            )
        self.tell("building the golden Debian tree (debootstrap) and the installer; cached for the next time")
        with ThreadPoolExecutor(2) as pool:
            golden = pool.submit(golden_debian, cache)
            installer = pool.submit(build_installer, cache, lab.directory / "installer")
            installer.result()
            self.tell("the installer is built: kernel, base and drivers")
            golden.result()
        self.tell("the golden tree is built")
        return installer.result()

    def _capture(self, head: Head, lab: Lab, tree: Path) -> None:
        head.cloner("disklayout-upload", "--disklayout", LAYOUT, "--file", layout_file(lab))
        words = ["new-image", "--root", str(tree), "--image", IMAGE, "--disklayout", LAYOUT, "--message", "golden"]
        self.tell(f"$ cloner {shlex.join(words)}")
        self._watched(head, *words)
        self.tell(f"captured: {json.dumps(head.json('image-list'))}" if self._is_json else "captured")

    def _deploy(self, head: Head, machine: Machine, node: Node) -> None:
        words = ["deploy", "--nodes", node.name, "--wait", "--timeout", str(DEPLOY_S), "--yes"]
        self.tell(f"$ cloner {shlex.join(words)}; then {node.name}, blank, is switched on and netboots")
        child = head.popen(*words, out=self._out.fileno())
        try:
            self._wait_armed(head, node)
            machine.start()
            status = child.wait(DEPLOY_S + 60)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        if status != 0:
            raise LabError(f"cloner deploy ended with status {status}", hint=f"serial console: {machine.log}")
        task, view = head.task(node.name), head.json("node", "show", node.name)
        if (task["state"], view["netboot"]) != ("done", "local"):
            raise LabError(f"state {task['state']}, netboot {view['netboot']}; wanted done and local")
        self.tell("state done, netboot local: the clone booted from its own disk and called")

    def _wait_armed(self, head: Head, node: Node) -> None:
        end = time.monotonic() + 60
        while head.json("node", "show", node.name)["netboot"] != "cloner":
            if time.monotonic() > end:
                raise LabError(f"the deploy of {node.name} was not armed within a minute")
            time.sleep(0.5)

    def _look_inside(self, lab: Lab, machine: Machine, shell: Shell, node: Node, receipt: dict[str, Any]) -> str:
        """Compare what the clone says of itself with the receipt; return its boot id."""
        body = receipt["receipt"]["body"]
        fingerprint = ssh_fingerprint(_patiently(lambda: host_key(lab, node.address), BOOT_S, machine))
        seen = {
            "hostname": shell("hostname").strip(),
            "machine-id": shell("cat /etc/machine-id").strip(),
            "host key": fingerprint,
        }
        wanted = {"hostname": node.name, "machine-id": body["machine_id"]}
        for name, value in seen.items():
            self.tell(f"the clone says: {name} {value}")
        wrong = [name for name, value in wanted.items() if seen[name] != value]
        wrong += ["host key"] if fingerprint not in body["host_key_fingerprints"] else []
        if wrong or seen["hostname"] == HOSTNAME:
            raise LabError(f"the clone is not who the receipt says: {', '.join(wrong)}: {seen} against {body}")
        return shell(BOOT_ID)

    def _boot_again(self, head: Head, machine: Machine, shell: Shell, node: Node, first: str) -> None:
        before = _local_answers(head, node)
        self.tell("reset: the second boot goes over the network again, and on to the disk")
        machine.reset()
        second = _patiently(lambda: _new_boot(shell, first), BOOT_S, machine)
        answers = _local_answers(head, node) - before
        if answers < 1:
            raise LabError(f"{node.name} booted again (boot id {second}) without asking the server")
        self.tell("booted again from its disk, through our `local` answer")

    def _show(self, receipt: dict[str, Any]) -> None:
        if self._is_json:
            return
        body = receipt["receipt"]["body"]
        mib_s = body["bytes_restored"] / (1 << 20) / max(0.001, _seconds(body, "restore"))
        self.tell("receipt:")
        for name in ("node", "version_digest", "layout", "plan_digest", "machine_id", "root_part_uuid"):
            self.tell(f"  {name}: {body[name]}")
        self.tell(f"  disks: {', '.join(disk['path'] + ' ' + disk['serial'] for disk in body['disks'])}")
        self.tell(f"  restored {body['files']} files, {body['bytes_restored'] >> 20} MiB, {mib_s:.1f} MiB/s")
        stages = ", ".join(f"{stage['stage']} {stage['seconds']:.1f}" for stage in body["stages"])
        self.tell(f"  seconds: {stages}")
        self.tell(f"  signature: {receipt['receipt']['signature'][:32]}…")

    def _watched(self, head: Head, *words: str) -> None:
        child = head.popen(*words, out=self._out.fileno())
        if status := child.wait():
            raise LabError(f"cloner {words[0]} ended with status {status}")


def _seconds(body: dict[str, Any], stage: str) -> float:
    return float(sum(one["seconds"] for one in body["stages"] if one["stage"] == stage))


def _local_answers(head: Head, node: Node) -> int:
    events = head.json("events", "--object", f"node/{node.name}", "--limit", "1000")
    return sum(event["what"] == "boot local" for event in events)


def _new_boot(shell: Shell, old: str) -> str:
    found = shell(BOOT_ID)
    if found == old:
        raise LabError("still the old boot")
    return found


def _patiently(ask: Callable[[], str], deadline_s: float, machine: Machine) -> str:
    """Return what `ask` returns once it raises LabError no more."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            return ask()
        except LabError:
            machine.require_running()
            if time.monotonic() > end:
                raise
            time.sleep(1)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="tell the story on stderr; print the receipt on stdout")
    parser.add_argument("--keep", action="store_true", help="leave the lab up and say how to reach it")
    chosen = parser.parse_args(arguments)
    if chosen.keep:
        return _kept(lambda ready: _demo(is_json=chosen.json, ready=ready))
    return _demo(is_json=chosen.json, ready=None)


def _demo(*, is_json: bool, ready: int | None) -> int:
    """Run it; with `ready`, a descriptor, say there when it is done and keep the lab until SIGTERM."""
    signal.signal(signal.SIGTERM, _stop)
    demo = Demo(is_json=is_json)
    try:
        with Lab(title="demo", keep_logs=ready is not None) as lab:
            demo.run(lab, Cache(default_cache()))
            if ready is not None:
                demo.tell_reach()
            if is_json:
                print(json.dumps(demo.receipt), flush=True)
            if ready is not None:
                os.write(ready, b"done")
                os.close(ready)
                signal.pause()
    except ClonerError as error:
        demo.tell(f"FAILED: {error}")
        return int(error.exit_status)
    except KeyboardInterrupt:
        demo.tell("interrupted; nothing is left behind")
        return int(ExitStatus.INTERRUPTED)
    demo.tell("done")
    return int(ExitStatus.OK)


def _stop(number: int, frame: object) -> None:
    """End the `with` blocks on SIGTERM, so that nothing is left behind."""
    raise SystemExit(128 + number)


def _kept(run: Callable[[int], int]) -> int:
    """Run in a process of its own that stays when we leave; return its status, or 0 once it is done."""
    reading, writing = os.pipe()
    holder = os.fork()
    if holder == 0:
        os.close(reading)
        os.setsid()
        os._exit(run(writing))
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            if pipe.read() == b"done":
                return int(ExitStatus.OK)
    except KeyboardInterrupt:
        os.kill(holder, signal.SIGTERM)
    _, status = os.waitpid(holder, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
