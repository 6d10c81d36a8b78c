"""What comes to a slave host is checked before a slave sees any of it: jobs and definitions, by what clients sealed.

What becomes of these jobs is sealed here, too, bound to what came.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from papyros.bundles import MOST_JOBS, count_jobs
from papyros.distributed.batches import HostJob, JobOutcome
from papyros.distributed.keys import ClusterKey
from papyros.distributed.seals import Seals, ticket_of
from papyros.logs import logger_of
from papyros.tasks import Task
from papyros.wire import Buffer, definition_digest

__all__ = ["Intake", "Tag"]

log = logger_of(__name__)

#: The keys of so many sessions are kept at hand.
MOST_SESSIONS = 1000

#: Why a job was not started that came otherwise than it was sent.
ALTERED = "the job, or the definition of its class, was changed on its way: nothing of it was unpickled"


class Tag(tuple[str, int]):
    """The session and the number of a job; and beside that its ticket, which makes no difference."""

    ticket: bytes

    def __new__(cls, job: tuple[str, int], ticket: bytes) -> Tag:
        """Return the tag of a job, a pair of session and number."""
        tag = super().__new__(cls, job)
        tag.ticket = ticket
        return tag


class Intake:
    """Checks jobs, and keeps the definitions that they need.

    Args:
        key: the key of the cluster.

    Attributes:
        definitions: those that came, by their digests. One that is empty is not what its digest says.
    """

    def __init__(self, key: ClusterKey) -> None:
        self._key = key
        self._seals_of: dict[str, Seals] = {}  # for the crew's thread, and the one that fetches
        self.definitions: dict[bytes, bytes] = {}

    def missing(self, jobs: Sequence[HostJob]) -> set[bytes]:
        """Return which definitions these jobs need that are not here."""
        return {job.definition for job in jobs} - self.definitions.keys()

    def define(self, definitions: dict[bytes, bytes]) -> None:
        """Keep definitions; of one that is not what its digest says, nothing is used."""
        self.definitions.update(
            (digest, definition if definition_digest(definition) == digest else b"")
            for digest, definition in definitions.items()
        )

    def forget(self, digests: Collection[bytes]) -> None:
        """Let go of definitions."""
        for digest in digests:
            self.definitions.pop(digest, None)

    def check(self, jobs: Sequence[HostJob]) -> tuple[list[Task], list[tuple[str, int, str]]]:
        """Return the tasks that jobs make, and those that are not what was sent, with what is told of them."""
        tasks: list[Task] = []
        altered: list[tuple[str, int, str]] = []
        for job in jobs:
            if job.definition not in self.definitions:
                continue  # its client has left meanwhile
            if self._is_sealed(job):
                tag = Tag((job.session, job.number), ticket_of(job.seal))
                tasks.append(Task(tag, job.definition, job.blob, job.terms))
            else:
                altered.append((job.session, job.number, ALTERED))
        if altered:
            self.forget([digest for digest, definition in self.definitions.items() if not definition])  # to ask again
        return tasks, altered

    def _is_sealed(self, job: HostJob) -> bool:
        """Whether a job, and the definition of its class, are what its client sealed."""
        seals = self.seals(job.session)
        jobs = job.terms.jobs
        if jobs == 1:
            check, known = seals.check_job, True
        else:
            check, known = seals.check_bundle, jobs in range(2, MOST_JOBS + 1) and jobs == count_jobs(job.blob)
        known = known and isinstance(jobs, int)
        known = known and bool(self.definitions[job.definition])
        known = known and check(job.number, job.definition, job.blob, job.seal)
        if not known:
            log.warning("a job that came is not what its client sealed; it is not unpickled")
        return known

    def sealed(
        self, tags: Sequence[Tag], outcomes: Sequence[Buffer], seconds: Sequence[float], slave: str
    ) -> list[JobOutcome]:
        """Return what has become of jobs with these tags, as it is reported."""
        sealed = []
        for tag, outcome, spent in zip(tags, outcomes, seconds, strict=True):
            session, number = tag
            seal = self.seals(session).seal_outcome(number, tag.ticket, outcome)
            sealed.append(JobOutcome(session, number, outcome, spent, slave, tag.ticket, seal))
        return sealed

    def seals(self, session: str) -> Seals:
        """Return the seals of a session."""
        seals = self._seals_of.get(session)
        if seals is None:
            if len(self._seals_of) >= MOST_SESSIONS:
                self._seals_of.clear()
            seals = self._seals_of[session] = Seals(self._key, session)
        return seals
