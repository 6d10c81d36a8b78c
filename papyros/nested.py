"""The master that a job sees where nothing of its own master can be reached: in a process of somebody else's executor.

Its children run in that process, one after the other, within the calls by which the job waits for them. So they take
up no place but that of their parent: nothing can lock up, however few processes there are.
"""

from __future__ import annotations

from papyros.singlethreaded import SingleThreadedMaster

__all__ = ["NestedMaster", "open_family"]


class NestedMaster(SingleThreadedMaster):
    """A master for one job, in its own thread."""

    @property
    def closed(self) -> bool:
        """Whether the job has closed it."""
        return self._closed

    def end(self) -> None:
        """Drop the children that are left."""
        self.close()


def open_family() -> NestedMaster:
    """Return a master for the job that runs here."""
    return NestedMaster()
