"""Erasing the disks of a node: what a disk can, what is asked for, the plan, the receipt.

Pure values and the choice of disks and ways. The modules are imported by name: `facts` needs `abilities` alone.
"""
