"""A relay: a machine in a rack that takes what sessions send from the server once, and sends it on its own wire."""
