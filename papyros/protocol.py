"""What a slave process and its crew say to each other, and by which means.

Apart from its standard streams a slave has three things of its crew:

- a stream socket, on which *frames* go (`papyros.frames`): definitions and jobs come in, outcomes go out, in the same
  order;
- the read end of a pipe of *tokens*: a job that was sent may be started only
  after a token was taken, and the crew takes tokens back to give the jobs to
  somebody else. A read of a pipe is atomic, so a job is started by one slave only,
  even while this one computes and answers to nobody. A bundle of jobs has a token for each of them;
- a page of shared memory, the *slate* (`papyros.slate`), on which the slave notes how many tasks
  it started and finished and when, so that whoever finds it dead knows what it was doing.

Tokens carry the epoch of the jobs that they are for; the crew begins a new one each time that it takes tokens back.

Words only: `papyros.slave` speaks for the slave; for the crew, `papyros.process` does, with `papyros.progress` and
`papyros.briefing`.
"""

from __future__ import annotations

import struct
from typing import Final

import papyros

__all__ = [
    "BUNDLE",
    "CUT",
    "DEFINE",
    "ECHO",
    "FAMILY",
    "FROM_SLAVE",
    "HELLO",
    "JOBS",
    "LENT",
    "NEWS",
    "ONCE",
    "ON_STDERR",
    "ON_STDOUT",
    "ORDINAL",
    "ORDINALS",
    "OUTCOMES",
    "OUTCOME_BYTES",
    "PART",
    "PRINTED",
    "READY",
    "RETIRES",
    "TIMED",
    "TOKEN_BYTES",
    "UNSHARE",
    "VALUES",
    "spoken",
]

#: Changes when what crews and slaves say to each other does.
WORDS = 3


def spoken() -> str:
    """Return which Papyros this process has in memory: a crew and its slaves have the same, or do not get on."""
    return f"{papyros.__version__}/{WORDS}"


# Kinds of frames to a slave. -------------------------------------------------------------

#: JSON: search path and bounds.
HELLO: Final = 1
#: A definition; the frame's number is the one by which jobs refer to it.
DEFINE: Final = 2
#: As many jobs as the frame's number says: epoch, which task the first one is (`ORDINAL`, as in `OUTCOMES`), column of
#: definitions, of flags, of blobs.
JOBS: Final = 3
#: For the job that runs, of its children.
NEWS: Final = 4
#: JSON: the places of shared values on this machine, by their digests.
VALUES: Final = 5
#: JSON: digests of shared values to be forgotten, and the numbers of definitions that need them.
UNSHARE: Final = 6

# Kinds of frames from a slave. -----------------------------------------------------------

#: Its name; the frame's number is its peak memory so far, in MB.
READY: Final = 10
#: Which task the first one is of (`ORDINAL`, counted from the first that was started); then a column of seconds and a
#: column of encoded outcomes, as many as the frame's number says.
OUTCOMES: Final = 11
#: Text that a job printed; the frame's number says which task that is, counted as above; the first byte of the body
#: says on which stream.
PRINTED: Final = 12
#: What a job says of its children; the frame's number says which task that is, as above.
FAMILY: Final = 13
#: 1: the slave lends its place, since its job waits for children; 0: it takes it back.
LENT: Final = 14
#: Why the slave leaves the jobs that it has not started to a fresh one.
RETIRES: Final = 15
#: What has become of jobs of the bundle that runs, so far; the frame's number says which task it is, as above.
PART: Final = 16

FROM_SLAVE = frozenset([READY, OUTCOMES, PRINTED, FAMILY, LENT, RETIRES, PART])

#: No outcome has more bytes, with the one that says of what kind it is: no message could hold it.
OUTCOME_BYTES = (1 << 30) - (1 << 20) + 1

ON_STDOUT, ON_STDERR = b"o", b"e"

#: Which task something is about. It begins anew after four thousand million, which no crew has on their way at a time.
ORDINAL: Final = struct.Struct("<I")
ORDINALS: Final = 1 << 32

# Flags of jobs. --------------------------------------------------------------------------

#: What it prints is to be sent; what becomes of it is to be told at once; it may be stopped when its time is up; it is
#: a bundle.
ECHO: Final = 1
ONCE: Final = 2
TIMED: Final = 4
BUNDLE: Final = 8

# Tokens. ---------------------------------------------------------------------------------

TOKEN_BYTES: Final = 4

#: What a slave in the midst of a bundle finds in place of a token: the rest of it was taken back.
CUT: Final = b"\xff" * TOKEN_BYTES
