"""The pure core: formats, layouts, plans, identities, messages. No sockets, clock, processes or files."""
