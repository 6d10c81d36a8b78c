"""Digests of all files under a folder, as a table sorted by path: digest, size in bytes, path.

Symbolic links are not followed. What cannot be read is shown with the reason in
the place of the digest, and makes the exit code 1, as with sha256sum.

    python examples/digests.py                        # Python's standard library
    python examples/digests.py --master processes ~/pictures
"""

from __future__ import annotations

import argparse
import hashlib
import os
import stat
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator

import choose

import papyros


class Digest(papyros.Job):
    """The digest of one file, and its size."""

    def __call__(self, path: str, algorithm: str) -> tuple[str, int]:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, algorithm).hexdigest()
            return digest, file.tell()


def files_under(folder: str, complain: Callable[[OSError], object]) -> Iterator[str]:
    """Yield the paths of all regular files under a folder; complain about subfolders that cannot be read."""
    for parent, _, names in os.walk(folder, onerror=complain):
        for name in names:
            path = os.path.join(parent, name)
            try:
                if stat.S_ISREG(os.lstat(path).st_mode):
                    yield path
            except OSError as error:
                complain(error)


class Table:
    """Rows as they are known, in the order of their paths.

    Args:
        folder: what the shown paths are relative to.
        errors: what could not be listed; each is shown when its place in the order comes.
    """

    def __init__(self, folder: str, errors: list[OSError]) -> None:
        self.folder = folder
        self.files = self.size = self.unreadable = 0
        self._errors = sorted(errors, key=lambda error: str(error.filename), reverse=True)

    def add(self, job: papyros.Job) -> None:
        path = job.args[0]
        while self._errors and self._errors[-1].filename < path:
            self._add_error(self._errors[-1].filename, self._errors.pop())
        if job.exception is not None:
            self._add_error(path, job.exception)
            return
        digest, size = job.result
        self.files += 1
        self.size += size
        self._show(digest, size, path)

    def finish(self) -> None:
        while self._errors:
            self._add_error(self._errors[-1].filename, self._errors.pop())

    def _add_error(self, path: str, error: BaseException) -> None:
        self.unreadable += 1
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._show(f"{type(error).__name__}: {reason}", "-", path)

    def _show(self, digest: str, size: int | str, path: str) -> None:
        print(f"{digest}  {size:>12}  {os.path.relpath(path, self.folder)}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "folder",
        nargs="?",
        default=sysconfig.get_paths()["stdlib"],
        help="default: Python's standard library",
    )
    parser.add_argument("--algorithm", type=algorithm, default="sha256", help="default: sha256")
    parser.add_argument("--limit", type=choose.whole_number(1, 10**9), metavar="N", help="only the first N files")
    choose.add_progress_option(parser)
    choose.add_master_options(parser, default="threads")
    options = parser.parse_args(arguments)
    if not os.path.isdir(options.folder):
        parser.error(f"{options.folder!r} is no folder")
    return options


def algorithm(text: str) -> str:
    known = sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))
    if text not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(known)}")
    return text


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr] - paths are bytes at heart
    folder = os.path.abspath(options.folder)
    errors: list[OSError] = []
    paths = sorted(files_under(folder, errors.append))[: options.limit]
    progress = choose.wants_progress(options)
    table = Table(folder, errors)
    started = time.perf_counter()
    with choose.open_master_of(options) as master:
        jobs = [Digest(path, options.algorithm) for path in paths]
        processed = master.execute(jobs, ordered=True, progress=progress)
        # A bar and a table would write over each other: the table waits for the end of the bar.
        for job in list(processed) if progress else processed:
            table.add(job)
        seconds = time.perf_counter() - started
    table.finish()
    sys.stdout.flush()
    megabytes = table.size / 1e6
    print(
        f"{table.files} files, {megabytes:.1f} MB, {seconds:.2f} s, {megabytes / seconds:.1f} MB/s; "
        f"{table.unreadable} unreadable",
        file=sys.stderr,
    )
    return 1 if table.unreadable else 0


if __name__ == "__main__":
    choose.run(main)
