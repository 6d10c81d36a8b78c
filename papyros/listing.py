"""Lines of source, which code that travels by value takes along for the tracebacks of those who run it.

There need be no file where it arrives: neither that of a script on another machine, nor, anywhere, that of a cell of a
notebook, whose lines only the program knows that has run it. Python's `linecache` is where tracebacks look for them.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable
from types import CodeType
from typing import Any

__all__ = ["code_with_lines", "lines_of"]

#: Code that is longer than this, in characters, takes none along.
MOST_CHARACTERS = 1 << 16


def lines_of(code: CodeType) -> list[str]:
    """Return the lines of a piece of code, from its first one on, as far as they are known here."""
    lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 : _last_line(code)]
    return lines if sum(map(len, lines)) <= MOST_CHARACTERS else []


def _last_line(code: CodeType) -> int:
    last = max((line for *_, line in code.co_lines() if line), default=0)
    return max(last, *(_last_line(inner) for inner in code.co_consts if isinstance(inner, CodeType)), 0)


def code_with_lines(make: Callable[..., CodeType], parts: tuple[Any, ...], lines: list[str]) -> CodeType:
    """Make code of its parts, and note its lines where there is no file that has them."""
    code = make(*parts)
    name, before = code.co_filename, code.co_firstlineno - 1
    if not os.path.exists(name):
        entry: Any = linecache.cache.get(name)
        known = list(entry[2]) if entry is not None and len(entry) == 4 else []
        known += [""] * (before + len(lines) - len(known))
        known[before : before + len(lines)] = lines
        linecache.cache[name] = (sum(map(len, known)), None, known, name)  # without a moment, it is never looked for
    return code
