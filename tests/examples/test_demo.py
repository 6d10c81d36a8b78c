"""The demo, and the jobs that it adds."""

from __future__ import annotations

import importlib
import re
import runpy
import signal
import subprocess
import sys

import pytest

import papyros
from papyros.status import Status
from tests.examples.running import EXAMPLES, NOWHERE, TIMEOUT, answer, run, summary


@pytest.fixture(scope="module")
def jobs():
    return runpy.run_path(str(EXAMPLES / "jobs.py"))


@pytest.mark.parametrize(
    ("number", "primes"),
    [
        (1, []),
        (2, [2]),
        (12, [2, 2, 3]),
        (49, [7, 7]),
        (97, [97]),
        (1234567, [127, 9721]),
        (2**31 - 1, [2**31 - 1]),
    ],
)
def test_prime_factors(jobs, number, primes):
    assert jobs["PrimeFactors"]()(number) == primes


@pytest.mark.parametrize("number", [0, -6])
def test_what_has_no_prime_factors(jobs, number):
    with pytest.raises(ValueError, match=f"and {number} is not"):
        jobs["PrimeFactors"]()(number)


def test_slow_sqrt(jobs):
    assert jobs["SlowSqrt"]()(16) == 4
    with pytest.raises(ValueError, match="no real square root"):
        jobs["SlowSqrt"]()(-16)


# The demo -------------------------------------------------------------------------------

MASTERS = {
    "singlethreaded": ("SingleThreadedMaster", ["--master", "singlethreaded"]),
    "multithreaded": ("MultiThreadedMaster", ["--master", "multithreaded", "--slaves", "2"]),
    "multiprocess": ("MultiProcessMaster", ["--master", "multiprocess", "--slaves", "2"]),
    "local-cluster": ("DistributedMaster", ["--local-cluster", "--slaves", "2"]),
}


@pytest.mark.parametrize("master", MASTERS)
@pytest.mark.parametrize("coin", ["heads", "tails"])
def test_demo_adds_up(master, coin, tmp_path):
    named, arguments = MASTERS[master]
    jobs = 10
    output = run(
        "demo.py", "--yes", "--job", "PrimeFactors", "--jobs", jobs, "--coin", coin, *arguments, cwd=tmp_path
    ).stdout
    assert f"{jobs} PrimeFactors jobs on a {named}" in output
    numbers = summary(output)
    assert numbers["jobs"] == jobs
    assert numbers["processed"] + numbers["cancelled"] == jobs
    assert numbers["processed"] >= jobs // 2
    assert numbers["failed"] == 0
    assert numbers["wall time"] > 0
    assert numbers["speed-up"] == pytest.approx(numbers["job seconds"] / numbers["wall time"], abs=0.2)
    if coin == "tails":
        assert numbers["cancelled"] == 0
    elif master == "singlethreaded":
        assert numbers["cancelled"] == jobs // 2
    shown = re.findall(r"^PrimeFactors\((\d+)\): \[([\d, ]+)\]  [\d.]+ s on (\S+)$", output, re.MULTILINE)
    assert len(shown) == numbers["processed"]
    for number, factors, _ in shown:
        product = 1
        for factor in factors.split(", "):
            product *= int(factor)
        assert product == int(number)
    slaves = {slave for _, _, slave in shown}
    assert len(slaves) <= 2
    if master in ("multiprocess", "local-cluster"):
        assert all(re.fullmatch(r".+/\d+", slave) for slave in slaves)


@pytest.mark.parametrize("master", MASTERS)
def test_demo_shows_failures(master, tmp_path):
    output = run(
        "demo.py",
        "--yes",
        "--job",
        "SlowSqrt",
        "--jobs",
        5,
        "--coin",
        "tails",
        *MASTERS[master][1],
        cwd=tmp_path,
    ).stdout
    assert summary(output)["failed"] == 1
    assert re.search(r"^SlowSqrt\(-\d+\): ValueError: -\d+ has no real square root", output, re.MULTILINE)
    assert "    Traceback (most recent call last):" in output
    assert "jobs.py" in output


def test_demo_cancels_straight_after_adding_a_single_job(tmp_path):
    output = run("demo.py", "--yes", "--jobs", 1, "--coin", "heads", "--master", "singlethreaded", cwd=tmp_path).stdout
    assert "discarded 1 job that no slave had; 0 are still to come" in output
    assert summary(output)["cancelled"] == 1
    assert summary(output)["speed-up"] == 0


def test_demo_says_why_nothing_happens(monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    demo = importlib.import_module("demo")

    class Stalled:
        pending = 12

        def popProcessedJob(self, timeout):
            self.pending -= 6

        def numPendingJobs(self):
            return self.pending

        def status(self):
            if self.pending < 12:
                raise ConnectionError("no connection")
            return Status("the master of a test", waiting=self.pending)

    master = Stalled()
    assert "stalled: 12 jobs wait, no slave is connected" in demo.what_goes_on(master)
    assert list(demo.processed_jobs(master, " To start slaves: ...")) == []
    told = capsys.readouterr().out
    assert "No job was processed for 10 s; 6 jobs pending. To start slaves: ..." in told
    assert "The master does not answer: no connection" in told


def test_demo_counts_a_job_that_lost_its_slaves(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    demo = importlib.import_module("demo")

    class Lost(papyros.Job):
        exception = papyros.SlaveLost("the story")
        slave = ""
        seconds = 0.0

    summary = demo.Summary(1)
    summary.note(Lost())
    assert (summary.processed, summary.failed, summary.slaves) == (1, 1, set())


def test_demo_repeats_with_a_seed(tmp_path):
    first, second = (
        run("demo.py", "--yes", "--jobs", 6, "--seed", 7, "--master", "singlethreaded", cwd=tmp_path).stdout
        for _ in range(2)
    )
    timeless = re.compile(r"  [\d.]+ s on .*")
    assert timeless.sub("", first).partition("Summary")[0] == timeless.sub("", second).partition("Summary")[0]


def test_quiet_demo(tmp_path):
    output = run("demo.py", "--quiet", "--jobs", 4, "--master", "multithreaded", cwd=tmp_path).stdout
    assert "PrimeFactors(" not in output
    assert "Threads take turns" in output
    assert summary(output)["jobs"] == 4


def test_demo_starts_a_cluster_where_none_is_running(tmp_path):
    done = run(
        "demo.py",
        "--jobs",
        4,
        "--master",
        "distributed",
        "--slaves",
        1,
        "--nameserver",
        NOWHERE,
        cwd=tmp_path,
    )
    assert "There is no running cluster: " in done.stdout
    assert "Starting a cluster with 1 slave on this machine" in done.stdout
    assert summary(done.stdout)["jobs"] == 4


def test_demo_without_a_cluster(tmp_path):
    done = answer(["distributed", "", NOWHERE, "no"], "--jobs", 4, "--job", "p", "--quiet", cwd=tmp_path, code=2)
    assert "Start one on this machine" in done.stderr
    assert "Traceback" not in done.stderr
    assert "demo.py: " in done.stderr.splitlines()[-1]


def test_demo_asks(tmp_path):
    done = answer(["2", "5", "", "multit", "2"], "--coin", "tails", cwd=tmp_path)
    assert "Which type of jobs?" in done.stderr
    assert "How many jobs? [40]" in done.stderr
    assert "Show each job? [yes]" in done.stderr
    assert "Which kind of master?" in done.stderr
    assert "How many slaves? [" in done.stderr
    assert "Sorry" not in done.stderr
    assert "5 SlowSqrt jobs on a MultiThreadedMaster" in done.stdout
    assert summary(done.stdout)["processed"] == 5


def test_demo_asks_again(tmp_path):
    answers = ["3", "primes", "prime", "many", "0", "3", "perhaps", "n", "multi", "", "singlethreaded"]
    done = answer(answers, "--slaves", 1, "--seed", 1, cwd=tmp_path, code=0)
    for complaint in (
        "'3' is none of PrimeFactors, SlowSqrt",
        "'primes' is none of PrimeFactors, SlowSqrt",
        "'many' is not a whole number from 1 to 1000000",
        "'0' is not a whole number from 1 to 1000000",
        "'perhaps' is neither yes nor no",
        "'multi' could be multithreaded or multiprocess",
    ):
        assert f"Sorry: {complaint}." in done.stderr
    assert "3 PrimeFactors jobs on a MultiProcessMaster" in done.stdout


def test_demo_asks_for_the_cluster(tmp_path):
    answers = ["4", "two words", "my-group", "nowhere", "localhost:0", NOWHERE, "", "none", "1"]
    done = answer(answers, "--quiet", "--job", "SlowSqrt", "--jobs", 2, cwd=tmp_path)
    for complaint in (
        "'two words' is no name",
        "'nowhere' is not of the form",
        "'localhost:0' is not",
        "'none' is not",
    ):
        assert f"Sorry: {complaint}" in done.stderr
    assert "2 SlowSqrt jobs on a DistributedMaster" in done.stdout
    assert summary(done.stdout)["jobs"] == 2


def test_demo_at_the_end_of_the_input(tmp_path):
    done = answer(["1"], cwd=tmp_path, code=2)
    assert "demo.py: the input ended before all questions were answered" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("word", "named"), [("serial", "SingleThreaded"), ("threads", "MultiThreaded")])
def test_demo_knows_the_words_of_open_master(word, named, tmp_path):
    output = run("demo.py", "--yes", "--jobs", 2, "--slaves", 2, "--master", word, cwd=tmp_path).stdout
    assert f"2 PrimeFactors jobs on a {named}Master" in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--jobs", "0"], "'0' is not a whole number from 1 to 1000000"),
        (["--job", "Dishes"], "'Dishes' is none of PrimeFactors, SlowSqrt"),
        (["--master", "multi"], "'multi' could be multithreaded or multiprocess"),
        (["--nameserver", "here"], "'here' is not of the form HOST:PORT"),
        (
            ["--local-cluster", "--master", "multithreaded"],
            "--local-cluster does not go with --master multithreaded",
        ),
        (["--quiet", "--verbose"], "not allowed with"),
    ],
)
def test_wrong_arguments_of_the_demo(arguments, complaint, tmp_path):
    done = run("demo.py", "--yes", *arguments, cwd=tmp_path, code=2)
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def sigint():
    """Let children have a Ctrl-C even where we were started as a background job, which has none."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("master", MASTERS)
@pytest.mark.usefixtures("sigint")
def test_demo_is_interrupted(master, tmp_path):
    command = [
        sys.executable,
        EXAMPLES / "demo.py",
        "--yes",
        "--job",
        "SlowSqrt",
        "--jobs",
        "1000",
        "--coin",
        "tails",
    ]
    command += MASTERS[master][1]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as demo:
        try:
            assert "1000 SlowSqrt jobs" in demo.stdout.readline()
            assert demo.stdout.readline().startswith("SlowSqrt(")
            demo.send_signal(signal.SIGINT)
            _, errors = demo.communicate(timeout=TIMEOUT)
        finally:
            demo.kill()
    assert demo.returncode == 130, errors
    assert errors.strip() == "demo.py: interrupted"
