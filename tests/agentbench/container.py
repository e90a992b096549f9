"""A LUKS2 header that is not there: plays cryptsetup on it, and what the image's programs seal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from cloner_agent.confined import Ended, Program
from cloner_agent.host import Completed, ToolError

UUID = "0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e"
CLEVIS = (
    "usr/sbin/mkinitramfs",
    "usr/share/initramfs-tools/hooks/cryptroot",
    "usr/share/initramfs-tools/hooks/clevis",
    "usr/bin/clevis-luks-bind",
    "usr/bin/clevis-encrypt-tpm2",
)
SYSTEMD = (
    "usr/bin/dracut",
    "usr/lib/dracut/modules.d/90crypt/module-setup.sh",
    "usr/lib/dracut/modules.d/91tpm2-tss/module-setup.sh",
    "usr/bin/systemd-cryptenroll",
)


class Container:
    """Key slots with the keys that open them, and tokens; use it as `Tools.run` and `Tools.confine`."""

    def __init__(self) -> None:
        self.slots: dict[str, bytes] = {}
        self.tokens: dict[str, tuple[str, str]] = {}  # token → (type, slot)
        self.ran: list[tuple[str, ...]] = []
        self.confined: list[Program] = []
        self.sealer = "clevis"
        self.leaves_more = False  # the image's program puts another key in
        self.seal_status = 0
        self.unseal_status = 0

    def run(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        """Play one command; a key that opens nothing is status 2."""
        words = tuple(argv)
        self.ran.append(words)
        assert words[0] == "cryptsetup"
        assert not stdin
        status, out = 0, ""
        match words[1]:
            case "luksFormat":
                self.slots = {"0": self._key(words)}
            case "luksAddKey":
                status = 0 if self._opens(words) else 2
                self.slots[words[words.index("--key-slot") + 1]] = Path(words[-1]).read_bytes()
            case "luksKillSlot":
                rest = {slot: key for slot, key in self.slots.items() if slot != words[-1]}
                status = 0 if self._key(words) in rest.values() else 2
                self.slots = rest
            case "luksDump":
                tokens = {name: {"type": kind, "keyslots": [slot]} for name, (kind, slot) in self.tokens.items()}
                out = json.dumps({"keyslots": {slot: {"type": "luks2"} for slot in self.slots}, "tokens": tokens})
            case "open":
                status = 0 if self._opens(words) else 2
        if status not in accept:
            raise ToolError(words, status, "No key available with this passphrase.")
        return Completed(words, status, out, "", 0.0)

    def confine(self, target: str, program: Program, *, watch: Callable[[], None] = lambda: None) -> Ended:
        """Play the image's programs behind walls."""
        self.confined.append(program)
        watch()
        if program.argv[0] in ("clevis", "systemd-cryptenroll"):
            assert program.files["key"] in self.slots.values()
            if self.seal_status == 0:
                slot = "2" if program.argv[0] == "clevis" else "3"
                self.slots[slot] = b"sealed"
                self.tokens["0"] = ({"clevis": "clevis"}.get(program.argv[0], "systemd-tpm2"), slot)
            if self.leaves_more:
                self.slots["5"] = b"another"
            return Ended(self.seal_status, 1.0, False, ("WARNING: a TPM", "no such handle", ""), 0)
        return Ended(self.unseal_status, 1.0, False, (), 0)

    def _key(self, words: tuple[str, ...]) -> bytes:
        return Path(words[words.index("--key-file") + 1]).read_bytes()

    def _opens(self, words: tuple[str, ...]) -> bool:
        return self._key(words) in self.slots.values()
