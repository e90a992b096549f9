"""The site layer holds the CA as given and a configuration the agent's reader takes."""

from __future__ import annotations

import json
from typing import Any

from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.messages import PROTOCOL
from cloner_initramfs import build_site_layer
from initramfsbench.archives import read

SITE = {"protocol": PROTOCOL, "server_key": "ab" * 32}


def files(layer: bytes) -> dict[bytes, bytes]:
    raw = zstd.ZstdDecompressor().decompress(layer)
    return {one.path: one.data for one in read(raw)}


@given(st.binary(max_size=200), st.dictionaries(st.text(min_size=1), st.integers(0, 9) | st.text(), max_size=5))
def test_ca_and_configuration_are_in_it_as_given(ca_pem: bytes, site: dict[str, Any]) -> None:
    found = files(build_site_layer(ca_pem, site))
    assert found[b"etc/cloner/ca.pem"] == ca_pem
    assert json.loads(found[b"etc/cloner/site.json"]) == site


def test_the_order_of_keys_does_not_change_it() -> None:
    turned = dict(reversed(SITE.items()))
    assert build_site_layer(b"pem", SITE) == build_site_layer(b"pem", turned)


def test_it_takes_a_few_hundred_bytes() -> None:
    assert len(build_site_layer(b"pem", SITE)) < 1024
