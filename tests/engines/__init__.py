"""Tests of masters over engines of other people, where these are installed: see ``make test-engines``."""
