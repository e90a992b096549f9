"""Programs that run on a node, inside our initramfs in a machine of the lab (`vmlab.workbench`).

Each may import what the initramfs has: the standard library, `cloner_core` and `cloner_agent`; and `reporting`.
"""
