"""Drivers of multicast sessions: the sockets, clocks and processes around `cloner_core.multicast`.

Servers, relays and nodes have it; it knows nothing of tasks, images or the API.
"""
