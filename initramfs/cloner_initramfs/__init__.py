"""Builds the layered initramfs from Debian packages and locked wheels."""
