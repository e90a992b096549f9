"""The lint of a real Debian tree, as debootstrap leaves it: what is found has to be worth reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner_initramfs import Cache
from cloner_server.store.local import LocalStore
from clones import capture_into, places
from store_images import Key
from vmlab.golden_debian import golden_debian

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_a_debian_tree_has_its_identity_left_out_and_nothing_else_is_said_of_it(cache: Cache, tmp_path: Path) -> None:
    captured = capture_into(LocalStore(tmp_path / "store", Key()), golden_debian(cache))
    names = ("ecdsa_key", "ecdsa_key.pub", "ed25519_key", "ed25519_key.pub", "rsa_key", "rsa_key.pub")
    assert places(captured) == {
        "machine-id": ["/etc/machine-id", "/var/lib/dbus/machine-id"],
        "ssh-host-key": [f"/etc/ssh/ssh_host_{name}" for name in names],
    }
