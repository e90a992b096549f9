"""The server's state in a relational database: tables, transactions, and one module per noun.

Modules here read and write rows inside a transaction the caller opened; rules of what may happen when are in
`cloner_server.tasks`. Nothing here opens a socket or reads a clock: time and author come with `Act`.
"""
