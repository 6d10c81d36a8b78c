"""Encoded outcomes: what becomes of a job, as bytes, where it was run, and from bytes again where it is popped.

A result that cannot be pickled, or unpickled, becomes an error in words; so does an exception, which is tried in more
than one form before. Whoever only passes outcomes on asks at most of what kind they are, and never what is in them.
"""

from __future__ import annotations

import json
import pickle
import re
from typing import Any, Final

from papyros.errors import JobTimeout, PayloadError, PayloadTooLargeError, RemoteError, SlaveLost
from papyros.frames import Parts
from papyros.jobs import Job, describe
from papyros.keeping import wants_retry
from papyros.outcome import Outcome, describe_exception
from papyros.pickling import PROTOCOL, Rebuilt, brief, text_of
from papyros.story import name_job
from papyros.wire import LARGE_BYTES, MAX_PAYLOAD_BYTES, Buffer, caused, dumps, dumps_after, loads_plain

__all__ = [
    "asks_for_retry",
    "decode_outcome",
    "encode_lost",
    "encode_outcome",
    "encode_overdue",
    "encode_refusal",
    "is_told",
    "outcome_in_parts",
    "told_text",
]

#: An exception that takes more bytes than this arrives as a `RemoteError`, ...
MOST_OF_AN_EXCEPTION = 64 << 20

#: ... and of what it says, and of its traceback, so many characters arrive.
MOST_CHARACTERS = 1 << 20

#: Where an object lies, in its text.
_ADDRESS = "0x[0-9A-Fa-f]+"

# The first byte of an encoded outcome says what follows.
_RESULT: Final = b"R"  # a result, pickled or marshalled
_ERROR: Final = b"E"  # a pickled tuple: pickled exception or None, type name, text, traceback
_FAILED: Final = b"F"  # the same, of a job that is to be tried again if it has retries left
_REFUSED: Final = b"P"  # JSON: the text of a PayloadError and whether it was the size
_LOST: Final = b"L"  # JSON: the text of a SlaveLost
_OVERDUE: Final = b"T"  # JSON: the text of a JobTimeout


def encode_outcome(outcome: Outcome, job: object, max_bytes: int = MAX_PAYLOAD_BYTES) -> bytes:
    """Encode an outcome; always succeeds. See `outcome_in_parts`."""
    encoded = outcome_in_parts(outcome, job, max_bytes)
    return b"".join(encoded.buffers) if isinstance(encoded, Parts) else encoded


def outcome_in_parts(outcome: Outcome, job: object, max_bytes: int = MAX_PAYLOAD_BYTES) -> bytes | Parts:
    """Encode an outcome; always succeeds. Of a large result, the parts may be its own memory, until that changes.

    A result that cannot be pickled, or is too large, becomes a `PayloadError`;
    an exception that cannot be pickled a `RemoteError` with its name and text.
    """
    if outcome.exception is not None:
        again = isinstance(job, Job) and wants_retry(job, outcome.exception)
        return (_FAILED if again else _ERROR) + _encode_error(outcome.exception, outcome.traceback)
    try:
        encoded = dumps_after(_RESULT, outcome.value)
    except BaseException as error:  # noqa: BLE001 - a __reduce__ of the user's may raise anything
        return _encode_refusal(
            f"the result of {describe(job)} cannot be pickled: {brief(error)}", False, describe_exception(error)
        )
    size = len(encoded) - len(_RESULT)
    if size > max_bytes:
        text = f"the result of {describe(job)} takes {size:,} bytes; the bound is {max_bytes:,} bytes"
        return _encode_refusal(text, True)
    return encoded


def _encode_error(error: BaseException, traceback: str) -> bytes:
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return pickle.dumps((_pickle_exception(error), name, _legible(text_of(error)), _legible(traceback)), PROTOCOL)


def _legible(text: str) -> str:
    """Return a text without the middle of it, if nobody will read that."""
    if len(text) <= MOST_CHARACTERS:
        return text
    half = MOST_CHARACTERS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters are left out here ...\n{text[-half:]}"


def _pickle_exception(error: Any) -> bytes | None:
    """Pickle an exception so that it can be unpickled too, or return None.

    An exception whose constructor takes other arguments than it hands on to
    `Exception` pickles, but does not unpickle, or not to the same: it is
    rebuilt without its constructor. What its class has made of `args` and `__dict__` may be anything.
    One that has too much with it is told by its name and text, too.
    """
    for rebuilt in (False, True):
        try:
            form = Rebuilt((_rebuild_exception, (type(error), error.args, error.__dict__))) if rebuilt else error
            pickled = dumps(form)
            copy = pickle.loads(pickled)
            if isinstance(copy, BaseException) and _says_the_same(text_of(copy), text_of(error)):
                return pickled if len(pickled) <= MOST_OF_AN_EXCEPTION else None
        except BaseException:  # noqa: BLE001, S112 - the next form is tried, and in the end the stand-in does
            continue
    return None


def _says_the_same(one: str, other: str) -> bool:
    """Whether two texts are one, but for where objects lie in memory, and for the order in which sets have theirs."""
    return one == other or sorted(re.sub(_ADDRESS, "", one)) == sorted(re.sub(_ADDRESS, "", other))


def _rebuild_exception(kind: Any, args: Any, state: Any) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _encode_refusal(text: str, too_large: bool, traceback: str = "") -> bytes:
    return _REFUSED + json.dumps([_legible(text), too_large, _legible(traceback)]).encode()


def encode_refusal(error: PayloadError) -> bytes:
    """Encode the outcome of a job that could not be unpacked where it was to run."""
    return _encode_refusal(str(error), isinstance(error, PayloadTooLargeError), describe_exception(error))


def encode_lost(text: str) -> bytes:
    """Encode the outcome of a job that lost its slave too often, with the story of it."""
    return _LOST + json.dumps(text).encode()


def encode_overdue(text: str) -> bytes:
    """Encode the outcome of a job that was stopped because its time was up."""
    return _OVERDUE + json.dumps(text).encode()


def asks_for_retry(encoded: Buffer) -> bool:
    """Whether an encoded outcome is that of a job which is to be tried again, if it has retries left."""
    return encoded[:1] == _FAILED


def is_told(encoded: Buffer) -> bool:
    """Whether an encoded outcome is what a master tells of a job that was lost: words, and nothing pickled."""
    return encoded[:1] == _LOST


def told_text(encoded: Buffer) -> str:
    """Return the words of such an outcome."""
    text: str = json.loads(bytes(encoded[1:]))
    return text


def decode_outcome(encoded: Buffer, job: object, slave: str = "", seconds: float = 0.0) -> Outcome:
    """Decode an outcome; always succeeds.

    A result that cannot be unpickled here becomes a `PayloadError`, an exception a `RemoteError`.
    """
    kind = encoded[:1]
    body = encoded[1:] if len(encoded) < LARGE_BYTES else memoryview(encoded)[1:]  # to copy little costs less
    if kind == _RESULT:
        try:
            return Outcome(loads_plain(body), None, "", slave, seconds)
        except KeyboardInterrupt:
            raise  # the user's
        except BaseException as error:  # noqa: BLE001 - a __setstate__ may raise anything, SystemExit too
            refusal = PayloadError(f"the result of {describe(job)} cannot be unpickled: {brief(error)}")
            return Outcome.failed(caused(refusal, error), slave, seconds)
    try:
        return _decode_other(kind, body, job, slave, seconds)
    except Exception as error:  # noqa: BLE001 - a job has written to the connection of its slave
        refusal = PayloadError(f"what came of {describe(job)} is no outcome: {brief(error)}")
        return Outcome.failed(refusal, slave, seconds)


def _decode_other(kind: Buffer, body: Buffer, job: object, slave: str, seconds: float) -> Outcome:
    """Decode an outcome that is no result."""
    if kind in (_ERROR, _FAILED):
        pickled, name, text, traceback = pickle.loads(body)
        return Outcome.failed_elsewhere(_unpickle_exception(pickled, name, text), traceback, slave, seconds)
    if kind == _REFUSED:
        text, too_large, traceback = json.loads(bytes(body))
        refusal = PayloadTooLargeError(text) if too_large else PayloadError(text)
        if traceback:
            return Outcome.failed_elsewhere(refusal, traceback, slave, seconds)
        return Outcome.failed(refusal, slave, seconds)
    told = name_job(json.loads(bytes(body)), describe(job))
    return Outcome.failed(JobTimeout(told) if kind == _OVERDUE else SlaveLost(told), slave, seconds)


def _unpickle_exception(pickled: bytes | None, name: str, text: str) -> BaseException:
    if pickled is not None:
        try:
            error = pickle.loads(pickled)
            if isinstance(error, BaseException):
                # Where tblib is at work, as with Dask, there is one, made up, which holds the frames of all who wait.
                return BaseException.with_traceback(error, None)
        except KeyboardInterrupt:
            raise  # the user's
        except BaseException:  # noqa: BLE001 - its class may be unknown here: the stand-in says what it was
            return RemoteError(text, name)
    return RemoteError(text, name)
