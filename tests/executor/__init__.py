"""Executors over masters, and masters over executors."""
