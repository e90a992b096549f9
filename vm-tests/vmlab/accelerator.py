"""Chooses how QEMU runs guests here: KVM when it really works, else emulation.

A /dev/kvm that exists proves nothing (nested machines offer one that fails), so a guest is really started, where the
CPU can run one at all.
"""

from __future__ import annotations

import functools
import os
import re
import select
import subprocess
from pathlib import Path

from vmlab.firmware import OVMF, Firmware

QEMU = "qemu-system-x86_64"
KVM = ("-accel", "kvm", "-cpu", "host")
# One thread per guest CPU; "max" is everything the emulator knows, so that crc32 and AES take no detours.
# Without the vector extensions: libraries then take their scalar code, which TCG translates several times better.
# Measured in one guest: BLAKE3 30 → 107 MB/s, ChaCha20-Poly1305 10 → 98, AES-GCM 5 → 19 (docs/adr/0024).
_SCALAR = "max,avx=off,avx2=off,ssse3=off,sse4.1=off,sse4.2=off,aes=off,pclmulqdq=off"
EMULATION = ("-accel", "tcg,thread=multi", "-cpu", _SCALAR)
PROBE_S = 5.0


@functools.cache
def accelerator() -> tuple[str, ...]:
    """Return QEMU's arguments for the fastest acceleration that works; probed once per process."""
    has_device = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return KVM if has_device and can_virtualise(Path("/proc/cpuinfo").read_text()) and _kvm_runs() else EMULATION


def is_emulated() -> bool:
    """Tell whether guests run under emulation, ten times slower."""
    return accelerator() == EMULATION


def can_virtualise(cpuinfo: str) -> bool:
    """Tell whether a CPU has what KVM needs for guests of x86, from its /proc/cpuinfo (kernel, asm/cpufeatures.h)."""
    return re.search(r"^flags\s*:.*\b(svm|vmx)\b", cpuinfo, re.MULTILINE) is not None


def _kvm_runs() -> bool:
    """Start the firmware with KVM and believe only what it says on its serial line.

    Seen: a nested KVM that runs SeaBIOS, then stops at OVMF's first floating-point instruction ("KVM internal
    error", QEMU goes on with a halted guest).
    """
    code = f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF / Firmware.UEFI.value.code}"
    argv = [QEMU, "-machine", "q35", *KVM, "-m", "256", "-display", "none", "-nodefaults", "-drive", code]
    with subprocess.Popen(
        [*argv, "-serial", "stdio"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as guest:
        try:
            assert guest.stdout is not None
            ready, _, _ = select.select([guest.stdout], [], [], PROBE_S)
            return bool(ready and os.read(guest.stdout.fileno(), 1))
        finally:
            guest.kill()
