"""Jobs that add jobs, which the tests of families share; slave processes import this module by its name."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import papyros
from tests.contract.jobs_for_tests import Square, note_start, starts, wait_and_note
from tests.support import Gate, wait_until


@papyros.job
def tree_sum(depth):
    """SCOOP's tree: each node adds two, and sums up what comes of them."""
    if depth == 0:
        return 1
    master = papyros.current_master()
    for _ in range(2):
        master.addJob(tree_sum(depth - 1))
    return 1 + sum(job.result for job in master.processedJobs())


@papyros.job
def busy_tree(depth, seconds):
    """The same tree, of nodes that take some time each."""
    time.sleep(seconds)
    if depth == 0:
        return 1
    master = papyros.current_master()
    for _ in range(2):
        master.addJob(busy_tree(depth - 1, seconds))
    return 1 + sum(job.result for job in master.processedJobs())


@papyros.job
def run_when_told(gate):
    Gate(gate).pass_through()
    return tree_sum.function(4)


@papyros.job
def descend(depth):
    """Wait for one child, which waits for one child, and so on."""
    if depth == 0:
        return 0
    master = papyros.current_master()
    master.addJob(descend(depth - 1))
    return 1 + master.popProcessedJob().result


@papyros.job
def count_words(text):
    return collections.Counter(text.split())


@papyros.job
def add_up(first, second):
    return first + second


@papyros.job
def map_reduce(texts):
    """Map all, then reduce by pairs, as they come, until one is left."""
    master = papyros.current_master()
    counts = [job.result for job in master.execute(map(count_words, texts))]
    while len(counts) > 1:
        pairs = zip(counts[::2], counts[1::2], strict=False)
        rest = counts[len(counts) // 2 * 2 :]
        counts = [job.result for job in master.execute(add_up(*pair) for pair in pairs)] + rest
    return counts[0]


@papyros.job
def busy_sum(seconds, *numbers):
    time.sleep(seconds)
    return sum(numbers)


@papyros.job
def busy_map_reduce(count, seconds):
    """Map and reduce likewise, with jobs that take some time each."""
    master = papyros.current_master()
    sums = [job.result for job in master.execute(busy_sum(seconds, number) for number in range(count))]
    while len(sums) > 1:
        pairs = [sums[number : number + 2] for number in range(0, len(sums), 2)]
        sums = [job.result for job in master.execute(busy_sum(seconds, *pair) for pair in pairs)]
    return sums[0]


@papyros.job
def run_child(job):
    """Return what a child returned, or raise what it raised."""
    master = papyros.current_master()
    master.addJob(job)
    return master.popProcessedJob().result


@papyros.job
def exceptions_of(*jobs):
    """Return the texts of what children raised."""
    return [str(job.exception) for job in papyros.current_master().execute(jobs, ordered=True)]


@papyros.job
def fail_deep(depth):
    if depth == 0:
        raise LookupError("the leaf falls")
    master = papyros.current_master()
    master.addJob(fail_deep(depth - 1))
    return master.popProcessedJob().result


@papyros.job
def wait_for_child(folder, name, gate):
    """Have a child wait at a gate, and wait for it."""
    note_start(folder, name)
    return run_child.function(wait_and_note(folder, f"child-of-{name}", gate))


@papyros.job
def wait_for_late_child(folder, name, gate):
    """Begin to think of children only when the gate is open."""
    note_start(folder, name)
    Gate(gate).pass_through()
    return run_child.function(wait_and_note(folder, f"child-of-{name}", gate))


@papyros.job(timeout=2.0)
def overstay(folder, name, gate):
    return wait_for_child.function(folder, name, gate)


@papyros.job
def leave_child_behind(folder, gate):
    """End, while one child runs and another one waits."""
    master = papyros.current_master()
    for name in ("first", "second", "third", "fourth"):
        master.addJob(wait_and_note(folder, name, gate))
    Gate(f"{gate}.parent").pass_through()
    return master.numPendingJobs()


@papyros.job
def leave_loop(folder, gate):
    """Leave a loop over children, of which one waits for a child of its own."""
    loop = papyros.current_master().execute([wait_for_child(folder, "parent", gate), Square(3)])
    squared = next(loop).result
    wait_until(lambda: starts(folder, "child-of-parent"), "the child of the child to run")
    loop.close()
    return squared


@papyros.job
def use_all_calls(gate):
    """What a master can do, it can do in a job."""
    noted = []
    with papyros.current_master() as master:
        noted.append(master is papyros.current_master())
        noted.append(master.popProcessedJob())
        for number in range(3):
            master.addJob(Square(number))
        noted.append(master.numPendingJobs())
        noted.append(sorted(job.result for job in master.processedJobs()))
        noted.append([job.result for job in master.execute(map(Square, range(4)), ordered=True)])
        waits = [wait_and_note.function, Square(7)]
        master.addJob(waits[1])
        noted.append(master.popProcessedJob(30).result)
        noted.append(master.numPendingJobs())
        noted.append(bool(str(master.status())))
        master.cancelAllJobs()
        kept = master
    with contextlib.suppress(papyros.MasterClosedError):
        kept.addJob(Square(1))
        noted.append("a closed master takes jobs")
    noted.append(kept.numPendingJobs())
    noted.append("closed" in str(kept.status()))
    again = papyros.current_master()
    again.addJob(Square(5))
    noted.append(again.popProcessedJob().result)
    return noted


@papyros.job
def cancel_children(folder, gate):
    """Cancel a child that runs, where that can be, or one that waits; return what could be."""
    master = papyros.current_master()
    children = [wait_and_note(folder, f"child-{number}", gate) for number in range(6)]
    for child in children:
        master.addJob(child)
    cancelled = master.cancelJob(children[-1])
    pending = master.numPendingJobs()
    Path(gate).touch()
    names = sorted(job.result for job in master.processedJobs())
    return cancelled, pending, names, master.cancelJob(children[0])


@papyros.job
def in_a_thread():
    """In a thread of its own the job has no master, but it can hand it over."""
    master = papyros.current_master()
    noted = []

    def work():
        try:
            papyros.current_master()
        except papyros.NoCurrentMasterError as error:
            noted.append(str(error))
        master.addJob(Square(3))
        noted.append(master.popProcessedJob().result)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return noted


@papyros.job
def note_and_wait(folder, name, gate, children):
    """Add so many children that wait at a gate, and wait for all."""
    master = papyros.current_master()
    for number in range(children):
        master.addJob(wait_and_note(folder, f"{name}-{number}", gate))
    return len(master.processedJobs())


@papyros.job
def note(folder, name):
    note_start(folder, name)
    return name


@papyros.job
def note_children(folder, name, children, gate, held):
    """Have so many children note when they start, of which those with the numbers that are held wait at a gate."""
    jobs = (
        wait_and_note(folder, f"{name}-{number}", gate) if number in held else note(folder, f"{name}-{number}")
        for number in range(children)
    )
    return len(list(papyros.current_master().execute(jobs)))


@papyros.job
def die_with_child(folder, gate):
    """The first time, be killed while a child runs; the second time, wait for the child."""
    note_start(folder, "parent")
    first = len(list(Path(folder).glob("parent.*.start"))) == 1
    if first:
        threading.Thread(target=_die_once_the_child_runs, args=(folder,), daemon=True).start()
    return run_child.function(wait_and_note(folder, "first" if first else "second", gate))


def _die_once_the_child_runs(folder):
    while not list(Path(folder).glob("first.*.start")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


@papyros.job(retries=1, backoff=0.01)
def fail_with_child(folder, gate):
    """The first time, fail while a child runs."""
    note_start(folder, "parent")
    attempt = len(list(Path(folder).glob("parent.*.start")))
    master = papyros.current_master()
    master.addJob(wait_and_note(folder, f"child-{attempt}", gate))
    if attempt == 1:
        while not list(Path(folder).glob("child-1.*.start")):
            master.popProcessedJob(0.02)
        raise ConnectionError("the first time")
    Path(gate).touch()
    return [job.result for job in master.processedJobs()]
