"""Memory: what is taken for something large, and when what was freed goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

import papyros
from papyros import bookkeeping, memory
from papyros.bookkeeping import FLOOD_BOOK_BYTES
from papyros.memory import FLOOD_JOBS, unwritten

#: A flood takes a while: those of tests, and the bound from which they count, are so many times smaller.
SMALLER = 8

ON_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library keeps it")

#: A thread that has taken much memory lets go of it, in a program that lets go of large blocks, too.
THREAD = """
import threading
from papyros.memory import give_memory_back, use_one_heap

def memory():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def work():
    blocks = [bytes(1000) for _ in range(50_000)]
    print(memory() - before)

{first}
bytes(31 << 20)
before = memory()
thread = threading.Thread(target=work)
thread.start()
thread.join()
give_memory_back()
print(memory() - before)
"""


#: Somebody says that 256 MiB will come, of which some do.
ANNOUNCED = """
from papyros.frames import space_for

def memory():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

space_for(1 << 20)
before = memory()
space = space_for(256 << 20)
space[:1000] = bytes(1000)
print(memory() - before)
"""


@papyros.job
def nothing(number):
    return number


@ON_GLIBC
def test_what_a_thread_has_freed_goes_back_where_all_use_one_heap():
    script = THREAD.format(first="use_one_heap()")
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    at_most, at_last = map(int, told.split())
    assert at_most > 40_000_000
    assert at_last < 4_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_is_taken_as_bytes_come_and_not_as_somebody_says_that_they_will():
    told = subprocess.run([sys.executable, "-c", ANNOUNCED], capture_output=True, text=True, check=True).stdout
    assert int(told) < 16 << 20


@pytest.mark.parametrize("size", [0, 1, 5 << 20])
def test_memory_to_be_written_to(size):
    space = unwritten(size)
    assert isinstance(space, bytearray)
    assert len(space) == size
    space[:] = bytes(range(1, 6)) * (size // 5) + bytes(size % 5)
    assert space.count(0) == size % 5


def test_a_python_without_pythonapi_fills_it_with_zeros(monkeypatch):
    monkeypatch.delattr("ctypes.pythonapi")
    assert memory._find_resize() is None
    monkeypatch.setattr(memory, "_resize", None)
    assert unwritten(3) == bytes(3)


@pytest.mark.parametrize("error", [TypeError, OSError])
def test_where_the_c_library_cannot_be_looked_at_memory_stays_where_it_is(monkeypatch, error):
    """On Windows, to ask for what the process has loaded is a TypeError."""

    def refuse(name):
        raise error

    monkeypatch.setattr(memory.ctypes, "CDLL", refuse)
    memory.give_memory_back()
    memory.use_one_heap()


@pytest.mark.parametrize(
    ("size", "error"), [(-1, OverflowError), (1 << 62, MemoryError), (1 << 63, OverflowError), (1 << 64, OverflowError)]
)
def test_memory_that_cannot_be_had_is_an_error_as_with_any_bytearray(size, error):
    with pytest.raises(error):
        unwritten(size)


@pytest.fixture
def given_back(monkeypatch):
    """How often memory was given back."""
    times = []
    monkeypatch.setattr(bookkeeping, "give_memory_back", lambda: times.append(1))
    monkeypatch.setattr(bookkeeping, "FLOOD_BOOK_BYTES", FLOOD_BOOK_BYTES // SMALLER)
    return times


@pytest.mark.parametrize("end", ["popped", "cancelled", "closed"])
def test_a_flood_of_jobs_that_has_run_off_leaves_its_memory_to_others(given_back, end):
    master = papyros.SingleThreadedMaster()
    for number in range(FLOOD_JOBS // SMALLER):
        master.addJob(nothing(number))
    assert not given_back
    if end == "popped":
        assert sum(1 for _ in iter(master.popProcessedJob, None)) == FLOOD_JOBS // SMALLER
    elif end == "cancelled":
        master.cancelAllJobs()
    else:
        master._leftovers.renounce()
        master.close()
    assert given_back == [1]
    assert sys.getsizeof(master._jobs) < 1000
    master.close()


def test_fewer_jobs_are_not_worth_the_while(given_back):
    with papyros.SingleThreadedMaster() as master:
        for number in range(1000):
            master.addJob(nothing(number))
        assert sum(1 for _ in iter(master.popProcessedJob, None)) == 1000
    assert not given_back


def test_a_table_of_a_flood_is_as_large_as_is_said():
    assert sys.getsizeof(dict.fromkeys(range(FLOOD_JOBS))) >= FLOOD_BOOK_BYTES
    assert sys.getsizeof(dict.fromkeys(range(FLOOD_JOBS // 2))) < FLOOD_BOOK_BYTES
