"""KVM is not even asked where the CPU cannot run guests."""

from __future__ import annotations

import pytest

from vmlab.accelerator import can_virtualise


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu vme vmx ssse3\nbugs\t\t: spectre_v1\n", True),
        ("processor\t: 0\nflags\t\t: fpu svm\nprocessor\t: 1\nflags\t\t: fpu svm\n", True),
        ("processor\t: 0\nflags\t\t: fpu vmmcall svm_lock\nbugs\t\t: svm\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),
    ],
    ids=["Intel", "AMD", "a guest", "ARM"],
)
def test_a_cpu_without_either_extension_is_emulated(cpuinfo: str, expected: bool) -> None:
    assert can_virtualise(cpuinfo) is expected
