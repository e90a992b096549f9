"""Boot by GRUB: the image's shim and GRUB, stubs, a grub.cfg where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from cloner_core.bootfiles.errors import NotBootableError
from cloner_core.bootfiles.grub import append_arguments, stub, whole_config
from cloner_core.bootfiles.image import (
    Image,
    Kernel,
    default_grub,
    distribution,
    grub_config_path,
    kernels_of,
    on_esp,
)
from cloner_core.bootfiles.made import BootFilesMade, CopyFile, FileWork, RemoveFile, WriteFile
from cloner_core.bootfiles.sources import SUFFIX, grubs, mok_managers, shims
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
    identity, like, title = distribution(image)
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
    if existing is not None:
        changed = append_arguments(existing, action.kernel_arguments)
        if changed != existing:
            files.append(WriteFile(config_path, changed))
    elif kernels and not own_config:
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
        files.append(WriteFile(config_path, config))
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
        notes=tuple(_notes(loaders, kernels, first)),
        way="shim and GRUB" if loaders.shim else "GRUB",
    )


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


def _notes(loaders: _Loaders, kernels: Sequence[Kernel], first: str) -> list[str]:
    notes = []
    if not loaders.shim:
        notes.append(f"the image has no signed shim: {first} starts without Secure Boot only")
    notes += [
        f"kernel {kernel.version} has no initramfs: it must find the root without modules"
        for kernel in kernels
        if not kernel.initramfs
    ]
    return notes
