"""Erasing the disks of a node: what they can, how it is done, and how it is shown to be done."""
