"""Functions that the tests submit; slave processes import this module by its name."""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.support import Gate


def add(left, right=0):
    return left + right


def capture(*args, **kwds):
    return args, kwds


def fail(number):
    raise ValueError(f"no luck with {number}")


class EmptyError(Exception):
    """An exception that is false."""

    def __bool__(self):
        return False


def fail_emptily(number):
    raise EmptyError(number)


def fail_at(bad, number):
    if number == bad:
        raise ValueError(f"no luck with {number}")
    return number


def pass_gate(path, value=None):
    Gate(path).pass_through()
    return value


def nap(seconds):
    time.sleep(seconds)
    return seconds


def make_lock():
    return threading.Lock()


class Thing:
    """Has a method, and can be referred to weakly."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    def plus(self, number):
        return self.value + number


def make_thing(number):
    return Thing(number)
