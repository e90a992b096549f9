"""GRUB configurations: the stub on the ESP, a whole one where the image has none, and reading what one names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from cloner_core.bootfiles.image import Kernel

_PLAIN = re.compile(r"[A-Za-z0-9_./:=,+@%~-]+")
_LINUX = ("linux", "linuxefi", "linux16")
_INITRD = ("initrd", "initrdefi", "initrd16")
_OWN_ARGUMENTS = ("root=", "rootflags=", "BOOT_IMAGE=", "initrd=")  # ours to say


def stub(boot_uuid: str, directory: str) -> bytes:
    """Return the grub.cfg of the ESP, which goes on to the one in `directory` of the filesystem `boot_uuid`."""
    # no `search --hint`: it names a disk by its place, and places change
    return (
        "# Written by Cloner: goes on to the configuration on the root disk.\n"
        f"search.fs_uuid {boot_uuid} root\n"
        f"set prefix=($root)'{directory}'\n"
        "export prefix\n"
        "configfile $prefix/grub.cfg\n"
    ).encode()


def whole_config(
    kernels: Sequence[Kernel],
    *,
    title: str,
    boot_uuid: str,
    boot_path: str,
    root: str,
    root_flags: str,
    root_part_uuid: str,
    settings: Mapping[str, str],
    kernel_arguments: Sequence[str],
) -> bytes:
    """Return a grub.cfg that boots the first of `kernels`; `boot_path` is /boot's path on the filesystem `boot_uuid`.

    `root` and `root_flags` are what root= and rootflags= say; `settings` are those of /etc/default/grub.
    """
    flags = [f"rootflags={root_flags}"] if root_flags else []
    arguments = flags + default_arguments(settings) + list(kernel_arguments)
    lines = [
        "# Written by Cloner: the image had no grub.cfg. `update-grub` may replace it at any time.",
        "set default=0",
        f"set timeout={timeout_s(settings)}",
        *_serial_lines(settings, arguments),
        f"search --no-floppy --fs-uuid --set=root {boot_uuid}",
    ]
    for kernel in kernels:
        # only an initramfs resolves a filesystem's UUID; the bare kernel knows partitions (init/do_mounts.c)
        named = root if kernel.initramfs or not root_part_uuid else f"PARTUUID={root_part_uuid}"
        words = [f"{boot_path}/{kernel.kernel}", f"root={named}", "ro", *arguments]
        lines.append(f"menuentry {quoted(f'{title}, Linux {kernel.version}')} {{")
        lines.append(f"\tlinux {' '.join(quoted(word) for word in words)}")
        if kernel.initramfs:
            lines.append(f"\tinitrd {boot_path}/{kernel.initramfs}")
        lines.append("}")
    return ("\n".join(lines) + "\n").encode()


def default_arguments(settings: Mapping[str, str]) -> list[str]:
    """Return the kernel arguments of /etc/default/grub, without those that name the root."""
    arguments: list[str] = []
    for name in ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"):
        try:
            words = shlex.split(settings.get(name, ""))
        except ValueError:
            words = settings.get(name, "").split()
        arguments += [word for word in words if not word.startswith(_OWN_ARGUMENTS)]
    return arguments


def timeout_s(settings: Mapping[str, str]) -> int:
    """Return GRUB_TIMEOUT where it is a whole number from 0 to 60, else 2: a clone must not wait for a key."""
    text = settings.get("GRUB_TIMEOUT", "")
    return int(text) if text.isascii() and text.isdigit() and int(text) <= 60 else 2


def quoted(word: str) -> str:
    """Return `word` as one word of a GRUB script; control characters are dropped."""
    text = "".join(character for character in word if character.isprintable())
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "'\\''") + "'"


def append_arguments(config: bytes, arguments: Sequence[str]) -> bytes:
    """Return `config` with `arguments` at the end of every line that loads a Linux kernel, where not yet there."""
    if not arguments:
        return config
    lines = []
    for line in config.splitlines(keepends=True):
        words = line.split()
        if words and words[0].decode("latin-1") in _LINUX:
            ending = line[len(line.rstrip(b"\r\n")) :]
            more = [quoted(one).encode() for one in arguments if quoted(one).encode() not in words]
            line = b" ".join([line.rstrip(), *more]) + ending  # noqa: PLW2901
        lines.append(line)
    return b"".join(lines)


def linux_lines(config: bytes) -> Iterator[list[str]]:
    """Give the words of each line that loads a Linux kernel."""
    return (words for words in _command_lines(config) if words[0] in _LINUX and len(words) > 1)


def named_files(config: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the kernels and the initramfs files that `config` names, as written there, without variables.

    For a check that they exist; a path with a variable cannot be known and is left out.
    """
    kernels, initrds = [], []
    for words in _command_lines(config):
        if words[0] in _LINUX and len(words) > 1:
            kernels.append(words[1])
        elif words[0] in _INITRD:
            initrds += words[1:]
    return tuple(path for path in kernels if "$" not in path), tuple(path for path in initrds if "$" not in path)


def _command_lines(config: bytes) -> Iterator[list[str]]:
    for line in config.decode("utf-8", "replace").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            words = line.split()
        if words:
            yield words


def _serial_lines(settings: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """Return what brings GRUB's menu to a serial line, where the image or its kernel arguments ask for one.

    GRUB_TERMINAL decides when it is set: firmware that shows its console on the serial line doubles every character.
    """
    terminal = settings.get("GRUB_TERMINAL", "")
    consoles = [match for one in arguments if (match := re.fullmatch(r"console=ttyS(\d)(?:,(\d+))?.*", one))]
    if "serial" not in terminal and (terminal or not consoles):
        return []
    unit, speed = (consoles[-1][1], consoles[-1][2] or "115200") if consoles else ("0", "115200")
    return [
        f"if serial --unit={unit} --speed={speed}; then",
        "\tterminal_input console serial",
        "\tterminal_output console serial",
        "fi",
    ]
