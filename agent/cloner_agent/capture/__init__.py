"""Capture: one walk over a tree, its files to chunks, its inodes to records. Reads only; starts no program."""
