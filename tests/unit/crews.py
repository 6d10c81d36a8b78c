"""A crew with a source that the test holds in its hands."""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque
from contextlib import contextmanager

from papyros.crew import Crew
from papyros.encoded import decode_outcome
from papyros.keeping import terms_of
from papyros.tasks import CrewOptions, Task
from papyros.wire import MAX_PAYLOAD_BYTES, Packer
from tests.support import PATIENCE


class FakeSource:
    """Hands out the tasks that it is given, takes back what is returned, and notes all that it hears."""

    def __init__(self):
        self.lock = threading.Condition()
        self.packer = Packer()
        self.jobs = {}
        self.tasks = {}  # as they were taken
        self.waiting = deque()
        self.outcomes = {}
        self.slaves = {}
        self.finishes = Counter()
        self.late = []
        self.deaths = []
        self.given_back = []
        self.prints = []
        self.reasons = []
        self.messages = []
        self.places = []
        self.defined = Counter()
        self.crew = None
        self.closed = False

    def add(self, tag, job):
        payload = self.packer.pack(job)
        with self.lock:
            self.jobs[tag] = job
            self.waiting.append(Task(tag, payload.definition, payload.blob, terms_of(job)))
        if self.crew is not None:
            self.crew.poke()

    def wait_for(self, condition, what):
        with self.lock:
            assert self.lock.wait_for(condition, PATIENCE), what

    def wait_for_outcomes(self, number):
        self.wait_for(lambda: len(self.outcomes) >= number, f"{number} outcomes, not {len(self.outcomes)}")

    # What a crew calls --------------------------------------------------------------------

    def take(self, limit):
        with self.lock:
            taken = [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]
            self.tasks.update((task.tag, task) for task in taken)
            return taken

    def definition(self, digest):
        self.defined[digest] += 1
        return self.packer.definitions[digest]

    def held(self, digest):
        return None  # none of these jobs needs a shared value

    def finished(self, tags, outcomes, seconds, slave):
        with self.lock:
            for tag, outcome, spent in zip(tags, outcomes, seconds, strict=True):
                self.finishes[tag] += 1
                self.slaves[tag] = slave
                self.outcomes[tag] = decode_outcome(bytes(outcome), self.jobs[tag], slave, spent)
            self.lock.notify_all()

    def announce(self):
        """It tells at once."""

    def overdue(self, tag, slave, timeout):
        with self.lock:
            self.late.append((tag, slave, timeout))
            self.lock.notify_all()

    def died(self, tag, death):
        with self.lock:
            self.deaths.append((tag, death))
            self.lock.notify_all()

    def returned(self, tags, reason):
        with self.lock:
            self.given_back += [(tag, reason) for tag in tags]
            if not self.closed:
                self.waiting.extend(self.tasks[tag] for tag in tags)
            self.lock.notify_all()
        if tags and self.crew is not None:
            self.crew.poke()

    def printed(self, tag, slave, text):
        with self.lock:
            self.prints.append((tag, slave, text))
            self.lock.notify_all()

    def heard(self, tag, message):
        with self.lock:
            self.messages.append((tag, bytes(message)))
            self.lock.notify_all()

    def held_up(self):
        """It keeps nothing ready."""

    def lent(self, places):
        with self.lock:
            self.places.append(places)
            self.lock.notify_all()

    def broken(self, reason):
        with self.lock:
            self.reasons.append(reason)
            self.lock.notify_all()


@contextmanager
def crew_of(source, slaves=2, path=None):
    crew = source.crew = Crew(slaves, source, CrewOptions(MAX_PAYLOAD_BYTES, sys.path if path is None else path))
    crew.start()
    try:
        yield crew
    finally:
        source.closed = True
        crew.close()
