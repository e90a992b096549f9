"""The laws, a module for each; they stand on what the tests stand on, so `tests` must be on the path."""
