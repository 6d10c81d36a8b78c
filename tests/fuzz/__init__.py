"""Mutated frames, before and after authentication; all from one seed."""
