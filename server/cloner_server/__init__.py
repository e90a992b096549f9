"""The server: API, state, image store, vault, tasks. Knows nothing of how a node does its work."""

VERSION = "0.1.0"
