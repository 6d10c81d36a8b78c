"""Papyros: master/slave parallel processing.

Turn the body of a slow loop into a `Job`, add jobs to a `Master`, and pop the
processed jobs back. Which master is created decides where the work happens:

- `papyros.singlethreaded.SingleThreadedMaster`: in the calling thread;
- `papyros.multithreaded.MultiThreadedMaster`: in threads;
- `papyros.multiprocess.MultiProcessMaster`: in processes of this machine;
- `papyros.distributed.DistributedMaster`: in slave processes on many machines.

Importing this package loads neither Pyro5 nor any of the masters; their names
below are resolved when they are first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from papyros import environment as _environment  # noqa: F401 - it notes the working directory, which may change
from papyros.current import current_master
from papyros.errors import (
    ClusterError,
    ConfigError,
    GroupNameError,
    GroupTakenError,
    JobTimeout,
    KeyFileError,
    KeyRefusedError,
    MasterClosedError,
    MasterNotFoundError,
    NameServerNotFoundError,
    NoCurrentMasterError,
    NotAJobError,
    PapyrosError,
    PayloadError,
    PayloadTooLargeError,
    PendingJobError,
    RemoteError,
    SlaveLost,
    UnprocessedJobError,
    VersionMismatchError,
)
from papyros.jobs import FunctionJob, Job, job
from papyros.sharing import Shared, shared

if TYPE_CHECKING:
    from papyros.choosing import add_master_option, open_master
    from papyros.distributed import DistributedMaster, LocalCluster
    from papyros.executor import ExecutorMaster, MasterExecutor
    from papyros.master import Master
    from papyros.multiprocess import MultiProcessMaster
    from papyros.multithreaded import MultiThreadedMaster
    from papyros.singlethreaded import SingleThreadedMaster

__version__ = "1.0.0.dev0"

__all__ = [  # noqa: RUF022 - in themes: jobs, masters, errors
    "Job",
    "FunctionJob",
    "job",
    "shared",
    "Shared",
    "Master",
    "current_master",
    "SingleThreadedMaster",
    "MultiThreadedMaster",
    "MultiProcessMaster",
    "DistributedMaster",
    "LocalCluster",
    "MasterExecutor",
    "ExecutorMaster",
    "open_master",
    "add_master_option",
    "PapyrosError",
    "NotAJobError",
    "PendingJobError",
    "UnprocessedJobError",
    "MasterClosedError",
    "NoCurrentMasterError",
    "PayloadError",
    "PayloadTooLargeError",
    "RemoteError",
    "SlaveLost",
    "JobTimeout",
    "ClusterError",
    "ConfigError",
    "GroupNameError",
    "GroupTakenError",
    "MasterNotFoundError",
    "NameServerNotFoundError",
    "KeyFileError",
    "KeyRefusedError",
    "VersionMismatchError",
]

_LAZY = {
    "Master": "papyros.master",
    "SingleThreadedMaster": "papyros.singlethreaded",
    "MultiThreadedMaster": "papyros.multithreaded",
    "MultiProcessMaster": "papyros.multiprocess",
    "DistributedMaster": "papyros.distributed",
    "LocalCluster": "papyros.distributed",
    "MasterExecutor": "papyros.executor",
    "ExecutorMaster": "papyros.executor",
    "open_master": "papyros.choosing",
    "add_master_option": "papyros.choosing",
}

#: Their slaves are processes that are handed sockets, and are found, killed and swept up as POSIX has it.
_POSIX_ONLY = {"MultiProcessMaster", "DistributedMaster", "LocalCluster"}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'papyros' has no attribute {name!r}")
    if name in _POSIX_ONLY and os.name != "posix":
        raise ImportError(
            f"papyros.{name} needs a POSIX system, such as Linux or macOS; MultiThreadedMaster and "
            "SingleThreadedMaster do not"
        )
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
