"""What a restored image has to boot with, as the agent found it, and the reading of its settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

import msgspec

from cloner_core.bootfiles.sources import DEFAULT_GRUB, GRUB_CONFIGS

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)(\+?=)(.*)", re.DOTALL)


class Image(msgspec.Struct, frozen=True):
    """The agent's report; every path absolute in the clone except those on the ESP."""

    present: frozenset[str]  # of sources.LOADERS
    boot: tuple[str, ...]  # names in /boot
    esp: tuple[str, ...]  # files on the ESP, relative, "EFI/debian/shimx64.efi", as spelt there
    texts: Mapping[str, bytes]  # of sources.TEXTS
    esp_texts: Mapping[str, bytes] = {}  # loader.conf and entries of systemd-boot, by their path in `esp`
    bios: tuple[str, ...] = ()  # names in sources.BIOS_MODULES
    unified: Mapping[str, str] = {}  # unified kernel images, by their path in `esp`: their command line


class Kernel(msgspec.Struct, frozen=True):
    """A kernel in /boot and its initramfs."""

    version: str
    kernel: str  # name in /boot
    initramfs: str  # name in /boot; "" when there is none


def on_esp(image: Image, wanted: str) -> str:
    """Return the ESP's own spelling of `wanted`, or ""; FAT ignores case."""
    return next((path for path in image.esp if path.lower() == wanted.lower()), "")


def kernels_of(names: Iterable[str]) -> tuple[Kernel, ...]:
    """Return the kernels among the `names` in /boot, newest version first, rescue kernels last."""
    present = set(names)
    found = []
    for name in present:
        head, dash, version = name.partition("-")
        if head not in ("vmlinuz", "vmlinux", "Image") or not dash or not _VERSION.fullmatch(version):
            continue
        candidates = (f"initrd.img-{version}", f"initramfs-{version}.img", f"initrd-{version}")
        initramfs = next((one for one in candidates if one in present), "")
        found.append(Kernel(version=version, kernel=name, initramfs=initramfs))
    return tuple(sorted(found, key=lambda one: ("rescue" not in one.version, version_key(one.version)), reverse=True))


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key by which versions sort as people count: numbers by value, "~" before everything."""
    parts = re.findall(r"\d+|~|[A-Za-z]+", version)
    return (*(_part_key(part) for part in parts), (1, 0, ""))  # the end sorts behind "~" and before all else


def _part_key(part: str) -> tuple[int, int, str]:
    if part.isdigit():
        return (3, int(part), "")
    return (0, 0, "") if part == "~" else (2, 0, part)


def grub_config_path(image: Image) -> str:
    """Return the path of the image's grub.cfg, or of the one to write where it has none."""
    return next((path for path in GRUB_CONFIGS if path in image.texts), GRUB_CONFIGS[0])


def distribution(image: Image) -> tuple[str, tuple[str, ...], str]:
    """Return the distribution's id, the ids it is like, and its name for people (os-release(5))."""
    text = image.texts.get("/etc/os-release") or image.texts.get("/usr/lib/os-release") or b""
    fields = shell_assignments(text)
    identity = fields.get("ID", "linux")
    like = tuple(one for one in fields.get("ID_LIKE", "").split() if _ID.fullmatch(one))
    name = fields.get("PRETTY_NAME") or fields.get("NAME") or "Linux"
    return (identity if _ID.fullmatch(identity) else "linux"), like, "".join(c for c in name if c.isprintable())


def default_grub(image: Image) -> dict[str, str]:
    """Return the settings of /etc/default/grub and grub.d, later files over earlier ones."""
    texts = [image.texts.get(DEFAULT_GRUB, b"")]
    texts += [image.texts[path] for path in sorted(image.texts) if path.startswith(f"{DEFAULT_GRUB}.d/")]
    return shell_assignments(b"\n".join(texts))


def shell_assignments(text: bytes) -> dict[str, str]:
    """Return the variables that a shell file sets to plain values; nothing in it is run.

    A value with an expansion other than of a variable set before it is left out, for it cannot be known here.
    """
    values: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        match = _ASSIGNMENT.fullmatch(line.strip())
        if not match:
            continue
        name, operator, raw = match.groups()
        try:
            words = shlex.split(raw, comments=True)
        except ValueError:  # a quote that is not closed on its line
            continue
        value = _expand(words[0] if words else "", raw, values)
        if value is not None:
            values[name] = values.get(name, "") + value if operator == "+=" else value
    return values


def _expand(value: str, raw: str, values: Mapping[str, str]) -> str | None:
    if raw.lstrip().startswith("'") or not ("$" in value or "`" in value):
        return value
    expanded = re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: values.get(m[1] or m[2], ""), value)
    return None if "$" in expanded or "`" in expanded else expanded
