"""Boot by GRUB: the image's shim and GRUB, stubs, a grub.cfg where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import msgspec

from cloner_core.bootfiles import systemdboot
from cloner_core.bootfiles.errors import NotBootableError
from cloner_core.bootfiles.grub import append_arguments, linux_lines, stub, whole_config
from cloner_core.bootfiles.image import (
    Image,
    default_grub,
    distribution,
    grub_config_path,
    kernels_of,
    on_esp,
)
from cloner_core.bootfiles.made import BootFilesMade, CopyFile, FileWork, RemoveFile, WriteFile
from cloner_core.bootfiles.sources import GRUB_ENTRIES, SUFFIX, grubs, mok_managers, shims
from cloner_core.steps import BootFiles


class _Loaders(msgspec.Struct, frozen=True):
    """Loaders found, as absolute paths in the clone; "" where there is none."""

    shim: str
    grub: str
    mok_manager: str


def boot_by_grub(image: Image, action: BootFiles, arch: str) -> BootFilesMade:
    """Return the boot files of a clone that boots by GRUB, behind shim where the image has one.

    Raises NotBootableError when the image has no GRUB for `arch` or no kernel.
    """
    identity, like, _ = distribution(image)
    loaders = _find_loaders(image, action.esp, identity, arch)
    if not loaders.grub:
        raise NotBootableError(
            f"the image has no EFI GRUB for {arch}: looked for {', '.join(grubs(arch))}"
            f" and EFI/{identity}/grub{SUFFIX[arch]}.efi on the ESP",
            hint="install a signed GRUB on the golden node (Debian: grub-efi-amd64-signed, shim-signed)",
        )
    kernels = kernels_of(image.boot)
    config_path = grub_config_path(image)
    existing = image.texts.get(config_path)
    own_config = on_esp(image, f"EFI/{identity}/grub.cfg")
    if existing is None and not own_config and not kernels:
        raise NotBootableError(
            "the image has no kernel in /boot (vmlinuz-VERSION) and no grub.cfg",
            hint="install a kernel on the golden node and capture it again",
        )
    files: list[FileWork] = list(_place_loaders(loaders, action.esp, identity, arch))
    files += [RemoveFile(f"{action.esp}/{path}") for path in image.esp if _is_fallback_program(path)]
    menu, menu_notes = menu_work(image, action) if existing is not None or not own_config else ([], ())
    files += menu
    if existing is not None or not own_config:
        folder = config_path.removesuffix("/grub.cfg").removeprefix("/boot")
        content = stub(action.boot_uuid, action.boot_path + folder)
        # a signed GRUB reads the folder it was built for, whatever the path it was started from
        folders = dict.fromkeys((identity, *like, "BOOT"))
        files += [WriteFile(f"{action.esp}/EFI/{name}/grub.cfg", content, mode=0o600) for name in folders]
    first = loaders.shim or loaders.grub
    name = f"shim{SUFFIX[arch]}.efi" if loaders.shim else f"grub{SUFFIX[arch]}.efi"
    return BootFilesMade(
        files=tuple(files),
        loader=f"\\EFI\\{identity}\\{name}",
        kernels=kernels,
        notes=(*_notes(loaders, first), *menu_notes),
        way="shim and GRUB" if loaders.shim else "GRUB",
    )


def menu_work(image: Image, action: BootFiles) -> tuple[list[FileWork], tuple[str, ...]]:
    """Return what makes the image's grub.cfg that of the clone, and what is to be noted.

    One that is for other disks than the clone's, or that is not there, is written anew.
    """
    path, kernels = grub_config_path(image), kernels_of(image.boot)
    existing = image.texts.get(path)
    notes = [
        f"kernel {kernel.version} has no initramfs: it must find the root without modules"
        for kernel in kernels
        if not kernel.initramfs
    ]
    misfit = config_misfit(existing, action) if existing is not None else ""
    if existing is not None and not (misfit and kernels):
        changed = append_arguments(existing, action.kernel_arguments)
        return [*([WriteFile(path, changed)] if changed != existing else []), *_entry_work(image, action)], tuple(notes)
    if not kernels:
        return [], tuple(notes)
    if misfit:
        notes.append(f"the image's grub.cfg is for other disks ({misfit}): written anew from /etc/default/grub")
    _, _, title = distribution(image)
    config = whole_config(
        kernels,
        title=title,
        boot_uuid=action.boot_uuid,
        boot_path=action.boot_path,
        root=action.root,
        root_flags=action.root_flags,
        root_part_uuid=action.root_part_uuid,
        settings=default_grub(image),
        kernel_arguments=action.kernel_arguments,
    )
    return [WriteFile(path, config)], tuple(notes)


def _entry_work(image: Image, action: BootFiles) -> Iterator[FileWork]:
    """Give what makes the entries in /boot, which some distributions' GRUB shows, those of the clone."""
    for path, text in sorted(image.texts.items()):
        if fnmatchcase(path, GRUB_ENTRIES):
            kernel, _ = systemdboot.kernel_of(text)
            line = b"linux " + kernel.encode(errors="surrogateescape") + b" " + systemdboot.options_of(text)
            content = systemdboot.for_grub(text, action, fits=not config_misfit(line, action))
            if content != text:
                yield WriteFile(path, content)


def config_misfit(config: bytes, action: BootFiles) -> str:
    """Return what in a grub.cfg is not as the clone's disks are, in words; "" when it fits, or nobody can tell."""
    wanted = {action.root, f"UUID={action.root_uuid}", f"PARTUUID={action.root_part_uuid}"}
    for words in linux_lines(config):
        folder = words[1].rpartition("/")[0]
        if "$" not in words[1] and not words[1].startswith("(") and folder != action.boot_path:
            return f"it looks for {words[1]}"
        roots = [word.removeprefix("root=") for word in words if word.startswith("root=")]
        if other := [
            name for name in roots if name not in wanted and not name.startswith(("$", "LABEL=", "PARTLABEL="))
        ]:
            return f"root={other[0]}"
        flags = [word.removeprefix("rootflags=") for word in words if word.startswith("rootflags=")]
        if {flag for flag in flags if "subvol" in flag} != ({action.root_flags} if action.root_flags else set()):
            return f"rootflags={','.join(flags) or 'none'}"
    return ""


def has_grub(image: Image, esp: str, arch: str) -> bool:
    """Whether the image has a GRUB for `arch`, and something that it could start."""
    identity, _, _ = distribution(image)
    has_menu = grub_config_path(image) in image.texts or bool(on_esp(image, f"EFI/{identity}/grub.cfg"))
    return bool(_find_loaders(image, esp, identity, arch).grub) and (has_menu or bool(kernels_of(image.boot)))


def _find_loaders(image: Image, esp: str, identity: str, arch: str) -> _Loaders:
    """Prefer the packages' files; where a distribution ships loaders on the ESP alone (Fedora), take those."""
    suffix = SUFFIX[arch]

    def first(paths: Sequence[str], name: str) -> str:
        packaged = next((path for path in paths if path in image.present), "")
        return packaged or (f"{esp}/{found}" if (found := on_esp(image, f"EFI/{identity}/{name}")) else "")

    return _Loaders(
        shim=first(shims(arch), f"shim{suffix}.efi"),
        grub=first(grubs(arch), f"grub{suffix}.efi"),
        mok_manager=first(mok_managers(arch), f"mm{suffix}.efi"),
    )


def _place_loaders(loaders: _Loaders, esp: str, identity: str, arch: str) -> Iterator[CopyFile]:
    suffix = SUFFIX[arch]
    names = {
        f"shim{suffix}.efi": loaders.shim,
        f"grub{suffix}.efi": loaders.grub,
        f"mm{suffix}.efi": loaders.mok_manager,
    }
    for name, source in names.items():
        path = f"{esp}/EFI/{identity}/{name}"
        if source and source.lower() != path.lower():
            yield CopyFile(source, path)
    # the removable-media path, for firmware that forgets its entries (UEFI 2.10 §3.5.1.1)
    fallback = {
        f"BOOT{suffix.upper()}.EFI": loaders.shim or loaders.grub,
        f"grub{suffix}.efi": loaders.grub if loaders.shim else "",
        f"mm{suffix}.efi": loaders.mok_manager if loaders.shim else "",
    }
    for name, source in fallback.items():
        if source:
            yield CopyFile(source, f"{esp}/EFI/BOOT/{name}")


def _is_fallback_program(path: str) -> bool:
    """Whether `path` is shim's fbx64 beside the fallback loader, which would rewrite BootOrder at each start."""
    folder, _, name = path.lower().rpartition("/")
    return folder == "efi/boot" and name in {f"fb{suffix}.efi" for suffix in SUFFIX.values()}


def _notes(loaders: _Loaders, first: str) -> list[str]:
    return [] if loaders.shim else [f"the image has no signed shim: {first} starts without Secure Boot only"]
