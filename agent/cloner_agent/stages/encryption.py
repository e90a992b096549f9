"""Encrypted containers between their making and the boot of the clone: their keys, and who opens them.

Must not choose how a device is opened (`cloner_core.unlocking`). A key goes to programs as a file in memory, never as
an argument or input, for those are logged. What of it an image's own program must have lies behind its walls alone.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from cloner_agent.attempt import Attempt
from cloner_agent.confined import FILES, Program
from cloner_agent.failures import StageError
from cloner_agent.rooted import Rooted
from cloner_agent.stages.listed import listed_files
from cloner_agent.stages.volumes import key_path, write_key
from cloner_core.messages import Cause
from cloner_core.steps import LuksKeys
from cloner_core.unlocking import NAMES, Means, means_of

log = logging.getLogger(__name__)

_TPM = "/dev/tpmrm0"
_FIRST_SLOT, _RECOVERY_SLOT, _TPM_SLOT = 0, 1, 2
_TOKENS = {"clevis": "clevis", "systemd": "systemd-tpm2"}
_SEAL_S = 600  # a TPM may take seconds for a key; an emulated one on a busy machine more
_KEY_S = 300
_WRONG_KEY = 2  # exit status of cryptsetup(8): no permission, bad passphrase
# The recovery key has 128 random bits, so the cost of deriving from it guards nothing; 64 MiB are there on every node.
_BOUNDED = ("--pbkdf", "argon2id", "--pbkdf-memory", "65536", "--pbkdf-parallel", "1", "--pbkdf-force-iterations", "4")
_HINT = "the TPM may belong to a former system: clear it in the firmware's setup"


def means_in(tree: Rooted) -> Means:
    """Return what the image opens encrypted devices with."""
    return means_of(listed_files(tree, NAMES))


def give_keys(attempt: Attempt, action: LuksKeys) -> None:
    """Put the clone's keys in place of the one that the container was made with; see that they are all it has.

    Raises StageError (TPM) when the TPM does not take its key, or does not give it back.
    """
    if attempt.recovery_key is None:
        raise StageError(Cause.INTERNAL, f"the server gave no recovery key for {action.name}")
    run, keys = attempt.tools.run, attempt.tools.keys
    first, recovery = key_path(keys, action.name), keys / f"{action.name}.recovery"
    write_key(recovery, attempt.recovery_key.value.encode())
    try:
        slot = ("--key-slot", str(_RECOVERY_SLOT))
        added = ("cryptsetup", "luksAddKey", "--batch-mode", "--key-file", str(first), *slot, *_BOUNDED)
        run((*added, action.device, str(recovery)), timeout_s=_KEY_S)
        token = _seal(attempt, action, first) if action.way == "tpm2" else ""
        # with the recovery key, which proves that it opens the container
        killed = ("cryptsetup", "luksKillSlot", "--batch-mode", "--key-file", str(recovery))
        run((*killed, action.device, str(_FIRST_SLOT)), timeout_s=_KEY_S)
    finally:
        recovery.unlink(missing_ok=True)
    _require_keys(attempt, action, token)
    opened = ("cryptsetup", "open", "--test-passphrase", "--type", "luks2", "--key-file", str(first), action.device)
    if run(opened, timeout_s=_KEY_S, accept=(0, _WRONG_KEY)).status == 0:
        raise StageError(Cause.INTERNAL, f"{action.name} is still opened by the key it was made with")
    first.unlink()
    if action.way == "tpm2":
        attempt.tools.reporter.note(f"{action.name} is unlocked by the TPM of this machine ({token} token)")


def _seal(attempt: Attempt, action: LuksKeys, first: Path) -> str:
    """Have the image's own program bind the container to the TPM; returns the type of the token it made."""
    with Rooted(attempt.tools.target) as tree:
        sealer = means_in(tree).sealer
    if not sealer:
        told = f"the image has nothing that unlocks {action.name} by a TPM"
        raise StageError(Cause.NOT_BOOTABLE, told, hint="install clevis with its pin tpm2 on the golden node")
    key = f"{FILES}/key"
    if sealer == "clevis":
        config = {"pcr_bank": "sha256", "pcr_ids": ",".join(map(str, action.pcrs))} if action.pcrs else {}
        slot = str(_TPM_SLOT)
        bind = ("clevis", "luks", "bind", "-f", "-k", key, "-s", slot, "-d", action.device, "tpm2", json.dumps(config))
        programs = [bind, ("bash", "-c", _UNSEALED, action.device, slot)]
    else:
        pcrs = f"--tpm2-pcrs={'+'.join(map(str, action.pcrs))}"
        enroll = ("systemd-cryptenroll", f"--unlock-key-file={key}", f"--tpm2-device={_TPM}", pcrs, action.device)
        programs = [enroll, ("cryptsetup", "open", "--test-passphrase", "--token-only", action.device)]
    content = first.read_bytes()
    for argv in programs:
        program = Program(
            argv=argv,
            timeout_s=_SEAL_S,
            files={"key": content} if argv is programs[0] else {},
            devices=(action.device, _TPM),
            hostname=attempt.task.network.hostname,
        )
        ended = attempt.tools.confine(attempt.tools.target, program, watch=attempt.tools.reporter.check)
        if not ended.is_good:
            last = next((line for line in reversed(ended.last_lines) if line), "")
            name = action.name
            what = f"takes no key for {name}" if argv is programs[0] else f"does not give the key of {name} back"
            told = f"the TPM {what}: '{argv[0]}' of the image {ended.tell()}"
            raise StageError(Cause.TPM, f"{told}: {last}" if last else told, hint=_HINT)
    return _TOKENS[sealer]


# What the TPM gives back opens the slot; the key goes from one program to the other and is not shown.
_UNSEALED = (
    'set -o pipefail; clevis luks pass -d "$0" -s "$1" |'
    ' cryptsetup open --test-passphrase --key-slot "$1" --key-file - "$0"'
)


def _require_keys(attempt: Attempt, action: LuksKeys, token: str) -> None:
    """Raise StageError unless the container has the slots and tokens it must have, and no other."""
    dump = ("cryptsetup", "luksDump", "--dump-json-metadata", action.device)
    header: dict[str, Any] = json.loads(attempt.tools.run(dump).stdout)
    slots, tokens = set(header["keyslots"]), list(header["tokens"].values())
    bound = {slot for one in tokens for slot in one["keyslots"]}
    types = [one["type"] for one in tokens]
    wanted = [token] if token else []
    recovery = str(_RECOVERY_SLOT)
    if slots != {recovery, *bound} or recovery in bound or len(bound) != len(wanted) or types != wanted:
        told = f"key slots {', '.join(sorted(slots))} and tokens {', '.join(types) or 'none'}"
        raise StageError(Cause.TPM, f"{action.name} has {told}; want slot {recovery} and tokens {wanted or 'none'}")
    log.info("%s: key slots %s, tokens %s", action.name, ", ".join(sorted(slots)), ", ".join(types) or "none")
