"""The demo: choose a type of jobs and a master, and watch the jobs being processed.

It asks for everything that the command line does not say. With --yes, or when
there is no terminal to ask at, defaults are taken.

    python examples/demo.py
    python examples/demo.py --yes --job SlowSqrt --master multithreaded --slaves 8
    python examples/demo.py --yes --local-cluster --slaves 2
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import choose
from jobs import PrimeFactors, SlowSqrt
from questions import Questions, one_of, yes_or_no

import papyros
from papyros.cpus import usable_cpus

JOBS = {
    "PrimeFactors": "keeps a CPU busy: the prime factors of a large number",
    "SlowSqrt": "only waits: a square root after a nap; some numbers have none",
}
MASTERS = {
    "singlethreaded": choose.KINDS["serial"],
    "multithreaded": choose.KINDS["threads"],
    "multiprocess": choose.KINDS["processes"],
    "distributed": "slaves are processes of any number of machines",
}
KINDS = {"singlethreaded": "serial", "multithreaded": "threads", "multiprocess": "processes"}

#: After how many seconds without a processed job the user is told that it is still waiting.
PATIENCE = 10.0

number_of_jobs = choose.whole_number(1, 1_000_000)
number_of_slaves = choose.whole_number(1, 1_000)


# What to do. ----------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="What is not given here is asked for, unless there is --yes or no terminal to ask at.",
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing: take defaults for all that is not given")
    parser.add_argument("--job", type=one_of(JOBS), metavar="|".join(JOBS), help="the type of the jobs")
    parser.add_argument("--jobs", type=number_of_jobs, metavar="N", help="the number of jobs")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("--verbose", action="store_true", default=None, help="show each job")
    loud.add_argument("--quiet", action="store_false", dest="verbose", help="show the summary only")
    parser.add_argument("--master", type=kind_of_master, metavar="|".join(MASTERS))
    parser.add_argument("--slaves", type=number_of_slaves, metavar="N", help="the number of slaves")
    parser.add_argument("--group", type=choose.name, help="distributed: the name of the group")
    parser.add_argument("--nameserver", type=choose.host_and_port, metavar="HOST:PORT", help="distributed: where it is")
    parser.add_argument("--local-cluster", action="store_true", help="distributed, on a cluster started for this demo")
    parser.add_argument(
        "--coin",
        choices=["heads", "tails"],
        help="how the coin falls that is tossed after half of the jobs: heads cancels those that wait",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="for the same random numbers again")
    options = parser.parse_args(arguments)
    if options.local_cluster:
        if options.master not in (None, "distributed"):
            parser.error(f"--local-cluster does not go with --master {options.master}")
        options.master = "distributed"
    return options


def kind_of_master(text: str) -> str:
    """Read the kind of master, by its name here or by the word that `papyros.open_master` has for it."""
    names = {word: kind for kind, word in KINDS.items()}
    return one_of(MASTERS)(names.get(text.lower(), text))


def complete(options: argparse.Namespace, questions: Questions) -> None:
    """Ask for what the command line does not say."""
    if options.job is None:
        options.job = questions.choose("Which type of jobs?", "PrimeFactors", JOBS)
    if options.jobs is None:
        options.jobs = questions.ask("How many jobs?", "40", number_of_jobs)
    if options.verbose is None:
        options.verbose = questions.ask("Show each job?", "yes", yes_or_no)
    if options.master is None:
        options.master = questions.choose("Which kind of master?", "multiprocess", MASTERS)
    options.kind = "local-cluster" if options.local_cluster else KINDS.get(options.master, options.master)
    if options.kind == "distributed":
        complete_distributed(options, questions)
    elif options.kind != "serial":
        ask_for_slaves(options, questions)
    if options.seed is None:
        options.seed = random.randrange(10_000)


def complete_distributed(options: argparse.Namespace, questions: Questions) -> None:
    if options.group is None:
        from papyros.distributed import DEFAULT_GROUP

        options.group = questions.ask("Which group?", DEFAULT_GROUP, choose.name)
    if options.nameserver is None:
        options.nameserver = questions.ask("Where is the name server?", choose.DEFAULT_NAMESERVER, choose.host_and_port)


def ask_for_slaves(options: argparse.Namespace, questions: Questions) -> None:
    if options.slaves is None:
        options.slaves = questions.ask("How many slaves?", str(usable_cpus()), number_of_slaves)


def make_jobs(options: argparse.Namespace, chance: random.Random) -> list[papyros.Job]:
    if options.job == "PrimeFactors":
        return [PrimeFactors(chance.randrange(10**13, 10**14)) for _ in range(options.jobs)]
    # Every fifth number is negative, so that there are exceptions to be seen.
    return [SlowSqrt(chance.randrange(1, 1000) * (-1 if n % 5 == 4 else 1)) for n in range(options.jobs)]


# The master. ----------------------------------------------------------------------------


@contextmanager
def open_master(options: argparse.Namespace, questions: Questions) -> Iterator[papyros.Master]:
    """Open the chosen master; where no cluster is running, offer to start one."""
    with ExitStack() as stack:
        where = {"group": options.group, "nameserver": options.nameserver}
        if options.kind != "distributed":
            opened = choose.open_master(options.kind, options.slaves)
            yield stack.enter_context(opened)
            return
        try:
            opened = choose.open_master("distributed", host_master=False, **where)
            master = stack.enter_context(opened)
        except (papyros.NameServerNotFoundError, papyros.MasterNotFoundError) as missing:
            say(f"There is no running cluster: {missing}")
            if questions.ask("Start one on this machine for this demo?", "yes", yes_or_no):
                ask_for_slaves(options, questions)
                say(f"Starting a cluster with {count(options.slaves, 'slave')} on this machine.")
                options.kind = "local-cluster"
                opened = choose.open_master(options.kind, options.slaves)
            elif isinstance(missing, papyros.MasterNotFoundError):
                say(f"This demo hosts the master, then.{advice(options)}")
                opened = choose.open_master("distributed", **where)
            else:
                raise
            master = stack.enter_context(opened)
        yield master


def advice(options: argparse.Namespace) -> str:
    """What to say to somebody who waits for jobs in vain."""
    if options.kind != "distributed":
        return ""
    command = f"PYTHONPATH=examples python -m papyros.distributed --slaves=N --group={options.group}"
    return f" To start slaves: {command}"


# The work. ------------------------------------------------------------------------------


@dataclass
class Summary:
    """What became of the jobs."""

    jobs: int
    processed: int = 0
    failed: int = 0
    cancelled: int = 0
    wall_seconds: float = 0.0
    job_seconds: float = 0.0
    slaves: set[str] = field(default_factory=set)

    def note(self, job: papyros.Job) -> None:
        self.processed += 1
        self.failed += job.exception is not None
        self.job_seconds += job.seconds
        if job.slave:  # a job that lost its slaves has none
            self.slaves.add(job.slave)

    def show(self) -> None:
        speed_up = self.job_seconds / self.wall_seconds
        print(
            "\nSummary\n"
            f"  jobs         {self.jobs:>9}\n"
            f"  processed    {self.processed:>9}     by {count(len(self.slaves), 'slave')}\n"
            f"  failed       {self.failed:>9}     of the processed ones\n"
            f"  cancelled    {self.cancelled:>9}\n"
            f"  wall time    {self.wall_seconds:>9.3f} s\n"
            f"  job seconds  {self.job_seconds:>9.3f} s   in total\n"
            f"  speed-up     {speed_up:>9.2f}     job seconds by wall time"
        )


def work(master: papyros.Master, jobs: list[papyros.Job], heads: bool, verbose: bool, hint: str) -> Summary:
    """Add all jobs, pop them as they get processed, and after half of them toss a coin."""
    summary = Summary(len(jobs))
    waiting = dict.fromkeys(jobs)
    started = time.perf_counter()
    for job in jobs:
        master.addJob(job)
    if len(jobs) // 2 == 0:
        toss(master, heads, summary)
    for job in processed_jobs(master, hint):
        del waiting[job]
        summary.note(job)
        if verbose:
            show(job, summary.failed == 1)
        if summary.processed == len(jobs) // 2:
            toss(master, heads, summary)
    summary.wall_seconds = time.perf_counter() - started
    if verbose and waiting:
        say("Never run: " + enumeration(list(waiting)))
    return summary


def processed_jobs(master: papyros.Master, hint: str) -> Iterator[papyros.Job]:
    """Yield jobs until none is pending; tell the user when that takes its time."""
    while True:
        job = master.popProcessedJob(timeout=PATIENCE)
        if job is not None:
            yield job
        elif pending := master.numPendingJobs():
            say(f"No job was processed for {PATIENCE:.0f} s; {count(pending, 'job')} pending.{hint}")
            say(what_goes_on(master))
        else:
            return


def what_goes_on(master: papyros.Master) -> str:
    """What the master and its slaves do, and why nothing happens if nothing does."""
    try:
        return str(master.status())
    except ConnectionError as error:
        return f"The master does not answer: {error}"


def toss(master: papyros.Master, heads: bool, summary: Summary) -> None:
    """Cancel the waiting jobs, if it is heads."""
    if not heads:
        say("The coin shows tails: nothing is cancelled.")
        return
    pending = master.numPendingJobs()
    master.cancelAllJobs()
    left = master.numPendingJobs()
    summary.cancelled += pending - left
    say(
        f"The coin shows heads: cancelAllJobs() discarded {count(pending - left, 'job')} that no slave had; "
        f"{left} {'is' if left == 1 else 'are'} still to come."
    )


def show(job: papyros.Job, first_failure: bool) -> None:
    error = job.exception
    if error is None:
        print(f"{job!r}: {job.result}  {job.seconds:.3f} s on {job.slave}", flush=True)
        return
    print(f"{job!r}: {type(error).__name__}: {error}  {job.seconds:.3f} s on {job.slave}", flush=True)
    if first_failure:
        for line in getattr(error, "traceback", "").splitlines():
            print(f"    {line}")


# Words. ---------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def enumeration(jobs: list[papyros.Job], most: int = 3) -> str:
    named = ", ".join(map(repr, jobs[:most]))
    return named if len(jobs) <= most else f"{named} and {len(jobs) - most} more"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    questions = Questions(attended=sys.stdin.isatty() and not options.yes)
    complete(options, questions)
    chance = random.Random(options.seed)
    jobs = make_jobs(options, chance)
    heads = (options.coin or chance.choice(["heads", "tails"])) == "heads"
    with open_master(options, questions) as master:
        say(
            f"{count(options.jobs, options.job + ' job')} on a {type(master).__name__}; "
            f"--seed {options.seed} repeats this run."
        )
        summary = work(master, jobs, heads, options.verbose, advice(options))
    summary.show()
    if options.kind == "threads" and options.job == "PrimeFactors":
        print(
            "\nThreads take turns at computing in Python, and the seconds of a job include those in which\n"
            "it waited for its turn. Compare the wall time with that of a multiprocess master."
        )
    return 0


if __name__ == "__main__":
    choose.run(main)
