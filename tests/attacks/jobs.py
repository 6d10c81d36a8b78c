"""Jobs of the tests of attacks."""

from __future__ import annotations

import papyros


@papyros.job
def raises(kind):
    raise kind("on purpose")


@papyros.job
def returns(kind):
    return kind("on purpose")


class Trap:
    """Ends whoever unpickles it, if that is let through."""

    def __reduce__(self):
        return _spring, ()


def _spring():
    raise SystemExit("sprung")


@papyros.job
def returns_trap():
    return Trap()
