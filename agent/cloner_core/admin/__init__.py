"""What the command line and the server say to each other: the objects as an admin sees and changes them.

The paths are in docs/api.md. Words of closed sets are the very words of the database and of `cloner_pxe.decision`.
"""
