"""The sealed export of a server's state, and its import on a blank machine (docs/state-export.md)."""
