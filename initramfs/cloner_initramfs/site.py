"""The site layer: the CA a node trusts and the site's configuration; all that differs between two sites.

Pure, so that a server builds it in memory whenever its CA or configuration changes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cloner_core import newc
from cloner_initramfs.layer import compress

CA_PATH = "etc/cloner/ca.pem"
SITE_PATH = "etc/cloner/site.json"


def build_site_layer(ca_pem: bytes, site: Mapping[str, object]) -> bytes:
    """Return the layer with the CA certificate and site.json (keys sorted), ready to be concatenated.

    `site` holds at least `protocol` and `server_key` (the Ed25519 public key, 64 hex digits); the agent validates it.
    """
    text = msgspec.json.format(msgspec.json.encode(dict(site), order="deterministic"), indent=2)
    return compress(newc.with_parents([newc.file(CA_PATH, ca_pem), newc.file(SITE_PATH, text + b"\n")]))
