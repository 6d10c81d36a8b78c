"""Every error that Papyros raises of its own accord.

One root, `PapyrosError`; each class has the nearest builtin as second base, so
that a program that knows nothing of Papyros catches what it would expect to.
This module imports nothing, so that every other one may import it.
"""

from __future__ import annotations

__all__ = [
    "ClusterError",
    "ConfigError",
    "GroupNameError",
    "GroupTakenError",
    "JobTimeout",
    "KeyFileError",
    "KeyRefusedError",
    "MasterClosedError",
    "MasterNotFoundError",
    "NameServerNotFoundError",
    "NoCurrentMasterError",
    "NotAJobError",
    "PapyrosError",
    "PayloadError",
    "PayloadTooLargeError",
    "PendingJobError",
    "RemoteError",
    "RemoteTraceback",
    "SlaveLost",
    "UnprocessedJobError",
    "VersionMismatchError",
]


class PapyrosError(Exception):
    """The root of all errors of Papyros."""


class NotAJobError(PapyrosError, TypeError):
    """What was added is no job: not an instance of a `Job` subclass that overrides `__call__`."""


class PendingJobError(PapyrosError, ValueError):
    """The job is pending already, in this master or in another one; it was not added again."""


class UnprocessedJobError(PapyrosError, RuntimeError):
    """The result of a job was asked for before the job was processed and popped."""


class MasterClosedError(PapyrosError, RuntimeError):
    """The master was closed: it takes no more jobs."""


class NoCurrentMasterError(PapyrosError, RuntimeError):
    """`current_master` was called where no job runs, or none that could add jobs."""


class PayloadError(PapyrosError, ValueError):
    """The arguments or the result of a job cannot travel between processes.

    `__cause__` is, or quotes, the error that pickling or unpickling raised.
    """


class PayloadTooLargeError(PayloadError):
    """The arguments or the result of a job are larger than the bound that was set."""


class SlaveLost(PapyrosError, RuntimeError):
    """Nobody can say what the job would have returned: the text tells why.

    Its slaves died, as often as a job may lose its slave; or it may run once only, and what became of it is not known;
    or there can be no slaves any more.
    """


class JobTimeout(PapyrosError, TimeoutError):
    """The job ran longer than its `timeout` and was stopped."""


class RemoteError(PapyrosError, RuntimeError):
    """Stands for an exception of a job that could not be pickled or unpickled.

    Attributes:
        type_name (str): the qualified name of the exception's class.
    """

    def __init__(self, text: str, type_name: str = "") -> None:
        super().__init__(text, type_name)
        self.type_name = type_name

    def __str__(self) -> str:
        text, type_name = self.args
        return f"{type_name}: {text}" if type_name else str(text)


class RemoteTraceback(PapyrosError):
    """Carries the traceback of another process, as text, in the chain that Python prints.

    The method is that of `concurrent.futures.process`: the text travels beside
    the exception and is set as its `__cause__` on arrival.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class ConfigError(PapyrosError, ValueError):
    """A configuration file or a command line option has a key or value that is not understood."""


class GroupNameError(ConfigError):
    """The name of a group is not valid."""


class KeyFileError(ConfigError):
    """There is no file with the cluster's key where one was asked for, or it is not fit to hold one."""


class ClusterError(PapyrosError, RuntimeError):
    """A part of a cluster could not be started, or ended when it should not."""


class NameServerNotFoundError(PapyrosError, ConnectionError):
    """No name server answers at the address where one was looked for."""


class MasterNotFoundError(PapyrosError, LookupError):
    """No master is registered for the group, and none was to be hosted here."""


class GroupTakenError(PapyrosError, RuntimeError):
    """Another master serves the group already, or may do so, where it cannot be reached from here.

    Attributes:
        uri (str): where that one is registered.
    """

    def __init__(self, text: str = "", uri: str = "") -> None:
        super().__init__(text)
        self.uri = uri


class KeyRefusedError(PapyrosError, ConnectionError):
    """The other side does not have the key of this cluster, or this side does not have its key."""


class VersionMismatchError(PapyrosError, ConnectionError):
    """The other side runs a version of Papyros or of Python with which this one cannot work together."""
