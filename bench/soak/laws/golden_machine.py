"""A golden machine is captured by what is typed on it, updated so, and its clones have what it has.

Real machines with a real Debian. The golden one boots from its own disk, onto which foreign tools put it; the line of
`cloner token create --install-line` is pasted into it, and `cloner new-image` and `update-filesystem` typed. A case is
one round: captured, cloned, packages installed on the golden machine, updated, the clone cloned again and looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloner_initramfs import Cache, build_kit, default_cache, put_kit
from soak.law import Case, Figures, Law, require
from vmlab import Lab, Machine, Nic, Vm, host
from vmlab.disk import GIB, blank_disk
from vmlab.golden_debian import HOSTNAME
from vmlab.handmade import install_by_hand
from vmlab.head import Head, build_installer
from vmlab.scene import IMAGE, LAYOUT, Node, golden_tree
from vmlab.ssh import OPTIONS, Key, host_key, ssh, wait_for_ssh

_ADDRESS = "10.77.0.30"
_NETWORK = f"[Match]\nType=ether\n\n[Network]\nAddress={_ADDRESS}/24\n"
_PACKAGES = ("hello", "tree")
_AGENT_S, _BOOT_S, _TYPED_S = 900, 600, 1800
# What dpkg --verify may find changed in a clone and not on the golden machine: dpkg knows conffiles.
_IDENTITY = re.compile(r"/etc/(hosts|hostname|fstab|machine-id|ssh/.*|default/grub)")


@dataclass(frozen=True, slots=True)
class _Scene:
    lab: Lab
    head: Head
    key: Key
    tree: Path

    def round(self, seed: int) -> Figures:
        """Go one round; seed 0 clones before the update as well."""
        try:
            return self._round(is_cloned_first=seed == 0)
        except BaseException:
            self.lab.evidence.failed = True
            raise

    def _round(self, *, is_cloned_first: bool) -> Figures:
        disk = blank_disk(self.lab.directory / "golden.disk", 3 * GIB, serial="GOLDEN")
        install_by_hand(self.tree, disk)
        golden = Machine(self.lab, Vm("golden", disks=(disk,), nics=(Nic("52:54:00:77:00:30"),)))
        golden.start()
        golden.wait_for(r"golden login:", _BOOT_S)
        wait_for_ssh(self.lab, _ADDRESS, self.key, deadline_s=_BOOT_S)
        self._is_the_tree()
        line = self.head.cloner("token", "create", "--capture", IMAGE, "--install-line").out.strip()
        self._type(line)
        first = self._captured("new-image", "--disklayout", LAYOUT, "--message", "golden")
        require(first["number"] == 1, f"the first version is number {first['number']}")
        node = Node()
        network = ["--mac", node.mac, "--address", f"{node.address}/24"]
        self.head.cloner("node", "add", node.name, *network, "--image", IMAGE, "--disklayout", LAYOUT)
        self.head.cloner("node", "set", node.name, "--confirm", "ssh")
        clone = Machine(self.lab, node.vm(self.lab))
        if is_cloned_first:
            golden.press_power()
            golden.wait_off(_BOOT_S)
            self._clone(node, clone)
            require(self._version_of(node) == 1, "the clone is not of version 1")
            missing = ssh(self.lab, node.address, self.key, "command -v hello || echo none")
            require(missing.strip() == "none", "the clone of version 1 has what came later")
            clone.kill()
            golden.start()
            wait_for_ssh(self.lab, _ADDRESS, self.key, deadline_s=_BOOT_S)
        self._install_packages()
        second = self._captured("update-filesystem", "--message", "with packages")
        require(second["number"] == 2, f"the second version is number {second['number']}")
        require(second["options"]["layout"] == LAYOUT, "the layout was not kept with the image")
        wanted = self._type("dpkg --verify || true")
        golden.press_power()
        golden.wait_off(_BOOT_S)
        self._clone(node, clone)
        require(self._version_of(node) == 2, "the clone is not of version 2")
        require(ssh(self.lab, node.address, self.key, "hello").strip() == "Hello, world!", "the clone has no hello")
        self._verify_packages(node, wanted)
        clone.kill()
        check = self.head.json("store", "check", "--read-data")
        require(not check["faults"], f"the store has faults: {check['faults']}")
        return {
            "captured_bytes": first["data_bytes"],
            "captured_stored_bytes": first["new_stored_bytes"],
            "update_stored_bytes": second["new_stored_bytes"],
            "update_unread_share": round(1 - second["survey"]["unknown_bytes"] / second["survey"]["data_bytes"], 3),
        }

    def _is_the_tree(self) -> None:
        """Hold the golden machine to the tree it was made from: none of our code has put it there."""
        said = self._type("hostname; findmnt -no SOURCE /; cat /etc/machine-id").split()
        wanted = [HOSTNAME, "/dev/vda3", (self.tree / "etc/machine-id").read_text().strip()]
        require(said == wanted, f"the golden machine says {said}, not {wanted}")
        stored = (self.tree / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
        shown = host_key(self.lab, _ADDRESS)
        require(shown == " ".join(stored), f"the golden machine shows {shown}, not its host key")

    def _type(self, line: str, timeout_s: float = _TYPED_S) -> str:
        return ssh(self.lab, _ADDRESS, self.key, line, timeout_s=timeout_s)

    def _captured(self, verb: str, *more: str) -> dict[str, Any]:
        words = " ".join(f"'{word}'" for word in (verb, "--image", IMAGE, *more))
        told: dict[str, Any] = json.loads(self._type(f"cloner {words} --yes --json"))
        return told

    def _install_packages(self) -> None:
        folder = self.lab.directory / "packages"
        folder.mkdir()
        host.run(["sh", "-c", 'cd "$0" && apt-get -q download "$@"', folder, *_PACKAGES])
        options = [word for option in OPTIONS for word in ("-o", option)]
        files = sorted(folder.glob("*.deb"))
        require(len(files) == len(_PACKAGES), f"apt-get downloaded {files}")
        self.lab.run(["scp", "-q", "-i", self.key.path, *options, *files, f"root@{_ADDRESS}:/tmp"], timeout_s=120)
        self._type("dpkg --install /tmp/*.deb && rm /tmp/*.deb && sync")

    def _clone(self, node: Node, clone: Machine) -> None:
        self.head.cloner("deploy", "--nodes", node.name, "--yes")
        clone.start(reboots=False, direct=self.head.direct_boot(node.mac))
        clone.wait_off(_AGENT_S)
        self.head.wait_state(node.name, "unconfirmed", 30)
        clone.start()
        self.head.wait_state(node.name, "done", _BOOT_S)
        wait_for_ssh(self.lab, node.address, self.key, deadline_s=_BOOT_S)
        require(ssh(self.lab, node.address, self.key, "hostname").strip() == node.name, "the clone has another name")

    def _version_of(self, node: Node) -> int:
        said = ssh(self.lab, node.address, self.key, "cat /etc/cloner/image.json")
        return int(json.loads(said)["number"])

    def _verify_packages(self, node: Node, golden: str) -> None:
        """Require that dpkg finds changed in the clone what it finds on the golden machine, and identity, alone."""
        said = ssh(self.lab, node.address, self.key, "dpkg --verify || true", timeout_s=600)
        changed = {line.split()[-1] for line in set(said.splitlines()) - set(golden.splitlines())}
        unexpected = sorted(path for path in changed if not _IDENTITY.fullmatch(path))
        require(not unexpected, f"dpkg --verify finds changed in the clone: {unexpected}")


@contextmanager
def _open(_work: Path) -> Iterator[Case]:
    cache = Cache(default_cache())
    with Lab(title="golden-machine") as lab:
        head = Head(lab, build_installer(cache, lab.directory / "installer"))
        put_kit(build_kit(cache), head.state / "kit")
        tree, key = golden_tree(cache, lab)
        (tree / "etc/systemd/network/10-golden.network").write_text(_NETWORK)
        head.start()
        yield _Scene(lab, head, key, tree).round


LAW = Law(
    "golden-machine",
    "a golden machine is captured and updated by what is typed on it, and its clones have what it has",
    1,
    _open,
    keeps_cases=True,
)
