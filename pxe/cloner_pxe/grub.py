"""grub.cfg texts for machines whose loader is shim and a signed GRUB.

Pure. Only what GRUB needs beside `cloner_pxe.scripts`: the local disk is started by chain-loading the fallback loader
of the ESP, which works under Secure Boot too. The agent does not come this way: Debian 12's signed grubnet has no
http module.
"""

from __future__ import annotations

from cloner_core.errors import InvalidError
from cloner_pxe.decision import Script, ScriptKind
from cloner_pxe.scripts import WAIT_S, shown

# The image's own loaders first, the fallback path last; never fbx64, it rewrites BootOrder.
LOCAL_LOADERS = ("/EFI/debian/shimx64.efi", "/EFI/BOOT/BOOTX64.EFI")

FIRST_STAGE = "configfile /grub/nodes/$net_default_mac.cfg\n"
"""The one file signed GRUB asks for, `/grub/grub.cfg`: it goes on to the file of the node."""


def render_grub(script: Script, *, mac: str) -> str:
    """Return the grub.cfg for `script`.

    Raises InvalidError for the agent: the agent's kernel and initramfs are not served to GRUB.
    """
    if script.kind is ScriptKind.AGENT:
        raise InvalidError("the agent is not served to GRUB", hint="use iPXE or HTTP Boot for this node")
    lines = [f"echo 'cloner: {_quoted(script.node or mac)}: {_quoted(script.why)}'"]
    if script.kind is ScriptKind.WAIT:
        return "\n".join((*lines, f"sleep {WAIT_S}", f"configfile /grub/nodes/{mac}.cfg", ""))
    for loader in LOCAL_LOADERS:
        lines += [
            f"if search --no-floppy --file --set=root {loader}; then",
            f"  chainloader {loader} && boot",
            "fi",
        ]
    # Exit gives firmware its turn with the next boot entry.
    return "\n".join((*lines, "exit", ""))


def _quoted(text: str) -> str:
    return shown(text).replace("'", "?")
