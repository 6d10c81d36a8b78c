"""A group in virtual time: the real desk and service of a master, small models of clients and slave hosts.

One random number generator decides everything, so a seed is a whole story:
``python -m tests.simulation SEED --trace`` tells it again.
"""
