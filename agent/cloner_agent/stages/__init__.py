"""The stages of a deploy: one module for each kind of work, each a few functions of (attempt, action)."""
