"""Attacks, each of which is refused; a test has the number of its row in the table of docs/security.md."""
