"""What a script defines travels by value, also what cloudpickle leaves to pickle, or makes otherwise than it was."""

from __future__ import annotations

import functools
import io
import pickle
import subprocess
import sys
import textwrap
from types import ModuleType

import cloudpickle
import pytest

from papyros.byvalue import Pickler
from papyros.environment import python_environment
from tests.support import PATIENCE

#: What a program may define, and jobs with it; its slaves find nothing of this by a name.
SCRIPT = """
    import functools
    from typing import NamedTuple
    import papyros

    class Point(NamedTuple):
        x: int
        y: int = 5

        def norm(self):
            return abs(self.x) + abs(self.y)

    class Circle:
        counted = 0

        def __init__(self, radius):
            self.radius = radius

        @functools.cached_property
        def area(self):
            self.counted += 1
            return 3 * self.radius ** 2

        @functools.lru_cache(maxsize=2)
        def grown(self, more):
            return self.radius + more

    @functools.lru_cache(maxsize=7, typed=True)
    def fibonacci(number):
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    fibonacci(20)

    @papyros.job
    def mirror(point):
        return Point(point.y), point.norm(), point._replace(y=0)

    @papyros.job
    def area(circle):
        return circle.area + circle.area, circle.counted, circle.grown(1)

    @papyros.job
    def cached(number):
        before = fibonacci.cache_info().currsize
        return fibonacci(number), before, fibonacci.cache_parameters()

    @papyros.job
    @functools.cache
    def squared(number):
        return number ** 2

    jobs = [mirror(Point(2, y=3)), area(Circle(2)), cached(30), squared(3)]
    with papyros.MultiProcessMaster(1) as master:
        for job in jobs:
            master.addJob(job)
        master.processedJobs()
        while master.popProcessedJob() is not None:
            pass
    for job in jobs:
        print(job.exception or job.result)
    print(type(jobs[0].result[0]) is Point)
"""


def there_and_back(value):
    file = io.BytesIO()
    Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return pickle.loads(file.getvalue())


def test_what_a_script_defines_works_in_its_slaves(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(script)],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "(Point(x=3, y=5), 5, Point(x=2, y=0))",
        "(24, 1, 3)",
        "(832040, 0, {'maxsize': 7, 'typed': True})",
        "9",
        "True",
    ]


@pytest.mark.parametrize(("maxsize", "typed"), [(7, True), (None, False)])
def test_a_cached_function_keeps_its_parameters_and_begins_with_an_empty_cache(maxsize, typed):
    @functools.lru_cache(maxsize, typed)
    def double(number):
        """Say what is twice that."""
        return 2 * number

    double(1)
    other = there_and_back(double)
    assert other is not double
    assert other.cache_parameters() == {"maxsize": maxsize, "typed": typed}
    assert other.cache_info().currsize == 0
    assert [other(4), other(4), other.cache_info().hits] == [8, 8, 1]
    assert (other.__name__, other.__doc__) == ("double", "Say what is twice that.")


def test_a_cached_function_that_calls_itself_calls_the_cached_one_there_too():
    """Otherwise this would take until the end of the world."""

    @functools.cache
    def paths(steps):
        return 1 if steps < 2 else paths(steps - 1) + paths(steps - 2)

    other = there_and_back(paths)
    assert other(300) == paths(300)
    assert other.cache_info().currsize == 301


def test_a_cached_function_keeps_what_the_program_has_noted_on_it():
    """As others do."""

    @functools.cache
    def priced(number):
        return number * priced.price

    priced.price = 3
    other = there_and_back(priced)
    assert other(2) == 6
    assert other.cache_parameters() == {"maxsize": None, "typed": False}


@pytest.mark.parametrize("unnamed", [functools.partial(int, base=3), lambda digits: int(digits, 3)])
def test_what_has_no_name_of_its_own_can_be_cached_all_the_same(unnamed):
    assert there_and_back(functools.lru_cache(unnamed))("21") == 7


def test_a_cached_function_that_can_be_imported_goes_by_its_name(monkeypatch):
    """Its cache there is the one that other jobs have filled."""
    module = ModuleType("module_of_a_test")
    exec("import functools\n@functools.cache\ndef double(number):\n    return 2 * number\n", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert there_and_back(module.double) is module.double
    cloudpickle.register_pickle_by_value(module)
    try:
        other = there_and_back(module.double)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert other is not module.double
    assert other(4) == 8


def test_a_generic_function_is_refused_by_its_name_unless_it_can_be_imported(monkeypatch):
    module = ModuleType("module_of_a_test")
    exec("import functools\n@functools.singledispatch\ndef show(thing):\n    return 1\n", module.__dict__)
    with pytest.raises(TypeError, match=r"^show is a generic function, .*put it into a module"):
        there_and_back(module.show)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert there_and_back(module.show) is module.show


def test_a_cached_property_travels_without_its_lock():
    """Up to Python 3.11 it has one, which can be no part of a pickle."""
    made = functools.cached_property(len)
    made.__set_name__(list, "length")
    made.__doc__ = "How many."
    other = there_and_back(made)
    assert (other.func, other.attrname, other.__doc__) == (len, "length", "How many.")

    class Words(list):
        length = other

    words = Words("abc")
    assert [words.length, words.__dict__] == [3, {"length": 3}]
