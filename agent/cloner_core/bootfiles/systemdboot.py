"""systemd-boot: where it is placed, and its entries (Boot Loader Specification, UAPI.1) made those of the clone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cloner_core.bootfiles.image import Image, on_esp, version_key
from cloner_core.bootfiles.made import CopyFile, FileWork, WriteFile
from cloner_core.bootfiles.sources import ENTRY_TOKEN, SUFFIX, systemd_boots
from cloner_core.steps import BootFiles

LOADER_CONF = "loader/loader.conf"
_ENTRY = re.compile(r"loader/entries/[^/]+\.conf", re.IGNORECASE)
_LINE = re.compile(rb"[ \t]*([a-z][a-z0-9-]*)[ \t]+(.*?)[ \t]*\r?")
_OWN = re.compile(rb'(?<!\S)(?:root|rootflags)=(?:"[^"]*"|[^\s"])*[ \t]*')
_TOKEN = re.compile(r"loader/entries/([0-9a-f]{32})-[^/]*\.conf", re.IGNORECASE)
_ARCHITECTURES = {"x86_64": b"x64", "aarch64": b"aa64"}


def is_loader_text(path: str) -> bool:
    """Whether `path`, relative to the ESP, is an entry, or the configuration of systemd-boot."""
    return path.lower() == LOADER_CONF or is_entry(path)


def is_entry(path: str) -> bool:
    """Whether `path`, relative to the ESP, is an entry."""
    return _ENTRY.fullmatch(path) is not None


def installed(image: Image, arch: str) -> str:
    """Return the path of systemd-boot on the image's ESP, where someone had put it; "" when there is none."""
    return on_esp(image, f"EFI/systemd/systemd-boot{SUFFIX[arch]}.efi")


def source(image: Image, esp: str, arch: str) -> str:
    """Return where in the clone systemd-boot is taken from, signed first; "" when the image has none."""
    packaged = next((path for path in systemd_boots(arch) if path in image.present), "")
    return packaged or (f"{esp}/{found}" if (found := installed(image, arch)) else "")


def entries(image: Image, arch: str) -> dict[str, bytes]:
    """Return the entries on the ESP whose kernel is there, by path, in the order systemd-boot shows them at most."""
    found = {path: text for path, text in image.esp_texts.items() if is_entry(path) and _is_whole(image, text, arch)}
    return dict(sorted(found.items(), key=lambda one: version_key(one[0]), reverse=True))


def for_clone(entry: bytes, action: BootFiles) -> bytes:
    """Return `entry` with the root of the clone and the node's arguments in its one line of options."""
    rest = _OWN.sub(b"", options_of(entry)).strip()
    has_initrd = any(key == b"initrd" for key, _ in _fields(entry))
    words = [f"root={root_argument(action, has_initramfs=has_initrd)}".encode()]
    words += [f"rootflags={action.root_flags}".encode()] if action.root_flags else []
    words += [rest] if rest else []
    words += [word for one in action.kernel_arguments if (word := _one_word(one)) not in (b"", *rest.split())]
    lines = [line for line in entry.splitlines() if line.split()[:1] != [b"options"]]
    return b"\n".join([*lines, b"options    " + b" ".join(words)]) + b"\n"


def for_grub(entry: bytes, action: BootFiles, *, fits: bool) -> bytes:
    """Return `entry`, which GRUB shows from /boot, with the node's arguments; for the clone's disks unless it `fits`.

    GRUB looks for its files from the top of the filesystem that holds /boot.
    """
    if not fits:
        lines = [_moved(line, action.boot_path) for line in entry.splitlines()]
        return for_clone(b"\n".join(lines) + b"\n", action)
    lines, is_first = [], True
    for line in entry.splitlines():
        if is_first and line.split()[:1] == [b"options"]:
            more = [word for one in action.kernel_arguments if (word := _one_word(one)) not in (b"", *line.split())]
            line, is_first = b" ".join([line.rstrip(), *more]), False  # noqa: PLW2901
        lines.append(line)
    return b"\n".join(lines) + b"\n"


def _moved(line: bytes, folder: str) -> bytes:
    words = line.split()
    if len(words) < 2 or words[0] not in (b"linux", b"initrd") or words[1].startswith(b"$"):
        return line
    return b" ".join([words[0], folder.encode() + b"/" + words[1].rpartition(b"/")[2], *words[2:]])


def place(image: Image, action: BootFiles, arch: str) -> Iterator[FileWork]:
    """Give what puts systemd-boot and its entries on the clone's ESP."""
    suffix, esp = SUFFIX[arch], action.esp
    taken, path = source(image, esp, arch), f"{esp}/EFI/systemd/systemd-boot{suffix}.efi"
    if taken.lower() != path.lower():
        yield CopyFile(taken, path)
    yield CopyFile(taken, f"{esp}/EFI/BOOT/BOOT{suffix.upper()}.EFI")
    found = entries(image, arch)
    for name, text in found.items():
        yield WriteFile(f"{esp}/{name}", for_clone(text, action), mode=0o600)
    if (conf := on_esp(image, LOADER_CONF)) and conf in image.esp_texts:
        yield WriteFile(f"{esp}/{conf}", without_waiting(image.esp_texts[conf]), mode=0o600)
    tokens = {match[1].lower() for name in found if (match := _TOKEN.fullmatch(name))}
    if ENTRY_TOKEN not in image.texts and len(tokens) == 1:
        # else kernel-install(8) goes by the new machine-id, and never replaces these entries
        yield WriteFile(ENTRY_TOKEN, tokens.pop().encode() + b"\n")


def root_argument(action: BootFiles, *, has_initramfs: bool) -> str:
    """Return what root= says; only an initramfs resolves a filesystem's UUID, the bare kernel knows partitions.

    Source: init/do_mounts.c.
    """
    return action.root if has_initramfs or not action.root_part_uuid else f"PARTUUID={action.root_part_uuid}"


def without_waiting(conf: bytes) -> bytes:
    """Return loader.conf without a menu that waits for a key for ever: a clone boots by itself."""
    return re.sub(rb"(?m)^([ \t]*timeout[ \t]+)menu-force[ \t]*$", rb"\g<1>2", conf)


def kernel_of(entry: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the kernel (or program) and the initramfs files that `entry` names, as written there."""
    fields = list(_fields(entry))
    kernel = next((value for key, value in fields if key in (b"linux", b"efi", b"uki")), b"")
    return _text(kernel), tuple(_text(value) for key, value in fields if key == b"initrd")


def options_of(entry: bytes) -> bytes:
    """Return all kernel arguments of `entry`."""
    return b" ".join(value for key, value in _fields(entry) if key == b"options")


def _is_whole(image: Image, entry: bytes, arch: str) -> bool:
    fields = dict(_fields(entry))
    meant = fields.get(b"architecture", b"").lower()
    if meant and meant != _ARCHITECTURES.get(arch):
        return False
    kernel, initrds = kernel_of(entry)
    return bool(kernel) and all(on_esp(image, path.lstrip("/\\").replace("\\", "/")) for path in (kernel, *initrds))


def _fields(entry: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in entry.splitlines():
        if match := _LINE.fullmatch(line):
            yield match[1], match[2]


def _one_word(argument: str) -> bytes:
    return "".join(character for character in argument if character.isprintable()).encode()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
