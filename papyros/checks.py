"""Checks of numbers that users give: what is out of bounds is refused early, in words."""

from __future__ import annotations

from papyros.cpus import usable_cpus

__all__ = [
    "LEAST_SILENCE",
    "MOST_SILENCE",
    "check_bound",
    "check_port",
    "check_silence",
    "check_slaves",
    "clamp_silence",
]

#: For so many seconds somebody may be silent before he is given up. Of less, all are given up again and again; and a
#: week is longer than anybody would wait, but not longer than the system can.
LEAST_SILENCE, MOST_SILENCE = 0.1, 7 * 24 * 3600


def check_bound(name: str, bound: int | None) -> int | None:
    """Return a bound of a queue, or refuse it."""
    if bound is None:
        return None
    if isinstance(bound, bool) or not isinstance(bound, int):
        raise TypeError(f"{name} is a whole number or None, not {bound!r}")
    if bound < 1:
        raise ValueError(f"{name} is at least 1, or None for no bound, not {bound}")
    return bound


def check_port(port: int) -> int:
    """Return a port to listen on, 0 for any free one, or refuse it."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"a port is a whole number, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is from 0, which means any free one, to 65535, not {port}")
    return port


def check_silence(name: str, seconds: float | None) -> float | None:
    """Return after how many seconds of silence somebody is given up, None for the default, or refuse it."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} is a number of seconds or None, not {seconds!r}")
    if not LEAST_SILENCE <= seconds <= MOST_SILENCE:
        raise ValueError(
            f"{name} is a number of seconds from {LEAST_SILENCE} to {MOST_SILENCE}, a week, not {seconds!r}"
        )
    return seconds


def clamp_silence(seconds: float) -> float:
    """Return what somebody else says of such a number, within the bounds that he should have kept."""
    return float(min(max(LEAST_SILENCE, seconds), MOST_SILENCE))


def check_slaves(slaves: int | None) -> int:
    """Return a number of slaves, by default one for each CPU that this process may use, or refuse it."""
    if slaves is None:
        return usable_cpus()
    if isinstance(slaves, bool) or not isinstance(slaves, int):
        raise TypeError(f"the number of slaves is a whole number, not {slaves!r}")
    if slaves < 1:
        raise ValueError(f"there is at least 1 slave, not {slaves}")
    return slaves
