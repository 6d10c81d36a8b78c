"""Attacks that are refused; each test has the number of its row in docs/security.md."""
