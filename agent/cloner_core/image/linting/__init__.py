"""What a capture finds that should not travel to clones: kinds, rules, readers, and the linter that applies them."""
