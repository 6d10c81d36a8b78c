"""The shared values of a machine, as one of its slaves sees them: opened when told of, mapped when needed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from papyros.errors import PayloadError
from papyros.pickling import load_value
from papyros.sharing import Shared
from papyros.store import Held

__all__ = ["MappedValues"]

#: A slave keeps so many values loaded, those that it used last. The memory that they are mapped from is the machine's.
KEPT_LOADED = 64


class MappedValues:
    """Finds the handles of shared values, for the jobs of one slave."""

    def __init__(self) -> None:
        self._held: dict[bytes, Held] = {}
        self._loaded: dict[bytes, Shared[Any]] = {}
        # Those that the system does not let a slave open: where they are, and what it says.
        self._refused: dict[bytes, tuple[Iterable[Any], str]] = {}

    @property
    def refuses(self) -> bool:
        """Whether there are values that cannot be opened, at least not now."""
        return bool(self._refused)

    def offer(self, digest: bytes, place: Iterable[Any]) -> None:
        """Take note where a value is held on this machine."""
        self._refused.pop(digest, None)
        try:
            self._held[digest] = Held.at(digest, place)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it is gone by now, so it was of jobs that nobody waits for
        except OSError as error:
            reason = f"({error})"
            if isinstance(error, PermissionError):
                reason += ": its program has changed its user since it began, say"
            self._refused[digest] = place, reason

    def forget(self, digest: bytes) -> None:
        """Let go of a value, which no job will need any more; what a job keeps of it stays mapped."""
        self._held.pop(digest, None)
        self._refused.pop(digest, None)
        self._loaded.pop(digest, None)

    def find(self, digest: bytes) -> Shared[Any]:
        """Return the handle of a value.

        Raises:
            PayloadError: it is not held here.
        """
        handle = self._loaded.pop(digest, None)
        if handle is None:
            if digest in self._refused:  # a job may have had all descriptors, and has let go of them
                self.offer(digest, self._refused[digest][0])
            held = self._held.get(digest)
            if held is None and digest in self._refused:
                raise PayloadError(
                    f"the shared value {digest.hex()[:8]}, which the job needs, cannot be opened by slave processes "
                    f"{self._refused[digest][1]}"
                )
            if held is None:
                raise PayloadError(
                    f"the shared value {digest.hex()[:8]}, which the job needs, is not held here any more"
                )
            handle = Shared.found(held, partial(_load, held))
            if len(self._loaded) >= KEPT_LOADED:
                del self._loaded[next(iter(self._loaded))]
        self._loaded[digest] = handle  # as the one that was used last
        return handle


def _load(held: Held) -> Any:
    return load_value(held.view())
