"""Tests of single parts, and of what only one master promises."""
