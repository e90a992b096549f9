"""Disks to erase, as files, and the tools that erase them, as a runner that knows what each tool would print.

The words are those of nvme-cli 2.3, hdparm 9.65 and util-linux 2.38. A disk can lie, fail, or be cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloner_agent.host import Completed, ToolError
from cloner_core.erasing.abilities import EraseAbilities
from cloner_core.facts import Disk

MIB = 1 << 20
_WORDS = {0: "Never Sanitized.", 1: "Completed Successfully.", 2: "In Progress.", 3: "Completed with Error(s)."}


@dataclass
class FakeDisk:
    """One disk: its content is a file, its firmware the fields below."""

    path: Path
    serial: str
    size_bytes: int = 3 * MIB
    bus: str = "scsi"
    # What it does when it is told to erase itself.
    erases: bool = True
    says_success: bool = True
    # NVMe
    sanicap: int = 0x3
    oacs: int = 0x2
    fna: int = 0x4
    namespaces: int = 1
    status: int = 0
    action: int = 0
    polls: int = 0  # for which a sanitize is in progress
    fpi: int = 0
    # ATA
    frozen: bool = False
    enhanced: bool = True
    password: str = ""
    # discard
    discards: bool = True

    def fill(self) -> bytes:
        """Fill it with what must not be found again; returns that."""
        content = os.urandom(self.size_bytes)
        self.path.write_bytes(content)
        return content

    def clear(self) -> None:
        """Lose the content, if it does what it says."""
        if self.erases:
            self.path.write_bytes(bytes(self.size_bytes))

    def disk(self) -> Disk:
        """Return what a probe tells of it."""
        return Disk(path=str(self.path), size_bytes=self.size_bytes, serial=self.serial, model="Fake", bus=self.bus)

    def page(self) -> dict[str, object]:
        """Return the sanitize log, and go on with the sanitize."""
        status, words = self.status, _WORDS[self.status]
        progress = 65535
        if status == 2:
            progress = 30000
            self.polls -= 1
            if self.polls <= 0:
                self.status = 1 if self.says_success else 3
        state = {"global_erased": int(status == 1), "no_cmplted_passes": 0, "status": f"({status}) {words}"}
        return {self.path.name: {"sprog": progress, "sstat": state, "cdw10_info": self.action}}

    def identify(self) -> str:
        """Return what `hdparm -I` prints of its security."""

        def flag(is_set: bool, name: str) -> str:
            return f"\t\t{name}" if is_set else f"\tnot\t{name}"

        lines = [
            "Commands/features:",
            "\tEnabled\tSupported:",
            "\t   *\tData Set Management TRIM supported (limit 8 blocks)",
            "\t   *\tDeterministic read ZEROs after TRIM",
            "Security: ",
            "\tMaster password revision code = 65534",
            "\t\tsupported",
            flag(bool(self.password), "enabled"),
            flag(False, "locked"),
            flag(self.frozen, "frozen"),
            "\tnot\texpired: security count",
            flag(self.enhanced, "supported: enhanced erase"),
            "\t2min for SECURITY ERASE UNIT. 4min for ENHANCED SECURITY ERASE UNIT.",
            "Logical Unit WWN Device Identifier: 5000c50020701f84",
            "Checksum: correct",
        ]
        return "\n".join(lines) + "\n"


@dataclass
class FakeTools:
    """Runs no program; `said` are those that were asked for."""

    disks: Sequence[FakeDisk]
    said: list[tuple[str, ...]] = field(default_factory=list)
    signatures: tuple[str, ...] = ()  # wipefs finds these

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        self.said.append(tuple(argv))
        out = self._answer(tuple(argv))
        return Completed(tuple(argv), 0, out, "", 0.0)

    def of(self, program: str) -> list[tuple[str, ...]]:
        """Return the command lines of one program that can write."""
        asking = ("id-ctrl", "id-ns", "list-ns", "sanitize-log", "-I")
        return [argv for argv in self.said if argv[0] == program and argv[1] not in asking]

    def _answer(self, argv: tuple[str, ...]) -> str:
        disk = next(disk for disk in self.disks if str(disk.path) in argv)
        match argv[0]:
            case "nvme":
                return self._nvme(disk, argv)
            case "hdparm":
                return self._hdparm(disk, argv)
            case "blkdiscard":
                if not disk.discards or "--secure" in argv:
                    raise ToolError(argv, 1, f"blkdiscard: {disk.path}: ioctl failed: Operation not supported")
                disk.clear()
                return ""
            case "wipefs":
                return json.dumps({"signatures": [{"type": one} for one in self.signatures]})
            case "blockdev":
                return ""
        raise AssertionError(argv)

    def _nvme(self, disk: FakeDisk, argv: tuple[str, ...]) -> str:
        match argv[1]:
            case "id-ctrl":
                told = {"sn": disk.serial, "sanicap": disk.sanicap, "oacs": disk.oacs, "fna": disk.fna}
                return json.dumps(told | {"subnqn": f"nqn.2019-08.org.example:{disk.serial}"})
            case "list-ns":
                return json.dumps({"nsid_list": [{"nsid": number + 1} for number in range(disk.namespaces)]})
            case "id-ns":
                return json.dumps({"nsze": disk.size_bytes // 512, "flbas": 0, "dps": 0, "fpi": disk.fpi})
            case "sanitize-log":
                return json.dumps(disk.page())
            case "sanitize":
                (disk.action,) = (int(word.partition("=")[2]) for word in argv if word.startswith("--sanact="))
                disk.status, disk.polls = 2, 2
                disk.clear()
                return ""
            case "format":
                disk.clear()
                return "Success formatting namespace:1\n" if disk.says_success else "NVMe status: Access Denied\n"
        raise AssertionError(argv)

    def _hdparm(self, disk: FakeDisk, argv: tuple[str, ...]) -> str:
        if "-I" in argv:
            return disk.identify()
        option, password = argv[-3], argv[-2]
        if option == "--security-set-pass":
            disk.password = password
        elif password != disk.password:
            raise ToolError(argv, 5, "SECURITY_ERASE: Input/output error")
        elif option.startswith("--security-erase"):
            if not disk.says_success:
                raise ToolError(argv, 5, "SECURITY_ERASE: Input/output error")
            disk.clear()
            if disk.erases:
                disk.password = ""
        elif option == "--security-disable":
            disk.password = ""
        return ""


def abilities_of(disk: FakeDisk, *, can_discard: bool = False) -> EraseAbilities:
    """Return abilities of a disk that can only be discarded or overwritten."""
    return EraseAbilities(str(disk.path), can_discard=can_discard)
