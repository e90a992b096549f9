"""The server's certificate is renewed long before its end, by the CA that nodes have, without a restart."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from cloner_core.errors import ClonerError
from cloner_server import certificates
from cloner_server.certificates import days_left
from cloner_server.listeners import listener, use_certificate
from cloner_server.site import Site, open_site, renew_certificate
from serverbench.scene import START_S

DAY_S = 86400.0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return open_site(tmp_path, START_S)[0]


def test_it_lives_two_years_and_its_ca_much_longer(site: Site) -> None:
    assert 729 < days_left(site.certificate.read_bytes(), START_S) < 731
    assert days_left(site.ca_pem, START_S) > 40 * 365


def test_it_is_renewed_when_eight_months_are_left_and_not_before(site: Site) -> None:
    before, key = site.certificate.read_bytes(), site.certificate_key.read_bytes()
    assert not renew_certificate(site, START_S + 480 * DAY_S)
    assert site.certificate.read_bytes() == before
    now_s = START_S + 500 * DAY_S
    assert renew_certificate(site, now_s)
    after = site.certificate.read_bytes()
    assert 729 < days_left(after, now_s) < 731
    certificate, authority = x509.load_pem_x509_certificate(after), x509.load_pem_x509_certificate(site.ca_pem)
    certificate.verify_directly_issued_by(authority)
    assert site.certificate_key.read_bytes() == key
    assert not renew_certificate(site, now_s), "once"
    assert [path.name for path in site.certificate.parent.iterdir() if path.name.startswith(".")] == []
    open_site(site.certificate.parent.parent, now_s)


def test_one_that_has_ended_is_renewed_too(site: Site) -> None:
    assert renew_certificate(site, START_S + 3000 * DAY_S)


@pytest.mark.parametrize("now_s", [0.0, -5.0, 1e12])
def test_whatever_the_clock_shows_there_is_a_certificate(site: Site, now_s: float) -> None:
    renew_certificate(site, now_s)
    certificate = x509.load_pem_x509_certificate(site.certificate.read_bytes())
    ca = x509.load_pem_x509_certificate(site.ca_pem)
    assert certificate.not_valid_before_utc < certificate.not_valid_after_utc <= ca.not_valid_after_utc
    assert not renew_certificate(site, now_s)


def test_one_that_is_damaged_or_of_another_ca_is_replaced(site: Site, tmp_path: Path) -> None:
    other = open_site(tmp_path / "other", START_S)[0]
    for wrong in (b"", other.certificate.read_bytes()):
        site.certificate.write_bytes(wrong)
        assert renew_certificate(site, START_S)


def test_a_ca_without_its_key_is_told(site: Site) -> None:
    (site.certificate.parent / "ca.key").unlink()
    with pytest.raises(ClonerError, match="cannot be renewed"):
        renew_certificate(site, START_S + 700 * DAY_S)


def test_a_connection_to_come_gets_the_new_certificate(site: Site) -> None:
    serving = listener(lambda: None, site)
    serving.config.load()

    def shown() -> bytes:
        """Return the certificate of a handshake in memory."""
        assert serving.config.ssl is not None
        one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
        trust = ssl.create_default_context(cadata=site.ca_pem.decode())
        trust.verify_flags |= ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME
        client = trust.wrap_bio(one, two, server_hostname=certificates.SERVER_NAME)
        server = serving.config.ssl.wrap_bio(two, one, server_side=True)
        for _ in range(4):
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        found = client.getpeercert(binary_form=True)
        assert found is not None
        return found

    def lies_there() -> bytes:
        return ssl.PEM_cert_to_DER_cert(site.certificate.read_text())

    before = shown()
    assert before == lies_there()
    assert renew_certificate(site, START_S + 700 * DAY_S)
    use_certificate(serving, site)
    assert shown() == lies_there() != before
