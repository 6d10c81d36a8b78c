"""Programs and systems that are not as one would like them: nothing hangs, nothing is lost, and errors have words."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

import papyros
from papyros.distributed.lifeline import Part
from papyros.environment import STARTED_IN, search_path
from papyros.mapped import MappedValues
from papyros.store import Held
from tests.contract.jobs_for_tests import Square, end_slave
from tests.support import PATIENCE, processed, refuse_threads


@papyros.job
def large(size):
    return bytes(size)


@contextlib.contextmanager
def default_timeout(seconds):
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(None)


def test_a_default_timeout_of_sockets_is_not_that_of_slaves():
    with default_timeout(0.01), papyros.MultiProcessMaster(1) as master:
        assert master.wait_ready(PATIENCE)
        [slave] = master.status().slaves
        for _ in range(3):
            job = large(20_000_000)
            job.at_most_once = True
            master.addJob(job)
            assert len(master.popProcessedJob(PATIENCE).result) == 20_000_000
        assert [each.name for each in master.status().slaves] == [slave.name]


class GreenSocket(socket.socket):
    """A socket as those of gevent are: its descriptor never blocks, whatever is said to it."""

    def setblocking(self, blocking):
        """Let the descriptor be as it is."""


@pytest.fixture
def green_sockets(monkeypatch):
    make = socket.socketpair

    def make_green(*args):
        pair = []
        for sock in make(*args):
            os.set_blocking(sock.fileno(), False)
            pair.append(GreenSocket(sock.family, sock.type, sock.proto, sock.detach()))
        return tuple(pair)

    monkeypatch.setattr(socket, "socketpair", make_green)


@pytest.mark.usefixtures("green_sockets")
def test_a_slave_waits_for_its_jobs_though_the_sockets_of_its_program_do_not():
    """Otherwise it would end as soon as it has nothing to do, and with the jobs that it was just given."""
    with papyros.MultiProcessMaster(1) as master:
        assert master.wait_ready(PATIENCE)
        [slave] = master.status().slaves
        for number in range(3):
            job = Square(number)
            job.at_most_once = True
            assert processed(master, job).result == number**2
        assert [each.name for each in master.status().slaves] == [slave.name]


@pytest.mark.usefixtures("green_sockets")
def test_a_part_of_a_cluster_waits_for_what_it_is_told_though_the_sockets_of_its_program_do_not(monkeypatch):
    """Otherwise one that starts faster than its program tells it anything would know nothing."""
    waits = []

    def note(*_, pass_fds, **__):
        waits.extend(map(os.get_blocking, pass_fds))
        raise OSError("no process today")

    monkeypatch.setattr(subprocess, "Popen", note)
    with pytest.raises(OSError, match="no process today"):
        Part("a part", "papyros", [])
    assert waits == [True]


def test_a_thread_that_could_not_be_started_is_started_with_the_next_job(monkeypatch):
    with papyros.MultiProcessMaster(1) as master:
        with monkeypatch.context() as patch:
            refuse_threads(patch, "papyros-crew")
            with pytest.raises(RuntimeError, match="can't start"):
                master.addJob(Square(3))
        assert master.numPendingJobs() == 0
        master.addJob(Square(4))
        assert master.popProcessedJob(PATIENCE).result == 16


def test_a_client_whose_threads_cannot_be_started_leaves_nothing_behind(monkeypatch):
    with papyros.LocalCluster(slaves=1) as cluster:
        with monkeypatch.context() as patch:
            refuse_threads(patch, "papyros-receive")
            with pytest.raises(RuntimeError, match="can't start"):
                cluster.master()
        with cluster.master() as master:
            master.addJob(Square(3))
            assert master.popProcessedJob(PATIENCE).result == 9


class RaisingHandler(logging.Handler):
    """Raises whatever it is given."""

    def emit(self, record):
        raise RuntimeError(f"no {record.name}")


@pytest.fixture
def raising_handler():
    handler = RaisingHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


@pytest.mark.usefixtures("raising_handler")
def test_a_handler_of_logs_that_raises_keeps_nobody_from_hearing_of_a_death(tmp_path):
    with papyros.MultiProcessMaster(1) as master:
        master.addJob(end_slave(str(tmp_path), "job", "kill"))
        assert type(master.popProcessedJob(PATIENCE).exception) is papyros.SlaveLost
        master.addJob(Square(3))
        assert master.popProcessedJob(PATIENCE).result == 9


@pytest.mark.usefixtures("raising_handler")
def test_a_handler_of_logs_that_raises_keeps_no_client_from_going_on_without_its_master():
    with papyros.LocalCluster(slaves=1) as cluster, cluster.master(host_after=0.0) as master:
        master.addJob(Square(3))
        assert master.popProcessedJob(PATIENCE).result == 9
        os.kill(cluster.pids["master"], signal.SIGKILL)
        master.addJob(Square(4))
        assert master.popProcessedJob(PATIENCE).result == 16


def test_a_program_whose_folder_was_deleted_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert search_path(["", "/a"]) == [STARTED_IN, "/a"]

    @papyros.job
    def local(number):
        return number + 1

    with papyros.MultiProcessMaster(1) as master:
        master.addJob(local(3))
        assert master.popProcessedJob(PATIENCE).result == 4


def test_clients_of_a_local_cluster_that_were_closed_are_let_go_of():
    with papyros.LocalCluster(slaves=1) as cluster:
        for _ in range(3):
            with cluster.master() as master:
                master.addJob(Square(3))
        del master
        gc.collect()
        assert len(cluster._clients) == 0
        forgotten = cluster.master()
        name = id(forgotten)
        del forgotten
        gc.collect()
        assert [id(client) for client in cluster._clients] == [name], "until it is closed, somebody has to close it"


@pytest.mark.parametrize("executable", [None, ""])
def test_where_nobody_knows_which_program_python_is_that_is_said(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    with papyros.MultiProcessMaster(1) as master:
        master.addJob(Square(3))
        error = master.popProcessedJob(PATIENCE).exception
        assert type(error) is papyros.SlaveLost
        assert "sys.executable" in str(error)
    with pytest.raises(FileNotFoundError, match=r"sys\.executable"):
        Part("a part", "papyros", [])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied"), r".*Permission denied.*has changed its user"),
        (OSError(24, "Too many open files"), r".*Too many open files\)$"),
    ],
)
def test_a_value_that_slaves_cannot_open_is_said_to_be_one(monkeypatch, error, told):
    def refuse(digest, place):
        raise error

    monkeypatch.setattr(Held, "at", refuse)
    values = MappedValues()
    values.offer(b"digest", ["/proc/1/fd/3", 1, 1])
    with pytest.raises(papyros.PayloadError, match=f"cannot be opened by slave processes {told}"):
        values.find(b"digest")
    values.forget(b"digest")
    with pytest.raises(papyros.PayloadError, match="not held here any more"):
        values.find(b"digest")


def test_a_value_that_could_not_be_opened_for_a_moment_is_opened_when_it_is_needed(monkeypatch):
    held = Held.of([b"the value"])

    def refuse(digest, place):
        raise OSError(24, "Too many open files")

    values = MappedValues()
    with monkeypatch.context() as patch:
        patch.setattr(Held, "at", refuse)
        values.offer(held.digest, held.place)
        with pytest.raises(papyros.PayloadError, match="Too many open files"):
            values.find(held.digest)
    assert values.refuses
    assert values.find(held.digest)._held.read(0, 100) == b"the value"
    assert not values.refuses


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_classes_of_a_script_travel_from_processes_that_multiprocessing_has_started(tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing
            import papyros

            class Pair:
                def __init__(self, x):
                    self.x = x

            @papyros.job
            def double(number):
                return Pair(2 * number)

            def child():
                with papyros.MultiProcessMaster(1) as master:
                    master.addJob(double(4))
                    result = master.popProcessedJob().result
                    print(result.x, type(result) is Pair)

            if __name__ == "__main__":
                process = multiprocessing.get_context({method!r}).Process(target=child)
                process.start()
                process.join()
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("8 True\n", "")
