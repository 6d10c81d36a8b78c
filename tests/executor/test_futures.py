"""Programs of `concurrent.futures`, which run unchanged but for an import line.

Most are after those of the module's manual. Each runs twice, as it is and with that line changed, and prints the same.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool

import numpy as np
import pytest

import papyros
from papyros import futures
from tests.executor.functions import add, fail, pass_gate
from tests.support import PATIENCE, Gate, wait_until

POOLS = {"threads": futures.ThreadPoolExecutor, "processes": futures.ProcessPoolExecutor}

PROGRAMS = {
    "primes": """
        from concurrent.futures import ProcessPoolExecutor
        import math

        PRIMES = [112272535095293, 112582705942171, 115280095190773, 115797848077099, 109972689928541]

        def is_prime(n):
            if n < 2:
                return False
            if n % 2 == 0:
                return n == 2
            return all(n % i for i in range(3, math.isqrt(n // 10_000) + 1, 2))

        def main():
            with ProcessPoolExecutor() as executor:
                for number, prime in zip(PRIMES, executor.map(is_prime, PRIMES)):
                    print("%d is prime: %s" % (number, prime))

        if __name__ == "__main__":
            main()
    """,
    "urls": """
        import concurrent.futures as futures
        import pathlib, urllib.request

        URLS = [pathlib.Path(__file__).as_uri(), pathlib.Path(__file__).with_name("missing").as_uri()]

        def load_url(url, timeout):
            with urllib.request.urlopen(url, timeout=timeout) as conn:
                return conn.read()

        with futures.ThreadPoolExecutor(max_workers=5) as executor:
            future_to_url = {executor.submit(load_url, url, 60): url for url in URLS}
            found = []
            for future in futures.as_completed(future_to_url):
                url = future_to_url[future]
                try:
                    data = future.result()
                except Exception as exc:
                    found.append("%r generated an exception: %s" % (url[-7:], type(exc).__name__))
                else:
                    found.append("%r page has bytes: %s" % (url[-7:-3], len(data) > 500))
        print(sorted(found))
    """,
    "copies": """
        from concurrent.futures import ThreadPoolExecutor, wait
        import pathlib, shutil, tempfile

        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=4) as e:
            copies = [e.submit(shutil.copy, __file__, f"{folder}/dest{number}.txt") for number in range(1, 5)]
            done, not_done = wait(copies)
            print(sorted(path.name for path in pathlib.Path(folder).iterdir()), len(done), len(not_done))
    """,
    "initializer": """
        from concurrent.futures import ProcessPoolExecutor
        import functools

        factor, log = None, []

        def prepare(number):
            global factor
            factor = number
            log.append("prepared")

        def scale(value):
            return value * factor

        def tell():
            return log

        class Shift:
            def by(self, value):
                return value + factor

        if __name__ == "__main__":
            with ProcessPoolExecutor(2, initializer=prepare, initargs=(3,)) as executor:
                print(list(executor.map(scale, range(20), chunksize=5)))
                print(executor.submit(tell).result(), executor.submit(functools.partial(scale, 4)).result())
                print(executor.submit(Shift().by, 4).result())
    """,
    "prepared": """
        from concurrent.futures import ProcessPoolExecutor
        import functools

        factor = None

        def prepare(number):
            global factor
            factor = number

        @functools.cache
        def cached(value):
            return value * factor

        def noted(function):
            @functools.wraps(function)
            def call(*args):
                return function(*args)
            return call

        @noted
        def wrapped(value):
            return value * factor

        @functools.cache
        def prepare_once(number):
            prepare(number)

        class Scale:
            def __call__(self, value):
                return value * factor

        class Half(Scale):
            def by(self, value):
                return value * self.part

            @property
            def part(self):
                return factor / 2

            @staticmethod
            def plain(value):
                return value * factor

        class Kept:
            def __init__(self, value):
                self.value = value * factor

        class Made:
            def __new__(cls, value=None):
                made = super().__new__(cls)
                if value is not None:  # otherwise it is unpickled
                    made.value = value * factor
                return made

        def apply(function, *args, **kwds):
            return function(*args, **{name: value(0) for name, value in kwds.items()})

        def use(half):
            return half.part

        if __name__ == "__main__":
            shared = Half()
            calls = [
                (cached, 1), (functools.partial(cached, 2),), (functools.partial(Scale(), 3),), (Scale(), 4),
                (Half(), 5), (Half().by, 6), (Half.plain, 7), (wrapped, 8), (apply, cached, 9), (apply, Scale(), 10),
                (functools.partial(apply, Half().by), 11), (use, Half()), (shared, 12), (shared.by, 13),
            ]
            with ProcessPoolExecutor(2, initializer=prepare, initargs=(3,)) as executor:
                print([executor.submit(*call).result() for call in calls])
                print([executor.submit(kind, 4).result().value for kind in (Kept, Made)])
            with ProcessPoolExecutor(1, initializer=functools.partial(prepare, 5)) as executor:
                print([executor.submit(*call).result() for call in reversed(calls)])
            with ProcessPoolExecutor(1, initializer=prepare_once, initargs=(7,)) as executor:
                print([executor.submit(*call).result() for call in calls])
    """,
    "broken": """
        from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
        from concurrent.futures.process import BrokenProcessPool
        from concurrent.futures.thread import BrokenThreadPool

        def fail():
            raise ValueError("no luck")

        if __name__ == "__main__":
            import logging
            logging.disable()  # of what threads say of it
            for pool, broken in ((ThreadPoolExecutor, BrokenThreadPool), (ProcessPoolExecutor, BrokenProcessPool)):
                with pool(1, initializer=fail) as executor:
                    first = executor.submit(pow, 2, 3)
                    print(isinstance(first.exception(), broken))
                    try:
                        executor.submit(pow, 2, 3)
                    except BrokenExecutor as error:
                        print("broken", isinstance(error, broken), isinstance(error, RuntimeError))
    """,
    "life": """
        import concurrent.futures as futures
        import threading

        gate = threading.Event()
        executor = futures.ThreadPoolExecutor(1, thread_name_prefix="mine")
        running = executor.submit(gate.wait, 60)
        while not running.running():
            pass
        print(str(running).partition("state=")[2])
        waiting = [executor.submit(pow, 2, number) for number in range(5)]
        print(str(waiting[0]).partition("state=")[2], running.cancel(), waiting[0].cancel())
        for future in waiting[1:]:
            future.add_done_callback(lambda future: print("called", future.cancelled()))
        executor.shutdown(wait=False, cancel_futures=True)
        gate.set()
        print(running.result(), [future.cancelled() for future in waiting])
        try:
            executor.submit(pow, 2, 3)
        except RuntimeError as error:
            print(error)
    """,
    "asyncio": """
        import asyncio, threading, time
        from concurrent.futures import ThreadPoolExecutor

        def work(number):
            time.sleep(0.001)
            return number * number

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(4))
            print(sum(await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(100)))))
            print(await loop.run_in_executor(None, threading.main_thread().is_alive))

        asyncio.run(main())
    """,
    "deaths": """
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool
        import os, signal

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            import logging
            logging.disable()  # of what slaves say of it
            with ProcessPoolExecutor(1) as executor:
                try:
                    executor.submit(die).result()
                except BrokenProcessPool:
                    print("broken")
    """,
    "managers": """
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing

        def work(queue, squares, lock, number):
            with lock:
                squares[number] = number * number
            queue.put(number)
            return queue.qsize() > 0

        if __name__ == "__main__":
            with multiprocessing.Manager() as manager, ProcessPoolExecutor(2) as executor:
                queue, squares, lock = manager.Queue(), manager.dict(), manager.Lock()
                futures = [executor.submit(work, queue, squares, lock, number) for number in range(4)]
                print([future.result() for future in futures])
                print(sorted(queue.get(timeout=60) for _ in futures), sorted(squares.items()))
    """,
}


def run(path, text):
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_when_its_import_line_is_replaced(tmp_path, name):
    lines = PROGRAMS[name].replace("\n        ", "\n").strip().splitlines(keepends=True)
    changed = [
        line.replace("from concurrent.futures import", "from papyros.futures import").replace(
            "import concurrent.futures as", "import papyros.futures as"
        )
        for line in lines
    ]
    assert sum(old != new for old, new in zip(lines, changed, strict=True)) == 1
    told = run(tmp_path / "program.py", "".join(changed))
    assert told == run(tmp_path / "program.py", "".join(lines))
    assert told


@pytest.mark.parametrize("pool", POOLS)
def test_names_are_those_of_the_standard_library(pool):
    with POOLS[pool](1) as executor:
        assert isinstance(executor, concurrent.futures.Executor)
        assert executor.submit(add, 1, 2).result(PATIENCE) == 3
    for name in set(futures.__all__) - {"ThreadPoolExecutor", "ProcessPoolExecutor"}:
        assert getattr(futures, name) is getattr(concurrent.futures, name)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(add, 1)


@pytest.mark.parametrize("pool", POOLS)
def test_each_slave_is_prepared_once_before_its_first_call(pool, tmp_path):
    def prepare(folder):
        name = f"{os.getpid()}-{threading.get_ident()}"
        assert not os.path.exists(f"{folder}/{name}"), "prepared twice"
        open(f"{folder}/{name}", "x").close()

    with POOLS[pool](2, initializer=prepare, initargs=(str(tmp_path),)) as executor:
        gate = Gate(str(tmp_path / "gate"))
        busy = [executor.submit(pass_gate, gate.path) for _ in range(2)]
        gate.wait_for_arrivals(2)
        gate.open()
        concurrent.futures.wait(busy, PATIENCE)
        assert [future.result() for future in [executor.submit(add, number) for number in range(50)]] == [*range(50)]
    assert len(list(tmp_path.glob("*-*"))) == 2


def test_a_process_that_takes_the_place_of_a_dead_one_is_prepared_too(tmp_path):
    prepared = tmp_path / "prepared"

    def prepare():
        with open(prepared, "a") as file:
            file.write("x")

    with futures.ProcessPoolExecutor(1, initializer=prepare) as executor:
        lost = executor.submit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        assert isinstance(lost.exception(PATIENCE), papyros.SlaveLost)
        assert isinstance(lost.exception(), BrokenProcessPool)  # as a program expects that knows no other
        assert executor.submit(add, 1).result(PATIENCE) == 1
    assert prepared.read_text() == "xxxx"  # for each of three attempts, and for the call after them


@pytest.mark.parametrize(("pool", "error"), [("threads", BrokenThreadPool), ("processes", BrokenProcessPool)])
def test_a_pool_whose_initializer_fails_is_broken(pool, error, tmp_path):
    gate = Gate(str(tmp_path / "gate"))

    def prepare(path, number):
        Gate(path).pass_through()
        fail(number)

    with POOLS[pool](1, initializer=prepare, initargs=(gate.path, 7)) as executor:
        calls = [executor.submit(add, number) for number in range(20)]
        gate.open()
        assert all(isinstance(future.exception(PATIENCE), error) for future in calls)
        assert "ValueError: no luck with 7" in str(calls[0].exception())
        with pytest.raises(error, match="no luck with 7"):
            executor.submit(add, 1)
        with pytest.raises(error):
            executor.map(add, [1])
        assert wait_until(lambda: executor.master.numPendingJobs() == 0) is True


def boom():
    raise ValueError("no luck")


def use_a_broken_pool(pool):
    with POOLS[pool](1, initializer=boom) as broken:
        return broken.submit(add, 1).result(PATIENCE)


@pytest.mark.parametrize("initializer", [None, dict], ids=["plain", "prepared"])
@pytest.mark.parametrize(("pool", "error"), [("threads", BrokenThreadPool), ("processes", BrokenProcessPool)])
def test_a_call_that_uses_a_broken_pool_does_not_break_its_own(pool, error, initializer):
    with POOLS[pool](1, initializer=initializer) as executor:
        with pytest.raises(error, match="no luck"):
            executor.submit(use_a_broken_pool, pool).result(PATIENCE)
        assert executor.submit(add, 1, 2).result(PATIENCE) == 3


def test_an_initializer_that_cannot_travel_is_told():
    with futures.ProcessPoolExecutor(1, initializer=add, initargs=(threading.Lock(),)) as executor:
        assert isinstance(executor.submit(add, 1).exception(PATIENCE), papyros.PayloadError)


@pytest.mark.parametrize("pool", POOLS)
def test_arguments_that_make_no_sense_are_refused(pool):
    for workers in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            POOLS[pool](workers)
    with pytest.raises(TypeError):
        POOLS[pool]("2")
    POOLS[pool](np.int64(2)).shutdown()
    with pytest.raises(TypeError, match="initializer must be a callable"):
        POOLS[pool](initializer=3)


def test_what_would_be_missed_is_refused_and_what_would_not_is_accepted():
    with pytest.raises(ValueError, match="max_tasks_per_child"):
        futures.ProcessPoolExecutor(1, max_tasks_per_child=5)
    futures.ProcessPoolExecutor(1, mp_context="spawn").shutdown()
    futures.ThreadPoolExecutor(1, thread_name_prefix="mine").shutdown()


def test_asyncio_takes_it_for_its_default_executor():
    async def program():
        asyncio.get_running_loop().set_default_executor(futures.ThreadPoolExecutor(2))
        return await asyncio.gather(*(asyncio.to_thread(functools.partial(add, number)) for number in range(100)))

    assert asyncio.run(program()) == list(range(100))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("papyros-slave")]
