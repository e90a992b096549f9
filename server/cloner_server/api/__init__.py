"""HTTP: agents over TLS, boot files and confirmation in the clear, admins over a Unix socket.

Handlers authenticate, decode, open one transaction and call `cloner_server.tasks` or `cloner_server.state`.
"""
