"""Builds the layered initramfs from Debian packages and locked wheels."""

from __future__ import annotations

from cloner_initramfs.base import build_base
from cloner_initramfs.cache import Cache, default_cache
from cloner_initramfs.drivers import Drivers, build_drivers
from cloner_initramfs.installer import InstallerFiles, Manifest, read_installer, write_installer
from cloner_initramfs.kit import build_kit, put_kit
from cloner_initramfs.layer import Layer, concatenate
from cloner_initramfs.memory import needed_memory_bytes
from cloner_initramfs.site import build_site_layer

__all__ = [
    "Cache",
    "Drivers",
    "InstallerFiles",
    "Layer",
    "Manifest",
    "build_base",
    "build_drivers",
    "build_kit",
    "build_site_layer",
    "concatenate",
    "default_cache",
    "needed_memory_bytes",
    "put_kit",
    "read_installer",
    "write_installer",
]
