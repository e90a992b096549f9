"""Reliable multicast of one session's parcels, without sockets, clock or randomness of its own.

Byte by byte, with its states and reasons: docs/multicast-protocol.md. A driver owns the sockets: it seals what the
`Sender` gives and opens what arrives before the `Receiver` sees it.
"""
