r"""Boot files of a clone: which of the image's own loaders go where on the ESP, and the GRUB configuration.

Pure: the agent says what the image has (`Image`), and gets copies, writes and removals to do. Signed loaders are
preferred, so that Secure Boot keeps working; shim's fbx64 is never placed, because it reorders BootOrder.
"""

from cloner_core.bootfiles.choosing import boot_files
from cloner_core.bootfiles.errors import NotBootableError
from cloner_core.bootfiles.grub import append_arguments, named_files
from cloner_core.bootfiles.image import Image, Kernel, kernels_of
from cloner_core.bootfiles.listing import boot_lacks, is_boot_name
from cloner_core.bootfiles.made import BootFilesMade, CopyFile, CoreImage, RemoveFile, WriteFile
from cloner_core.bootfiles.sources import LOADERS, TEXTS
from cloner_core.bootfiles.systemdboot import is_loader_text

__all__ = [
    "LOADERS",
    "TEXTS",
    "BootFilesMade",
    "CopyFile",
    "CoreImage",
    "Image",
    "Kernel",
    "NotBootableError",
    "RemoveFile",
    "WriteFile",
    "append_arguments",
    "boot_files",
    "boot_lacks",
    "is_boot_name",
    "is_loader_text",
    "kernels_of",
    "named_files",
]
