"""Restore: packs in any order, by several processes, to a tree that is then read back and proven."""
