"""The image format: what a version is made of, byte by byte as docs/image-format.md tells it. No I/O."""
