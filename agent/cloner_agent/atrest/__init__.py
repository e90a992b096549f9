"""Capturing a node whose system does not run: its disks are read, and nothing is written to any of them."""
