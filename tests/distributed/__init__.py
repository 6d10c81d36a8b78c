"""Tests with real processes, a real name server, real signals and real terminals."""
