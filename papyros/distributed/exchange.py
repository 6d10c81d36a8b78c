"""What goes between a client and its master: waiting jobs become what is sent, and what comes ends them.

Here is decided which jobs travel by themselves and which in bundles, what is sealed, and what is believed of what
comes. Nothing in here waits, or knows of lines and messages. Whoever calls holds the lock of the client, if nothing
else is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil

from papyros.bundles import MOST_JOBS, pack_bundle, story_of
from papyros.distributed.batches import AddedJob, JobOutcome
from papyros.distributed.bundling import Bundle, Bundling
from papyros.distributed.seals import Seals, ticket_of
from papyros.distributed.sent import SentJobs
from papyros.encoded import encode_lost, encode_refusal, is_told, told_text
from papyros.entries import Entry, Holder
from papyros.errors import PayloadError
from papyros.frames import Buffer
from papyros.ledger import ASSIGNMENT_BYTES, Ledger
from papyros.logs import logger_of
from papyros.story import tell_before

__all__ = ["SEND_JOBS", "Exchange"]

log = logger_of(__name__)

#: So many jobs go into one message, at most; bundles count as one, ...
SEND_JOBS = 500

#: ... but the message ends, too, when there are so many jobs in them.
SEND_BUNDLED = 5000

#: The first jobs go into so many bundles, if there are slaves for them: each one has its cost, however small it is.
FIRST_BUNDLES = 8


class Exchange:
    """Takes jobs out of the ledger of a client, and brings it what has become of them.

    Args:
        ledger: that ledger.
        holder: who has the jobs that were sent.
        numbers: where the numbers of bundles come from.
        seals: the seals of the client's session.
        bundling: which jobs go into a bundle.
        again: called when there are jobs to be sent again.

    Attributes:
        sent: which jobs the master has.
        bundling: as above.
    """

    #: Of bundles that another master had, so many go into one message.
    send_bundles = 50

    def __init__(
        self,
        ledger: Ledger,
        holder: Holder,
        numbers: Iterator[int],
        seals: Seals,
        bundling: Bundling,
        again: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._holder = holder
        self._numbers = numbers
        self._seals = seals
        self.bundling = bundling
        self._again = again
        self.sent = SentJobs()

    # What is sent -----------------------------------------------------------------------

    def next_batch(self, sendable: Callable[[], int], slaves: int) -> list[AddedJob]:
        """Return what goes into the next message; `sendable` says how many jobs may be assigned.

        Where the master has none, some of the `slaves` get a bundle each, and not one of them all that there is.
        """
        unsent = self.sent.take_unsent(self.send_bundles)
        self.sent.leaving = {entry.number for bundle in unsent for entry in bundle.entries}
        self.sent.refused = False
        try:
            return self._filled([_bundled(bundle) for bundle in unsent], sendable, slaves)
        except MemoryError:
            self._take_back()
            raise

    def _filled(self, batch: list[AddedJob], sendable: Callable[[], int], slaves: int) -> list[AddedJob]:
        """Return what goes into the next message, of which this is the beginning."""
        leaving = self.sent.leaving
        full = True
        size = sum(len(job.blob) for job in batch)
        # A program that adds jobs for long lets nobody get a word in for 5 ms: better a long one, of many bundles.
        while full and len(batch) < SEND_JOBS and len(leaving) < SEND_BUNDLED and size < ASSIGNMENT_BYTES:
            first = bool(slaves) and not self._holder.assigned
            entries = self._ledger.assign(self._holder, sendable(), ASSIGNMENT_BYTES - size)
            size += sum(entry.size for entry in entries)
            if batch and size > ASSIGNMENT_BYTES:  # a job that is as large as may be fills a message all by itself
                self._ledger.give_back(self._holder, entries)
                break
            leaving.update(entry.number for entry in entries)
            parted = self.bundling.parted(
                entries, ceil(len(entries) / min(slaves, FIRST_BUNDLES)) if first else MOST_JOBS
            )
            batch += [self._single(jobs[0]) if len(jobs) == 1 else self._bundle(jobs) for jobs in parted]
            full = len(entries) == SEND_JOBS
        return batch

    def _take_back(self) -> None:
        """Let the jobs of a message that was not made wait again, in whatever books they stand by now."""
        self._ledger.mend()
        _, entries = self.sent.take_out(self.sent.leaving_as(self.sent.leaving), ())
        self.send_singly([*entries, *self.sent.take_strays(self._holder.assigned)])

    def _single(self, entry: Entry) -> AddedJob:
        """Return a job that is to be sent by itself."""
        self.sent.add(entry)
        self._seal(entry)
        definition, blob, seal = entry.payload
        terms = entry.terms if entry.deaths is None else entry.terms._replace(deaths=len(entry.deaths))
        return AddedJob(entry.number, definition, blob, terms, seal)

    def _seal(self, entry: Entry) -> None:
        """Seal a job, which from then on travels by itself, whenever it is sent."""
        if len(entry.payload) == 2:
            entry.payload += (self._seals.seal_job(entry.number, *entry.payload),)

    def _bundle(self, entries: Sequence[Entry]) -> AddedJob:
        """Return jobs that are to be sent as one."""
        number = next(self._numbers)
        blob = pack_bundle([entry.payload[1] for entry in entries])
        bundle = Bundle(number, entries, blob, self._seals.seal_bundle(number, entries[0].payload[0], blob))
        self.sent.add_bundle(bundle)
        return _bundled(bundle)

    def send_singly(self, entries: Iterable[Entry], started: str | None = None) -> None:
        """Let jobs wait again that the master had; from now on, each is sent by itself.

        Where they may have been `started`, for a reason that tells why they did not end, those that must not be
        started twice are lost.
        """
        # Of one without a payload, Ctrl-C has kept these books from hearing that it has left the others.
        entries = [entry for entry in entries if entry.payload is not None]
        for entry in entries:
            self._seal(entry)
        self._ledger.give_back(self._holder, entries, started)
        if entries:
            self._again()

    def end_unsent(self, numbers: Sequence[int], outcome: Buffer) -> None:
        """Give jobs an outcome that the master cannot take, by the numbers under which they were to be there."""
        entries: list[Entry] = []
        for number in numbers:
            if (bundle := self.sent.bundles.get(number)) is not None:
                entries += [entry for entry in bundle.entries if self.sent.bundle_of.get(entry.number) is bundle]
            elif (single := self.sent.single.get(number)) is not None:
                entries.append(single)
        self.sent.take_out(numbers, None)
        for entry in entries:
            self._end(entry, outcome, "", 0.0)

    def undo_cancel(self, numbers: Iterable[int], started: str | None) -> None:
        """Send again what the master has cancelled under these numbers; see `send_singly`.

        Who wanted that was told that nothing was cancelled, or was interrupted.
        """
        self.send_singly(self.sent.cancelled_in_vain(numbers), started)

    # What comes -------------------------------------------------------------------------

    def checked(self, done: JobOutcome) -> JobOutcome | None:
        """Return an outcome, if it is what a slave host sealed that was given this job; else one that says so.

        None, if it is of no job that was sent: nobody waits for it, and what cannot be checked now is not to be taken
        for an outcome of one that is sent a moment later. Needs no lock.
        """
        seal = self.sent.seal_of(done.number)
        if seal is None:
            return None
        if self._seals.check_outcome(done.number, ticket_of(seal), done.outcome, done.seal):
            return done
        if is_told(done.outcome):
            return done  # the master says, in words, that the job was lost
        log.warning("the outcome of job %d is not what a slave sent; it is not unpickled", done.number)
        refusal = PayloadError("the outcome was changed on its way, or is another job's: nothing of it was unpickled")
        return done._replace(outcome=encode_refusal(refusal))

    def take(self, done: JobOutcome) -> None:
        """Take an outcome that was checked, or what is told of a bundle."""
        bundle = self.sent.bundles.get(done.number)
        if bundle is not None:
            self._take_told(bundle, done)
        elif (entry := self.sent.single.get(done.number)) is not None:
            outcome = done.outcome
            if not is_told(outcome):
                if entry.payload is not None:
                    self.bundling.learn(entry.payload[0], done.seconds, len(outcome))
            elif entry.deaths:  # of what was before it had the job, the master knows only the number
                outcome = encode_lost(tell_before(told_text(outcome), entry.deaths))
            self._end(entry, outcome, done.slave, done.seconds)
            del self.sent.single[done.number]  # after that: if memory ends in between, the outcome comes again

    def _take_told(self, bundle: Bundle, done: JobOutcome) -> None:
        """Take what is told of a bundle: jobs of it that will not be run as a part of it are sent again."""
        ended, again, charged = self.sent.hear(bundle, done.outcome)
        for entry, outcome, seconds in ended:
            self._end(entry, outcome, done.slave, seconds)
        if many := len(ended):
            seconds = sum(seconds for *_, seconds in ended)
            self.bundling.learn(bundle.definition, seconds / many, len(done.outcome) / many)
        if charged is not None:
            self._ledger.charge(self._holder, charged, story_of(done.outcome))
        self.send_singly(again)

    def _end(self, entry: Entry, outcome: Buffer, slave: str, seconds: float) -> None:
        self._ledger.finish(entry.session, entry.number, (outcome, slave, seconds), seconds, len(outcome))


def _bundled(bundle: Bundle) -> AddedJob:
    """Return a bundle that is to be sent."""
    return AddedJob(bundle.number, bundle.definition, bundle.blob, bundle.terms, bundle.seal)
