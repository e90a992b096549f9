"""The image store: content-addressed files, and versions that appear whole or not at all."""
