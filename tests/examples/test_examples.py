"""The examples run as their users run them: as scripts, from any folder, in a process of their own."""

import colorsys
import hashlib
import importlib
import os
import pty
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import papyros
from papyros.status import Status

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT = 100

#: A name server that is not there: nobody listens at port 1.
NOWHERE = "127.0.0.1:1"


def run(name, *arguments, cwd, code=0, **options):
    options = {"stdin": subprocess.DEVNULL, "timeout": TIMEOUT} | options
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert code or "Traceback" not in done.stderr, done.stderr
    return done


def answer(answers, *arguments, cwd, code=0):
    """Run the demo at a terminal on which the answers, and then the end of the input, have been typed."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, "".join(f"{line}\n" for line in answers).encode() + b"\x04")
        return run("demo.py", *arguments, cwd=cwd, code=code, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def summary(output):
    _, _, table = output.partition("\nSummary\n")
    rows = re.findall(r"^  ([a-z -]+?) +([\d.]+)", table, re.MULTILINE)
    return {name: float(number) for name, number in rows}


# The jobs -------------------------------------------------------------------------------


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


# Digests --------------------------------------------------------------------------------

KINDS = ["serial", "threads", "processes", "local-cluster"]


@pytest.fixture
def folder(tmp_path):
    """A folder with subfolders, an empty file, odd names, and links that lead out, round, and nowhere."""
    top = tmp_path / "top"
    (top / "b" / "deep").mkdir(parents=True)
    (tmp_path / "outside").write_text("not to be seen")
    for number, name in enumerate(["a.txt", "b/deep/ü ß.bin", "b/empty", "b.txt", "c"]):
        (top / name).write_bytes(b"x" * number * 1000)
    (top / "b" / "empty").write_bytes(b"")
    (top / "link").symlink_to(tmp_path / "outside")
    (top / "round").symlink_to(top)
    (top / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(top / "pipe")
    return top


def expected_rows(folder, algorithm="sha256"):
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    files = sorted(str(path) for path in paths if path.is_file() and not path.is_symlink())
    contents = {path: Path(path).read_bytes() for path in files}
    return [
        [hashlib.new(algorithm, content).hexdigest(), str(len(content)), os.path.relpath(path, folder)]
        for path, content in contents.items()
    ]


def rows(output):
    return [line.split(maxsplit=2) for line in output.splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_digests(kind, folder, tmp_path):
    done = run("digests.py", folder, "--master", kind, "--slaves", 2, cwd=tmp_path)
    assert rows(done.stdout) == expected_rows(folder)
    assert len(rows(done.stdout)) == 5
    assert re.fullmatch(r"5 files, 0\.0 MB, [\d.]+ s, [\d.]+ MB/s; 0 unreadable\n", done.stderr)


def test_other_digests_of_a_few_files(folder, tmp_path):
    done = run("digests.py", "top", "--algorithm", "blake2b", "--limit", 3, cwd=tmp_path)
    assert rows(done.stdout) == expected_rows(folder, "blake2b")[:3]


def test_digests_with_a_progress_bar(folder, tmp_path):
    done = run("digests.py", folder, "--progress", cwd=tmp_path)
    assert rows(done.stdout) == expected_rows(folder)
    assert "5/5" in done.stderr


def test_digests_of_the_standard_library(tmp_path):
    done = run("digests.py", "--limit", 20, cwd=tmp_path)
    assert len(rows(done.stdout)) == 20


def test_digests_of_an_empty_folder(tmp_path):
    assert run("digests.py", tmp_path, cwd=tmp_path).stdout == ""


def test_wrong_arguments_of_digests(tmp_path):
    assert "is no folder" in run("digests.py", tmp_path / "nothing", cwd=tmp_path, code=2).stderr
    assert "'shake_128' is none of" in run("digests.py", "--algorithm", "shake_128", cwd=tmp_path, code=2).stderr
    assert "invalid choice" in run("digests.py", "--master", "slow", cwd=tmp_path, code=2).stderr


def test_digests_show_what_is_unreadable(folder, monkeypatch, capsys):
    # Permissions would not keep root out, so a file and a folder vanish between the listing and the reading.
    monkeypatch.syspath_prepend(EXAMPLES)
    digests = importlib.import_module("digests")
    vanished = os.path.join(folder, "b", "vanished")
    forbidden = PermissionError(13, "Permission denied", os.path.join(folder, "b.forbidden"))
    listed = digests.files_under

    def list_files(top, complain):
        complain(forbidden)
        yield from [*listed(top, complain), vanished]

    monkeypatch.setattr(digests, "files_under", list_files)
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    assert digests.main([str(folder), "--master", "serial", "--no-progress"]) == 1
    output, errors = capsys.readouterr()
    table = output.splitlines()
    assert [line.split()[-1] for line in table] == [
        "a.txt",
        "b.forbidden",
        "b.txt",
        "ß.bin",
        "b/empty",
        "b/vanished",
        "c",
    ]
    assert table[1].split() == ["PermissionError:", "Permission", "denied", "-", "b.forbidden"]
    assert table[5].startswith("FileNotFoundError: No such file or directory  ")
    assert "5 files" in errors
    assert "2 unreadable" in errors


def test_digests_stop_when_nobody_reads_on(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, EXAMPLES / "digests.py", "--limit", "20"]
    try:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


# Mandelbrot -----------------------------------------------------------------------------


def tints(picture):
    """The tints that occur: the hues of the bright pixels, in steps of 20 degrees."""
    found = set()
    for _, (red, green, blue) in picture.getcolors(picture.width * picture.height):
        if max(red, green, blue) > 150:
            found.add(round(colorsys.rgb_to_hsv(red, green, blue)[0] * 18))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_mandelbrot(kind, tmp_path):
    size = ["--size", "250x170"] if kind == "serial" else ["--size", "250x170", "--limit", "1000"]
    done = run(
        "mandelbrot.py",
        *size,
        "--tile",
        16,
        "--master",
        kind,
        "--slaves",
        2,
        "--output",
        "m.png",
        cwd=tmp_path,
    )
    slaves = re.findall(r"^ +(\d+) tiles +[\d.]+ s  (\S+)$", done.stdout, re.MULTILINE)
    assert sum(int(tiles) for tiles, _ in slaves) == 16 * 11
    assert re.search(r"^m\.png: 250x170 pixels in [\d.]+ s$", done.stdout, re.MULTILINE)
    assert len(slaves) == (1 if kind == "serial" else 2)
    with Image.open(tmp_path / "m.png") as image:
        assert image.format == "PNG"
        assert image.size == (250, 170 + 18 * len(slaves))
        picture = image.crop((0, 0, 250, 170))
        legend = image.crop((0, 170, *image.size))
        # The point 0 is inside of the set, and the corner is far from it.
        assert image.getpixel((250 * 3 // 4, 85)) == (0, 0, 0)
        assert image.getpixel((0, 0)) != (0, 0, 0)
    assert len(tints(picture)) == len(slaves)
    for number in range(len(slaves)):
        swatch = legend.getpixel((9, 18 * number + 9))
        assert round(colorsys.rgb_to_hsv(*swatch)[0] * 18) in tints(picture)


def test_mandelbrot_is_the_same_in_any_tiles(tmp_path):
    pictures = []
    for tile in (7, 1000):
        arguments = ["--size", "40x30", "--tile", tile, "--limit", 50, "--output", f"{tile}.png"]
        run("mandelbrot.py", "--master", "serial", *arguments, cwd=tmp_path)
        with Image.open(tmp_path / f"{tile}.png") as image:
            pictures.append(image.crop((0, 0, 40, 30)).tobytes())
    assert pictures[0] == pictures[1]


def test_wrong_arguments_of_mandelbrot(tmp_path):
    for wrong in ("big", "1x2x3", "0x10", "10x"):
        assert f"'{wrong}'" in (done := run("mandelbrot.py", "--size", wrong, cwd=tmp_path, code=2)).stderr
        assert "WIDTHxHEIGHT" in done.stderr
    done = run("mandelbrot.py", "--output", tmp_path / "nothing" / "m.png", cwd=tmp_path, code=2)
    assert "there is no folder" in done.stderr


def test_mandelbrot_without_pillow(tmp_path):
    (tmp_path / "PIL.py").write_text("raise ImportError('no Pillow here')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = run("mandelbrot.py", "--master", "serial", cwd=tmp_path, code=2, env=environment)
    assert done.stderr == "mandelbrot.py needs Pillow: pip install papyros[examples]\n"


# All ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo.py", "digests.py", "mandelbrot.py"])
def test_help(name, tmp_path):
    output = run(name, "--help", cwd=tmp_path).stdout
    assert "--master" in output
    assert "--slaves" in output
