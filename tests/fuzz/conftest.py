"""The group that is fuzzed."""

from tests.faults.conftest import gates, group, names  # noqa: F401 - fixtures
