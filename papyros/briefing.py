"""What a slave has to know before it can run a task, and is told once: its class, and where shared values are.

A slave is sent the definition of a class under a number, to which the jobs of that class refer from then on. Shared
values it is not sent, but shown where they are held (`papyros.store`).
"""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Callable, Collection, Sequence

from papyros import protocol
from papyros.frames import Outbox, pack_frame
from papyros.store import Held, needs_of

__all__ = ["Briefing"]


class Briefing:
    """What one slave was told.

    Args:
        outbox: to the slave.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._numbers = itertools.count()
        self._definitions: dict[bytes, int] = {}
        self._needs: dict[bytes, list[bytes]] = {}  # what the definitions that it has need of shared values
        #: The shared values that it was told of. They are held: it may open them only when it has ended a long job.
        self._values: dict[bytes, Held] = {}

    def define(
        self,
        digests: Sequence[bytes],
        definition: Callable[[bytes], bytes],
        value: Callable[[bytes], Held | None],
    ) -> array[int]:
        """Return the numbers of definitions, each of which the slave is sent first if it has not been yet."""
        known = self._definitions
        missing = [digest for digest in dict.fromkeys(digests) if digest not in known]
        if missing:
            known = known | {digest: self._send(digest, definition(digest), value) for digest in missing}
        return array("I", map(known.__getitem__, digests))

    def _send(self, digest: bytes, definition: bytes, value: Callable[[bytes], Held | None]) -> int:
        """Send a definition, and say where the values are that its jobs need.

        What is not there any more, be it the definition or a value, was of a job that nobody waits for: it is
        looked for again when the next one comes.
        """
        number = next(self._numbers)
        needs = needs_of(definition)
        if self._show(needs, value) and definition:
            self._definitions[digest] = number
            if needs:
                self._needs[digest] = needs
        self._outbox.put(pack_frame(protocol.DEFINE, number, [definition]))
        return number

    def _show(self, needs: list[bytes], value: Callable[[bytes], Held | None]) -> bool:
        """Say where values are that the slave was not told of; return whether all are there."""
        found = {need: held for need in needs if need not in self._values and (held := value(need)) is not None}
        if found:
            self._values.update(found)
            told = json.dumps({need.hex(): held.place for need, held in found.items()}).encode()
            self._outbox.put(pack_frame(protocol.VALUES, 0, [told]))
        return all(need in self._values for need in needs)

    def unshare(self, digests: Collection[bytes]) -> None:
        """Have the slave let go of shared values, and of the definitions of jobs that need them."""
        needy = [definition for definition, needs in self._needs.items() if not set(needs).isdisjoint(digests)]
        numbers = [self._definitions.pop(definition) for definition in needy]
        for definition in needy:
            del self._needs[definition]
        known = [digest for digest in digests if self._values.pop(digest, None) is not None]
        if known or numbers:
            told = json.dumps([[digest.hex() for digest in known], numbers]).encode()
            self._outbox.put(pack_frame(protocol.UNSHARE, 0, [told]))

    def let_go(self) -> None:
        """Hold no values any more, since the slave is gone."""
        self._values.clear()
