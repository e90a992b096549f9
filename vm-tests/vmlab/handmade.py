"""A golden tree put onto a disk by hand, with foreign tools only: what a clone is compared with in tests of the lab.

None of Cloner's code is used, so a fault of the lab (a tree that does not boot, a disk read wrongly) shows without it.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from vmlab import host
from vmlab.disk import MIB, Disk
from vmlab.golden_debian import ESP_SERIAL, ROOT_UUID, SWAP_UUID, copy_tree
from vmlab.offline import partition

ESP_BYTES = 64 * MIB
SWAP_BYTES = 64 * MIB
SIGNED = {
    "EFI/BOOT/BOOTX64.EFI": "usr/lib/shim/shimx64.efi.signed",
    "EFI/BOOT/grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
}


def install_by_hand(tree: Path, disk: Disk, *, command_line: str = "console=ttyS0") -> None:
    """Lay ESP, swap and ext4 root with the golden UUIDs onto a blank disk, and the tree onto it.

    The image's fstab holds as it is. Only for disks of 512-byte sectors. Needs root.
    """
    table = "label: gpt\n" + "".join(
        f"{size}type={kind}\n"
        for size, kind in ((f"size={ESP_BYTES // MIB}MiB, ", "U"), (f"size={SWAP_BYTES // MIB}MiB, ", "S"), ("", "L"))
    )
    host.run(["sfdisk", "--quiet", disk.path], stdin=table.encode())
    _make_root(tree, disk, command_line)
    _make_swap(disk)
    _make_esp(tree, disk)


def _make_root(tree: Path, disk: Disk, command_line: str) -> None:
    where = partition(disk, 3)
    with tempfile.TemporaryDirectory(prefix="vmlab-tree-", dir=disk.path.parent) as folder:
        copy = copy_tree(tree, Path(folder) / "tree")
        grub = copy / "boot/grub"
        grub.mkdir(exist_ok=True)
        (grub / "grub.cfg").write_text(_menu(tree, command_line))
        blocks = where.size_bytes // 4096
        options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-U", ROOT_UUID, "-d", str(copy)]
        host.run(["mke2fs", *options, "-E", f"offset={where.start_bytes}", disk.path, str(blocks)], timeout_s=300)


def _menu(tree: Path, command_line: str) -> str:
    (kernel,) = (path.name for path in (tree / "boot").glob("vmlinuz-*"))
    release = re.sub("^vmlinuz-", "", kernel)
    return (
        f"set timeout=0\nsearch --no-floppy --fs-uuid --set=root {ROOT_UUID}\nmenuentry hand {{\n"
        f"linux /boot/{kernel} root=UUID={ROOT_UUID} ro {command_line}\n"
        f"initrd /boot/initrd.img-{release}\n}}\n"
    )


def _make_swap(disk: Disk) -> None:
    where = partition(disk, 2)
    with tempfile.NamedTemporaryFile(prefix="vmlab-swap-") as file:
        file.truncate(where.size_bytes)
        host.run(["mkswap", "--uuid", SWAP_UUID, file.name])
        host.run(
            ["dd", f"if={file.name}", f"of={disk.path}", "bs=4096", "count=1", "conv=notrunc", "oflag=seek_bytes",
             f"seek={where.start_bytes}"]
        )  # fmt: skip


def _make_esp(tree: Path, disk: Disk) -> None:
    where = partition(disk, 1)
    with tempfile.TemporaryDirectory(prefix="vmlab-esp-") as folder:
        image = Path(folder) / "esp"
        image.touch()
        host.run(["truncate", "--size", str(where.size_bytes), image])
        host.run(["mkfs.vfat", "-F", "32", "-i", ESP_SERIAL.replace("-", ""), image])
        stub = Path(folder) / "grub.cfg"
        stub.write_text(f"search.fs_uuid {ROOT_UUID} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n")
        host.run(["mmd", "-i", image, "::EFI", "::EFI/BOOT", "::EFI/debian"])
        for name, source in SIGNED.items():
            host.run(["mcopy", "-i", image, tree / source, f"::{name}"])
        host.run(["mcopy", "-i", image, stub, "::EFI/debian/grub.cfg"])
        host.run(
            ["dd", f"if={image}", f"of={disk.path}", "bs=1M", "conv=notrunc,sparse", "oflag=seek_bytes",
             f"seek={where.start_bytes}"]
        )  # fmt: skip
