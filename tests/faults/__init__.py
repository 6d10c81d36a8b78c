"""Faults injected into the real thing: a master, a slave host and clients in this process, with real slaves."""
