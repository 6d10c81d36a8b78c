"""What crosses between processes: jobs, definitions of their classes, outcomes; there and back."""

from __future__ import annotations

import enum
import marshal
import math
import os
import pickle
import subprocess
import sys
import threading
import types
from array import array
from collections import deque
from functools import partial

import numpy as np
import pytest

import papyros
from papyros import wire
from papyros.encoded import (
    asks_for_retry,
    decode_outcome,
    encode_lost,
    encode_outcome,
    encode_overdue,
    encode_refusal,
    outcome_in_parts,
)
from papyros.jobs import result_of
from papyros.outcome import Outcome
from papyros.pickling import text_of
from papyros.running import run_job
from papyros.wire import Packer, build_job, load_definition
from tests.contract.jobs_for_tests import (
    DefaultedError,
    ExplodesWhenUnpickled,
    FrozenError,
    KeywordOnly,
    LockedError,
    Scaled,
    Square,
    StrangelyReducedError,
    TwoArguments,
    UnspeakableError,
    double,
    echo,
    fail,
    fail_visibly,
)

pytestmark = pytest.mark.compiled

JOB = Square(7)


class Weekday(enum.IntEnum):
    """No plain number, though it is one."""

    MONDAY = 1


class ExplodesAtLength:
    """Says more than anybody reads when it is pickled."""

    def __reduce__(self):
        raise ArithmeticError("no " * (2 << 20))


def there_and_back(outcome, job=JOB, **options):
    encoded = encode_outcome(outcome, job, **options)
    assert isinstance(encoded, bytes)
    return decode_outcome(memoryview(encoded), job, "mars/17", 1.5)


def travelled(job):
    """The job as it is where it runs."""
    packer = Packer()
    payload = packer.pack(job)
    return build_job(load_definition(packer.definitions[payload.definition]), memoryview(payload.blob))


# Jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [(), (1, 2.5, 3j, "x", b"y", None, True), ([1, [2, (3,)]],), ({1: 2},), (list(range(100)),), (threading.Event,)],
)
def test_arguments_arrive_as_they_left(arguments):
    job = travelled(echo(*arguments, named=arguments))
    assert (job.args, job.kwds) == (arguments, {"named": arguments})
    assert isinstance(job, echo)


#: What is marshalled, where it is all that a job takes or returns: also what looks like the beginning of a pickle.
ATOMS = [
    *(None, True, False, 0, -1, 255, 2**31, -(2**63), 10**400, -(10**400)),
    *(0.1, -0.0, math.inf, math.nan, complex(-0.0, math.nan)),
    *("", "x", "\x80", "naïve", "\ud800", "long" * 1000, b"", b"\x80\x05", bytes(range(256))),
    *(Weekday.MONDAY, np.float64(0.5)),
]


@pytest.mark.parametrize("value", ATOMS, ids=repr)
def test_a_number_or_a_text_arrives_as_it_left(value):
    (other,) = travelled(echo(value)).args
    assert type(other) is type(value)
    assert repr(other) == repr(value)


class OtherArguments(papyros.Job):
    """Has other ideas of what its arguments are."""

    kind = tuple

    @property
    def args(self):
        return type(self).kind(self._args)

    def __call__(self, *args):
        return args


@pytest.mark.parametrize("kind", [list, deque, partial(array, "d")], ids=["list", "deque", "array"])
def test_arguments_that_are_no_tuple_arrive_as_they_left(kind):
    """What has a buffer was taken for bytes by marshal, and the others were refused."""
    job_class = type("Peculiar", (OtherArguments,), {"kind": staticmethod(kind)})
    assert run_job(travelled(job_class(1000)), "here").value == tuple(kind((1000,)))


def test_what_the_user_has_set_travels_and_what_a_master_noted_does_not():
    job = Scaled(5)
    job.scale, job.timeout = 3, 9.0
    papyros.keeping.claim(job, object())
    other = travelled(job)
    assert (other.scale, other.timeout) == (3, 9.0)
    assert papyros.keeping.keeper_of(other) is None


def test_a_class_is_defined_once_for_all_its_jobs():
    packer = Packer()
    payloads = [packer.pack(Square(number)) for number in range(5)] + [packer.pack(double(3))]
    assert len({payload.definition for payload in payloads}) == len(packer.definitions) == 2
    assert set(packer.labels.values()) == {"Square", "double"}
    assert all(len(digest) == 16 for digest in packer.definitions)


def test_the_same_class_has_the_same_digest_everywhere():
    assert Packer().pack(Square(1)).definition == Packer().pack(Square(2)).definition


def test_a_class_that_can_be_imported_travels_by_name_and_others_by_value():
    class Local(papyros.Job):
        factor = 3

        def __call__(self, number):
            return self.factor * number

    packer = Packer()
    named, valued = packer.pack(Square(1)), packer.pack(Local(2))
    assert load_definition(packer.definitions[named.definition]) is Square
    rebuilt = load_definition(packer.definitions[valued.definition])
    assert rebuilt.__name__ == "Local"
    assert run_job(build_job(rebuilt, valued.blob), "here").value == 6


def test_a_class_by_value_needs_nothing_of_the_program_it_comes_from(tmp_path):
    """Another process, which cannot import where it was defined, runs it with what it refers to."""

    def helper(number):
        return number + 1

    class Local(papyros.Job):
        def __call__(self, number):
            return helper(number)

    packer = Packer()
    payload = packer.pack(Local(41))
    (tmp_path / "job").write_bytes(pickle.dumps((packer.definitions[payload.definition], bytes(payload.blob))))
    program = (
        "import pickle, sys\n"
        "from papyros.wire import build_job, load_definition\n"
        "definition, blob = pickle.load(open(sys.argv[1], 'rb'))\n"
        "job = build_job(load_definition(definition), blob)\n"
        "print(job(*job.args))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "job"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "42\n"


def test_the_folders_of_the_client_are_looked_in_last_and_only_if_they_are_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    packer = Packer()
    definition = packer.definitions[packer.pack(Square(1)).definition]
    name, pickled, folders, sources = pickle.loads(definition)
    assert str(tmp_path) in folders
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.path)
    assert load_definition(pickle.dumps((name, pickled, [*folders, str(tmp_path / "nowhere")], sources))) is Square
    assert sys.path[: len(before)] == before
    assert str(tmp_path) in sys.path
    assert str(tmp_path / "nowhere") not in sys.path
    load_definition(definition)
    assert sys.path.count(str(tmp_path)) == 1


def test_a_class_whose_module_is_not_there_is_refused_with_a_hint(monkeypatch, tmp_path):
    (tmp_path / "only_at_the_client.py").write_text(
        "import papyros\nclass Far(papyros.Job):\n    def __call__(self): return 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_at_the_client

    packer = Packer()
    definition = packer.definitions[packer.pack(only_at_the_client.Far()).definition]
    name, pickled, _, sources = pickle.loads(definition)
    monkeypatch.undo()
    del sys.modules["only_at_the_client"]
    with pytest.raises(papyros.PayloadError, match=r"Far cannot be loaded.*install only_at_the_client") as caught:
        load_definition(pickle.dumps((name, pickled, [], sources)))
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("job", [echo(threading.Lock()), echo(named=threading.Lock())])
def test_arguments_that_cannot_be_pickled_are_refused_by_the_name_of_their_job(job):
    with pytest.raises(papyros.PayloadError, match=r"the arguments of echo\(.*cannot be pickled: TypeError") as caught:
        Packer().pack(job)
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_module_that_arguments_need_and_slaves_lack_is_told_with_what_to_do(monkeypatch):
    module = types.ModuleType("only_at_the_client")
    exec("class Far:\n    pass", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    blob = Packer().pack(echo(module.Far())).blob
    del sys.modules[module.__name__]
    with pytest.raises(papyros.PayloadError, match=r"arguments of a echo .*install only_at_the_client") as caught:
        build_job(echo, blob)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_arguments_that_cannot_be_unpickled_are_refused_where_the_job_is_to_run():
    with pytest.raises(papyros.PayloadError, match=r"arguments of a echo cannot be unpickled: ArithmeticError"):
        travelled(echo(ExplodesWhenUnpickled()))


def test_arguments_are_as_large_as_the_bound_and_no_larger():
    size = len(Packer().pack(echo(b"x" * 1000)).blob)
    Packer(size).pack(echo(b"x" * 1000))
    with pytest.raises(papyros.PayloadTooLargeError, match=rf"take {size:,} bytes; the bound is {size - 1:,} bytes"):
        Packer(size - 1).pack(echo(b"x" * 1000))


# Outcomes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [*ATOMS, [1, {2: (3,)}], b"y" * 100_000, ValueError("a value")], ids=repr)
def test_a_result_arrives_as_it_left(value):
    outcome = there_and_back(Outcome(value))
    assert (outcome.slave, outcome.seconds) == ("mars/17", 1.5)
    assert outcome.exception is None
    assert type(result_of(outcome)) is type(value)
    assert repr(result_of(outcome)) == repr(value)


def test_a_result_that_plain_pickle_dislikes_arrives_too():
    factor = 3
    assert result_of(there_and_back(Outcome(lambda number: factor * number)))(5) == 15


@pytest.mark.parametrize("error", [KeyError("k"), SystemExit(3), TwoArguments(7, "seven"), KeywordOnly(code=3)])
def test_an_exception_arrives_with_its_traceback(error):
    outcome = there_and_back(run_job(fail(lambda: error), "here"))
    assert type(outcome.exception) is type(error)
    assert str(outcome.exception) == str(error)
    assert outcome.exception.__dict__.items() >= error.__dict__.items() - {("traceback", error.traceback)}
    assert "raise kind(*args)" in outcome.exception.traceback
    assert "raise kind(*args)" in str(outcome.exception.__cause__)


def test_of_an_exception_that_carries_too_much_its_name_and_the_ends_of_its_text_arrive(monkeypatch):
    monkeypatch.setattr("papyros.encoded.MOST_OF_AN_EXCEPTION", 10_000)
    monkeypatch.setattr("papyros.encoded.MOST_CHARACTERS", 1000)
    error = there_and_back(run_job(fail(ValueError, "a" * 10_000 + "z" * 10_000), "here")).exception
    assert type(error) is papyros.RemoteError
    assert error.type_name == "ValueError"
    for text in (str(error), error.traceback):
        assert "characters are left out here" in text
        assert "zzz" in text
        assert len(text) < 2000
    assert type(there_and_back(run_job(fail(ValueError, "a" * 900), "here")).exception) is ValueError


@pytest.mark.parametrize("kind", [LockedError, StrangelyReducedError])
def test_an_exception_that_cannot_travel_has_a_stand_in(kind):
    outcome = there_and_back(run_job(fail(kind, "the text"), "here"))
    if type(outcome.exception) is not kind:
        assert type(outcome.exception) is papyros.RemoteError
        assert outcome.exception.type_name.endswith(kind.__name__)
    assert "the text" in str(outcome.exception)
    assert "raise kind(*args)" in outcome.exception.traceback


@pytest.mark.parametrize(
    "error", [UnspeakableError(), FrozenError("cold"), DefaultedError(3, "why"), StrangelyReducedError()]
)
def test_an_odd_exception_is_an_outcome_all_the_same(error):
    outcome = there_and_back(run_job(fail(lambda: error), "here"))
    assert isinstance(outcome.exception, BaseException)
    assert outcome.exception.traceback


def test_an_exception_whose_words_are_of_a_class_of_their_own_is_an_outcome_all_the_same():
    class Words(str):
        __slots__ = ()

    class WordyError(Exception):
        def __str__(self):
            return Words("in other words")

    outcome = there_and_back(run_job(fail(WordyError), "here"))
    assert str(outcome.exception) == "in other words"
    assert type(text_of(WordyError())) is str


@pytest.mark.parametrize("error", [KeyError(object()), ValueError(set("abcde")), TwoArguments(object(), 1)])
def test_an_exception_that_shows_an_object_is_itself_where_it_comes_back(error):
    """Where the object lies is another place there, and a set may have another order: that is no other text."""
    came = there_and_back(run_job(fail(lambda: error), "here")).exception
    assert type(came) is type(error)
    assert type(came.args[0]) is type(error.args[0])


def test_what_is_told_of_a_result_that_cannot_travel_is_not_longer_than_anybody_reads():
    text = str(there_and_back(Outcome(ExplodesAtLength())).exception)
    assert "characters are left out" in text
    assert len(text) < 2 << 20


def test_a_class_that_is_larger_than_any_message_costs_its_own_jobs_only(monkeypatch):
    """What a function of a script refers to goes with it."""
    monkeypatch.setattr(wire, "MAX_PAYLOAD_BYTES", 100_000)
    table = os.urandom(200_000)

    @papyros.job
    def look_up(number):
        return table[number]

    packer = Packer()
    with pytest.raises(papyros.PayloadTooLargeError, match=r"the job class .*look_up takes 20\d,.* papyros.shared"):
        packer.pack(look_up(1))
    job = travelled(double(2))
    assert job(*job.args) == 4


def test_an_outcome_says_whether_its_job_is_to_be_tried_again():
    """If it has retries left, which is known where the books are kept."""
    job = fail_visibly(3)
    job.retries = 2
    failed = encode_outcome(run_job(job, "here"), job)
    assert asks_for_retry(failed)
    assert asks_for_retry(memoryview(failed))
    assert str(decode_outcome(failed, job).exception) == "no luck with 3"
    assert not asks_for_retry(encode_outcome(Outcome(1), job))
    job.retryable = (KeyError,)
    assert not asks_for_retry(encode_outcome(run_job(job, "here"), job))
    for other in (encode_lost("x"), encode_overdue("x"), encode_refusal(papyros.PayloadError("x"))):
        assert not asks_for_retry(other)


def test_a_result_that_cannot_be_pickled_is_refused():
    outcome = there_and_back(Outcome(threading.Lock()))
    assert type(outcome.exception) is papyros.PayloadError
    assert "the result of Square(7) cannot be pickled: TypeError" in str(outcome.exception)


def test_a_result_that_cannot_be_unpickled_is_refused_here():
    outcome = there_and_back(Outcome(ExplodesWhenUnpickled()))
    assert type(outcome.exception) is papyros.PayloadError
    assert "cannot be unpickled: ArithmeticError: exploded" in str(outcome.exception)
    assert isinstance(outcome.exception.__cause__, ArithmeticError)


@pytest.mark.parametrize(
    "value", [b"x" * 1000, [b"x" * 1000], 1 << 8000], ids=["marshalled", "pickled", "large number"]
)
def test_a_result_is_as_large_as_the_bound_and_no_larger(value):
    size = len(marshal.dumps(value, 2) if isinstance(value, bytes) else pickle.dumps(value, wire.PROTOCOL))
    assert result_of(there_and_back(Outcome(value), max_bytes=size)) == value
    outcome = there_and_back(Outcome(value), max_bytes=size - 1)
    assert type(outcome.exception) is papyros.PayloadTooLargeError
    assert f"takes {size:,} bytes; the bound is {size - 1:,} bytes" in str(outcome.exception)


LARGE = wire.LARGE_BYTES


def test_large_bytes_are_packed_as_they_are_and_not_copied():
    argument = os.urandom(LARGE)
    packer = Packer(in_parts=True)
    blob = packer.pack(echo(argument, 1)).blob
    assert any(part is argument for part in blob.buffers)
    assert len(blob) == sum(map(len, blob.buffers))
    assert build_job(echo, b"".join(blob.buffers)).args == (argument, 1)


@pytest.mark.parametrize(
    "argument", [bytes(LARGE - 1), bytearray(LARGE), np.arange(LARGE, dtype=np.uint8), "x" * LARGE]
)
def test_what_is_small_or_may_change_is_copied_when_it_is_packed(argument):
    assert isinstance(Packer(in_parts=True).pack(echo(argument)).blob, bytes)


def test_large_arguments_are_refused_in_parts_as_they_are_in_one_piece():
    with pytest.raises(papyros.PayloadTooLargeError, match="1,048,"):
        Packer(max_bytes=LARGE, in_parts=True).pack(echo(bytes(LARGE)))


@pytest.mark.parametrize("make", [os.urandom, bytearray, lambda size: np.arange(size, dtype=np.uint8)])
def test_a_large_result_is_encoded_without_a_copy(make):
    value = make(LARGE)
    encoded = outcome_in_parts(Outcome(value), JOB)
    [part] = [part for part in encoded.buffers if len(part) == LARGE]
    assert part is value or np.shares_memory(np.frombuffer(part, np.uint8), np.frombuffer(value, np.uint8))
    assert b"".join(encoded.buffers) == encode_outcome(Outcome(value), JOB)
    assert bytes(result_of(decode_outcome(b"".join(encoded.buffers), JOB))) == bytes(value)


def test_a_large_array_in_another_order_arrives_as_it_left():
    value = np.asfortranarray(np.arange(LARGE, dtype=np.float64).reshape(1024, -1))
    arrived = result_of(there_and_back(Outcome(value)))
    assert arrived.flags.f_contiguous
    assert (arrived == value).all()


def test_verdicts_of_others_than_the_slave_arrive_in_their_words():
    for encoded, kind in [
        (encode_lost("it died: Grüße"), papyros.SlaveLost),
        (encode_overdue("it died: Grüße"), papyros.JobTimeout),
        (encode_refusal(papyros.PayloadError("it died: Grüße")), papyros.PayloadError),
        (encode_refusal(papyros.PayloadTooLargeError("it died: Grüße")), papyros.PayloadTooLargeError),
    ]:
        outcome = decode_outcome(encoded, JOB, "mars/17", 2.0)
        assert type(outcome.exception) is kind
        assert str(outcome.exception) == "it died: Grüße"
        assert outcome.seconds == 2.0
        with pytest.raises(kind):
            result_of(outcome)


def test_an_exception_whose_class_is_not_known_here_is_told_in_words(tmp_path):
    program = (
        "import sys, papyros\n"
        "from papyros.outcome import Outcome\n"
        "from papyros.encoded import encode_outcome\n"
        "import only_there\n"
        "sys.stdout.buffer.write(encode_outcome(Outcome.failed(only_there.Odd('the text')), None))\n"
    )
    (tmp_path / "only_there.py").write_text("class Odd(Exception): pass\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
    error = decode_outcome(done.stdout, JOB).exception
    assert type(error) is papyros.RemoteError
    assert str(error) == "only_there.Odd: the text"
    assert error.type_name == "only_there.Odd"
