"""The job classes of a slave: defined by its crew under numbers, loaded when the first job of theirs comes.

And the shared values that jobs refer to, since a class knows whether its jobs do. What a job returns is none of its
affairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from papyros.errors import PayloadError
from papyros.jobs import Job
from papyros.mapped import MappedValues
from papyros.sharing import Shared
from papyros.sources import OtherModuleError
from papyros.store import JOB_NEEDS, without_needs
from papyros.wire import Packer, load_definition

__all__ = ["JobClasses"]


class JobClasses:
    """Finds the classes of jobs that come, by the numbers of their definitions."""

    def __init__(self) -> None:
        self._pickled: dict[int, bytes] = {}  # the definitions that no job has needed yet
        self._loaded: dict[int, type[Job] | PayloadError] = {}
        self._fresh = True  # no class was loaded here yet
        self._values = MappedValues()
        # Jobs that refer to other values have other definitions, whose class is the same.
        self._of_needy: dict[int, bytes] = {}  # what the definitions of jobs that need values say of their class
        self._shared: dict[bytes, type[Job] | PayloadError] = {}  # the classes of these

    def define(self, number: int, pickled: bytes) -> None:
        """Take a definition, under the number by which jobs refer to it."""
        self._pickled[number] = pickled

    def offer(self, digest: bytes, place: Iterable[Any]) -> None:
        """Take note where a shared value is held on this machine."""
        self._values.offer(digest, place)

    def forget(self, digests: Iterable[bytes], numbers: Iterable[int]) -> None:
        """Let go of shared values and of definitions that no job will need any more."""
        for digest in digests:
            self._values.forget(digest)
        for number in numbers:
            self._pickled.pop(number, None)
            self._loaded.pop(number, None)
            of_class = self._of_needy.pop(number, None)
            if of_class is not None and of_class not in self._of_needy.values():
                self._shared.pop(of_class, None)

    def find(self, number: int, packer: Packer) -> type[Job]:
        """Return a class; `packer`, which packs the children of jobs, is told of one that is new here.

        Raises:
            PayloadError: it cannot be loaded.
            OtherModuleError: a fresh slave could load it: here, another module of that name was imported before.
            BaseException: loading it runs code of the user's, which may raise anything.
        """
        found = self._loaded.get(number)
        if found is None:  # asked so, since a class may count as false: its metaclass may have a length
            found = self._load(number, packer)
        if isinstance(found, PayloadError):
            raise found.with_traceback(None)  # else it grows with each job of this class
        return found

    def values_for(self, number: int) -> Callable[[bytes], Shared[Any]] | None:
        """Return what finds the shared values to which jobs of a class refer; None if they refer to none."""
        return self._values.find if number in self._of_needy else None

    def _load(self, number: int, packer: Packer) -> type[Job] | PayloadError:
        pickled = self._pickled.pop(number)
        of_class = without_needs(JOB_NEEDS, pickled)
        if of_class is not pickled:
            self._of_needy[number] = of_class
        loaded = self._shared.get(of_class)
        if loaded is None:
            fresh, self._fresh = self._fresh, False
            try:
                loaded = load_definition(of_class, self._values.find)
                packer.know(loaded, of_class, self._values.find)
            except OtherModuleError as error:
                if not fresh:
                    raise
                loaded = PayloadError(str(error))  # and so it would be in any other slave
            except PayloadError as error:
                if self._values.refuses:  # which it may need: a job that is in the way may go out of it
                    self._pickled[number] = pickled
                    raise
                loaded = error  # and so for each further job of this class
            except BaseException:
                self._pickled[number] = pickled  # for the next job of this class
                raise
        if number in self._of_needy and not isinstance(loaded, PayloadError):
            self._shared[of_class] = loaded
        self._loaded[number] = loaded
        return loaded
