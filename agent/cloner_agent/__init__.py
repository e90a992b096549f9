"""Effects on a node: probing, running a plan, restoring, capturing. Ships alone into the initramfs."""
