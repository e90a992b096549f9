"""A network in virtual time for the sender and the receivers of `cloner_core.multicast`: the very classes a node runs.

Nothing here reads a clock or chance of its own: a seed decides everything, so a run that failed can be run again.
"""
