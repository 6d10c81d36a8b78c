"""Texts that wait for whoever reads them, each with whose it is: of too much, the end is kept.

Of what jobs print, on its way: at the slave host, at the master, and before a stream that nobody reads. Who has them,
and where they go, is not known here.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

__all__ = ["keep_end", "room_for"]

#: Where there is too much, so much of what may be kept goes as well: to cut a long text copies it, and has to be rare.
SPARE_PART = 8

#: What a text takes, beside its characters, by saying whose it is.
WHOSE_CHARACTERS = 64


def room_for(text: str) -> int:
    """Return how much room a text takes, in characters."""
    return len(text) + WHOSE_CHARACTERS


def keep_end(texts: MutableSequence[tuple[Any, ...]], taken: int, bound: int) -> int:
    """Where texts take more room than they may have, drop the beginning; return how much they take then.

    A text that is too long, or the oldest of them, loses its beginning: a line end that follows is no reason to drop
    all of a long print before it.

    Args:
        texts: tuples that end with a text, the oldest first.
        taken: how much room all of them take.
        bound: how much they may take.
    """
    if taken > bound:
        bound -= bound // SPARE_PART
    while taken > bound:
        *whose, text = texts[0]
        excess = taken - bound
        if excess < len(text):
            texts[0] = (*whose, text[excess:])
            return bound
        del texts[0]
        taken -= room_for(text)
    return taken
