"""The server's part of multicast that needs no database: parcels, links, and the processes that send."""
