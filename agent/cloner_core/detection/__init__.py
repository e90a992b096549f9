"""Detection: from a running golden node to the layout that makes the same on another machine.

Pure: `told` is what tools say as texts; asking them is `cloner_agent.detecting`.
"""

from cloner_core.detection.detecting import Detected, Drive, UndescribedError, detect
from cloner_core.detection.excluded import parse_excluded
from cloner_core.detection.parsing import Block, parse_blocks, parse_mounts, parse_swap_files
from cloner_core.detection.told import (
    FINDMNT_COLUMNS,
    LSBLK_COLUMNS,
    LVS_FIELDS,
    PVS_FIELDS,
    VGS_FIELDS,
    ArrayTold,
    BtrfsTold,
    Excluded,
    Told,
)

__all__ = [
    "FINDMNT_COLUMNS",
    "LSBLK_COLUMNS",
    "LVS_FIELDS",
    "PVS_FIELDS",
    "VGS_FIELDS",
    "ArrayTold",
    "Block",
    "BtrfsTold",
    "Detected",
    "Drive",
    "Excluded",
    "Told",
    "UndescribedError",
    "detect",
    "parse_blocks",
    "parse_excluded",
    "parse_mounts",
    "parse_swap_files",
]
