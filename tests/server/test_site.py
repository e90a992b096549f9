"""Keys of a site and the vault: made once, whole or not at all, opened by nobody else."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from sqlalchemy import update

from cloner_core.errors import ClonerError, IntegrityError
from cloner_server import vault
from cloner_server.certificates import SERVER_NAME
from cloner_server.site import open_site
from cloner_server.state.tables import vault as table
from serverbench.scene import START_S, Scene


def test_a_site_is_made_once(tmp_path: Path) -> None:
    first, was_new = open_site(tmp_path, START_S)
    second, is_new = open_site(tmp_path, START_S)
    assert (was_new, is_new) == (True, False)
    assert (first.ca_pem, first.public_key, first.vault_key) == (second.ca_pem, second.public_key, second.vault_key)


def test_a_kill_while_the_site_is_made_leaves_no_half_site(tmp_path: Path) -> None:
    half = tmp_path / ".site-0badcafe"
    half.mkdir()
    (half / "ca.pem").write_text("half")
    open_site(tmp_path, START_S)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize("name", ["ca.pem", "server.pem", "server.key", "signing.key", "vault.key"])
def test_a_site_that_lost_a_part_is_never_made_anew(tmp_path: Path, name: str) -> None:
    open_site(tmp_path, START_S)
    (tmp_path / "site" / name).unlink()
    with pytest.raises(ClonerError, match="backup"):
        open_site(tmp_path, START_S)
    assert not (tmp_path / "site" / name).exists()


def test_the_certificate_is_for_the_fixed_name_and_signed_by_the_ca(tmp_path: Path) -> None:
    site, _ = open_site(tmp_path, START_S)
    certificate = x509.load_pem_x509_certificate(site.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(site.ca_pem)
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [SERVER_NAME]
    context = ssl.create_default_context(cadata=site.ca_pem.decode())
    assert context.cert_store_stats()["x509_ca"] == 1


def test_signatures_verify_with_the_public_key(tmp_path: Path) -> None:
    site, _ = open_site(tmp_path, START_S)
    Ed25519PublicKey.from_public_bytes(site.public_key).verify(site.sign(b"statement"), b"statement")


def test_no_key_shows_itself(tmp_path: Path) -> None:
    site, _ = open_site(tmp_path, START_S)
    assert site.vault_key.hex() not in repr(site)
    assert "signing_key" not in repr(site)


def test_an_identity_is_what_openssh_and_systemd_expect(scene: Scene) -> None:
    with scene.core.database.read() as connection:
        opened = vault.open_identity(connection, "n01", scene.core.site.vault_key)
    assert len(opened.machine_id) == 32
    assert opened.machine_id[12] == "4"
    assert opened.machine_id[16] in "89ab"
    assert [key.algorithm for key in opened.host_keys] == ["ed25519", "ecdsa", "rsa"]
    for key in opened.host_keys:
        private = load_ssh_private_key(key.private.value.encode(), None)
        public = load_ssh_public_key(key.public.encode())
        assert private.public_key() == public
        assert key.private.value.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        assert key.private.value not in repr(opened)


def test_two_nodes_never_share_an_identity(scene: Scene) -> None:
    key = scene.core.site.vault_key
    with scene.core.database.read() as connection:
        one, two = (vault.open_identity(connection, name, key) for name in ("n01", "n02"))
    assert one.machine_id != two.machine_id
    assert {k.public for k in one.host_keys}.isdisjoint({k.public for k in two.host_keys})


def test_an_identity_moved_to_another_node_does_not_open(scene: Scene) -> None:
    with scene.core.database.write() as connection:
        row = connection.execute(table.select().where(table.c.node == "n02")).one()
        values = {"nonce": row.nonce, "sealed": row.sealed}
        connection.execute(update(table).where(table.c.node == "n01").values(values))
    with scene.core.database.read() as connection, pytest.raises(IntegrityError):
        vault.open_identity(connection, "n01", scene.core.site.vault_key)


def test_an_identity_does_not_open_with_another_sites_key(scene: Scene) -> None:
    with scene.core.database.read() as connection, pytest.raises(IntegrityError):
        vault.open_identity(connection, "n01", bytes(32))


def test_an_identity_once_made_stays(scene: Scene) -> None:
    def machine_id() -> str:
        with scene.core.database.read() as connection:
            return vault.machine_id(connection, "n01", scene.core.site.vault_key)

    before = machine_id()
    vault.ensure_identities(scene.core.database, scene.core.act("t"), ["n01"], scene.core.site.vault_key)
    assert machine_id() == before
