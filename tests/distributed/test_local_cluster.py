"""A cluster of this machine, and a crew of slaves, end with the program that started them, however that ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from papyros import (
    ClusterError,
    DistributedMaster,
    GroupNameError,
    KeyFileError,
    LocalCluster,
    MasterClosedError,
    MultiProcessMaster,
)
from papyros.distributed import lifeline
from papyros.distributed.cli import HOST_FILES, SLAVE_FILES
from papyros.distributed.daemon import MAX_CONNECTIONS
from papyros.distributed.keys import ENVIRONMENT
from papyros.distributed.naming import NameServer, parse_address
from tests.contract.jobs_for_tests import double, wait_at, where
from tests.distributed.programs import CTRL_C, alive, free_port, groups, processes, slaves_of, wait_until_gone
from tests.support import PATIENCE, at_most, security, wait_until

#: After a program was killed, all that it started is gone within this time.
ORPHAN_SECONDS = 2.0

#: A part that is being started looks for its program only when it has imported what it needs, which may take so long.
IMPORT_SECONDS = 10.0


# In a program that goes on ----------------------------------------------------------------


@pytest.mark.alone
def test_a_cluster_is_ready_when_the_constructor_returns():
    with LocalCluster(slaves=2) as cluster, cluster.master() as client:
        assert groups(cluster.nameserver) == [cluster.group]
        assert len(slaves_of(cluster.pids["slave host"])) == 2
        with at_most(0.5):
            client.addJob(double(21))
            assert client.popProcessedJob().result == 42


def test_a_cluster_has_a_key_that_goes_with_it_where_none_can_be_kept(monkeypatch, tmp_path, caplog):
    """In a container, or on a node of a cluster, who runs a program may have no home."""
    no_home = tmp_path / "file"
    no_home.write_text("")
    for name in "HOME", "XDG_CONFIG_HOME", "APPDATA", "USERPROFILE":
        monkeypatch.setenv(name, str(no_home))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with LocalCluster(slaves=1) as cluster, cluster.master() as client:
        [key] = temporary.glob("*/key")
        assert f"a key that goes with it, {key}, since no key can be made at {no_home}" in caplog.text
        client.addJob(double(21))
        assert client.popProcessedJob(30).result == 42
    assert not list(temporary.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(no_home))
    with pytest.raises(KeyFileError, match="no key can be made at"):
        LocalCluster()


def test_a_cluster_has_several_clients_which_close_with_it():
    with LocalCluster(slaves=1) as cluster:
        clients = [cluster.master() for _ in range(3)]
        for number, client in enumerate(clients):
            client.addJob(double(number))
        assert [client.popProcessedJob(30).result for client in clients] == [0, 2, 4]
        clients[0].close()
    for client in clients:
        with pytest.raises(MasterClosedError):
            client.addJob(double(1))


@pytest.mark.parametrize(
    ("part", "follows"),
    [
        ("name server", "nobody else can join"),
        ("master", "hosts the next one"),
        ("slave host", "until other slaves come"),
    ],
)
def test_a_part_that_dies_is_told_of(caplog, part, follows):
    with LocalCluster(slaves=1) as cluster:
        os.kill(cluster.pids[part], signal.SIGKILL)
        wait_until(lambda: caplog.records, "a warning")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert f"the {part} of the local cluster was killed by SIGKILL, and is not started anew" in record.getMessage()
    assert follows in record.getMessage()
    assert cluster.failed_parts == [part]


def test_parts_that_are_asked_to_end_are_not_told_of(caplog):
    with LocalCluster(slaves=1) as cluster:
        cluster.drain(PATIENCE)
        wait_until_gone([cluster.pids["slave host"]], ORPHAN_SECONDS)
    assert not caplog.records
    assert not cluster.failed_parts


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux tells of other processes")
def test_master_and_slave_host_allow_themselves_as_many_open_files_as_they_need():
    """Of the 1,024 that are usual, a slave host could not start 150 slaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))  # as most systems have it
    try:
        cluster = LocalCluster(slaves=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with cluster:
        limits = {part: resource.prlimit(pid, resource.RLIMIT_NOFILE) for part, pid in cluster.pids.items()}
    for part, wanted in (("master", 2 * MAX_CONNECTIONS), ("slave host", HOST_FILES + SLAVE_FILES)):
        bounds = [bound for bound in (wanted, hard) if bound != resource.RLIM_INFINITY]
        assert limits[part] == (min(bounds), hard)
    assert limits["name server"] == (min(soft, 1024), hard), "it needs no more"
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard), "the program's own are its own affair"


def test_a_folder_of_our_name_where_a_program_runs_is_not_taken_for_papyros(tmp_path):
    """As in a checkout: the program does not import it, since it runs from elsewhere, and so slaves do not."""
    (tmp_path / "here" / "papyros").mkdir(parents=True)
    (tmp_path / "here" / "papyros" / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    (tmp_path / "program.py").write_text(
        "import papyros\n\n"
        "@papyros.job\n"
        "def found():\n    import papyros\n    return papyros.__file__\n\n"
        "with papyros.LocalCluster(slaves=1) as cluster, cluster.master() as client:\n"
        "    with papyros.MultiProcessMaster(1) as processes:\n"
        "        for master in (client, processes):\n"
        "            master.addJob(found())\n"
        "            print(master.popProcessedJob(30).result == papyros.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == "True\nTrue\n", done.stderr


@pytest.mark.parametrize(("port", "error"), [(-1, ValueError), (65536, ValueError), ("9090", TypeError)])
def test_a_wrong_port_is_refused_before_anything_is_started(port, error):
    with pytest.raises(error, match="port"):
        LocalCluster(slaves=1, port=port)
    with pytest.raises(error, match="port"):
        DistributedMaster(port=port)


def test_options_in_one_string_are_refused_before_anything_is_started():
    with pytest.raises(TypeError, match="a list of strings"):
        LocalCluster(slaves=1, options="--lease=2")


def test_parts_leave_no_socket_open(monkeypatch, capfd):
    monkeypatch.setenv("PYTHONWARNINGS", "default::ResourceWarning")
    LocalCluster(slaves=1).close()
    assert "ResourceWarning" not in capfd.readouterr().err


def test_a_closed_client_does_not_blame_the_cluster_for_what_it_cannot_cancel(caplog):
    with LocalCluster(slaves=1) as cluster:
        client = cluster.master()
        client.addJob(double(21))
        client.popProcessedJob()
        client.close()
        client.cancelAllJobs()
    assert not caplog.records


def test_a_wrong_option_is_said_by_the_part_and_named_in_the_error(capfd):
    with pytest.raises(ClusterError, match=r"the master of the local cluster ended with exit code 2"):
        LocalCluster(slaves=1, options=["--bogus"])
    assert "unrecognized arguments: --bogus" in capfd.readouterr().err


def test_close_ends_all_parts_and_slaves(mark):
    cluster = LocalCluster(slaves=2)
    wait_until(lambda: len(processes(mark)) == 6, "three parts, two slaves, and the sweeper that watches over them")
    with at_most(3):
        cluster.close()
    assert not processes(mark)
    cluster.close()  # which is harmless
    with pytest.raises(MasterClosedError):
        cluster.master()


def test_close_with_pending_jobs_takes_bounded_time(mark, gates):
    gate = gates()
    cluster = LocalCluster(slaves=2)
    client = cluster.master()
    for number in range(1000):
        client.addJob(wait_at(gate.path, number))
    gate.wait_for_arrivals(2)
    with at_most(5):
        cluster.close()
    assert not processes(mark)


@pytest.mark.parametrize("part", ["master", "slave host", "name server"])
def test_close_takes_bounded_time_though_a_part_does_not_answer(part, mark, monkeypatch):
    monkeypatch.setattr(lifeline, "END_SECONDS", 0.5)
    cluster = LocalCluster(slaves=1)
    client = cluster.master()
    client.addJob(double(1))
    assert client.popProcessedJob(30).result == 2
    os.kill(cluster.pids[part], signal.SIGSTOP)
    with at_most(6):
        cluster.close()
    # The part was killed: the sweeper of a slave host has something to do, and goes then.
    wait_until(lambda: not processes(mark), "an end to all processes", ORPHAN_SECONDS)


def test_a_port_that_is_taken_is_an_error_in_words(names, mark, capfd):
    port = parse_address(names).port
    with pytest.raises(ClusterError, match="name server of the local cluster ended with exit code 1"):
        LocalCluster(slaves=1, host="localhost", port=port)
    assert f"a name server cannot listen on localhost:{port}" in capfd.readouterr().err
    assert not processes(mark)


def test_a_port_of_ones_own(mark):
    port = free_port()
    with LocalCluster(slaves=1, port=port) as cluster:
        assert cluster.nameserver == f"127.0.0.1:{port}"
        assert cluster.address != cluster.nameserver


def test_an_address_that_cannot_be_listened_on_is_an_error(mark):
    with pytest.raises(ClusterError):
        LocalCluster(slaves=1, host="192.0.2.1")
    assert not processes(mark)


@pytest.mark.parametrize(("slaves", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_wrong_number_of_slaves_is_refused(slaves, error, mark):
    with pytest.raises(error, match="slave"):
        LocalCluster(slaves=slaves)
    assert not processes(mark)


def test_a_wrong_group_is_refused(mark):
    with pytest.raises(GroupNameError):
        LocalCluster(slaves=1, group="../x")
    assert not processes(mark)


def test_two_clusters_live_side_by_side():
    with LocalCluster(slaves=1) as one, LocalCluster(slaves=1) as other:
        for cluster in (one, other):
            with cluster.master() as client:
                client.addJob(where())
                pid, _ = client.popProcessedJob(30).result
                assert slaves_of(cluster.pids["slave host"]) == [pid]


def test_a_slave_host_that_is_killed_takes_its_slaves_along():
    with LocalCluster(slaves=2) as cluster:
        slaves = slaves_of(cluster.pids["slave host"])
        os.kill(cluster.pids["slave host"], signal.SIGKILL)
        wait_until_gone(slaves, ORPHAN_SECONDS)


# In a program that ends -------------------------------------------------------------------

CLUSTER = """
    import sys
    from papyros import LocalCluster
    from tests.contract.jobs_for_tests import double, nap

    cluster = LocalCluster(slaves=2)
    master = cluster.master()
"""

CREW = """
    import sys
    from papyros import MultiProcessMaster
    from tests.contract.jobs_for_tests import double, nap

    master = MultiProcessMaster(2)
"""

BUSY = """
    for number in range(10):
        master.addJob(double(number))
    results = [job.result for job in iter(master.popProcessedJob, None)]
    assert sorted(results) == list(range(0, 20, 2))
    for number in range(10):
        master.addJob(nap(60))
    print("busy", flush=True)
"""

ENDINGS = {
    "exit without close": ("", 0),
    "exit with close": ("    master.close()\n", 0),
    "exception": ("    raise ValueError('nobody expects this')\n", 1),
    "sys.exit": ("    sys.exit(7)\n", 7),
    "hard exit": ("    __import__('os')._exit(3)\n", 3),
    "thread": ("    __import__('threading').Thread(target=master.popProcessedJob, args=(0.5,)).start()\n", 0),
}

#: With how many other processes a program of each kind runs: parts, slaves, and a sweeper.
KINDS = {"cluster": (CLUSTER, 6), "crew": (CREW, 3)}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_program_that_ends(kind, ending, launch, mark):
    start, _ = KINDS[kind]
    more, code = ENDINGS[ending]
    program = launch.script(start + BUSY + more)
    program.wait_for("busy")
    with at_most(10):
        assert program.ended() == code
    wait_until_gone(list(processes(mark)), ORPHAN_SECONDS)
    lines = program.text.splitlines()
    assert lines[0] == "busy"
    assert ("Traceback (most recent call last):" in lines) == (ending == "exception")


def started(kind, launch, mark, terminal=False):
    """Start a program with a busy cluster or crew; return it, and the numbers of all the other processes."""
    start, others = KINDS[kind]
    program = launch.script(start + BUSY + "    master.popProcessedJob()\n", terminal=terminal)
    program.wait_for("busy")
    # A crew starts its sweeper once its slaves are ready and fed.
    wait_until(lambda: len(processes(mark)) == others + 1, f"{others} processes beside the program")
    return program, [pid for pid in processes(mark) if pid != program.pid]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_program_that_is_killed(kind, launch, mark):
    program, pids = started(kind, launch, mark)
    assert program.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until_gone(pids, ORPHAN_SECONDS)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system tells of the end of children only")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_program_that_is_killed_while_a_fork_of_it_lives_on(kind, launch, mark):
    """The fork has all that the program had open, and so all by which others would notice its end."""
    start, others = KINDS[kind]
    fork = """
    import os, time
    if (fork := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    print(f"fork {fork}", flush=True)
    master.popProcessedJob()
"""
    program = launch.script(start + BUSY + fork)
    program.wait_for("fork")
    wait_until(lambda: len(processes(mark)) == others + 2, f"{others} processes beside the program and its fork")
    [fork_pid] = [int(line.split()[1]) for line in program.text.splitlines() if line.startswith("fork")]
    pids = [pid for pid in processes(mark) if pid not in (program.pid, fork_pid)]
    try:
        os.kill(program.pid, signal.SIGKILL)
        wait_until_gone(pids, ORPHAN_SECONDS)
        assert alive(fork_pid)
    finally:
        os.kill(fork_pid, signal.SIGKILL)
        program.ended()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_program_that_is_terminated(kind, launch, mark):
    program, pids = started(kind, launch, mark)
    assert program.end(signal.SIGTERM) == -signal.SIGTERM
    wait_until_gone(pids, ORPHAN_SECONDS)


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_at_a_terminal_ends_the_program_and_all_that_it_started(kind, launch, mark):
    program, pids = started(kind, launch, mark, terminal=True)
    program.press(CTRL_C)
    with at_most(5):
        assert program.ended() == -signal.SIGINT
    wait_until_gone(pids, ORPHAN_SECONDS)
    # One traceback, that of the program: neither parts nor slaves heard of the key.
    assert program.text.count("Traceback") == 1
    assert program.text.count("KeyboardInterrupt") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_catches_ctrl_c_goes_on_with_all_of_its_slaves(kind, launch, mark):
    start, _ = KINDS[kind]
    # Again and again: Python does not notice a signal that comes just when a sleep begins, and lets other threads on.
    more = """
    print("ready", flush=True)
    try:
        while True:
            __import__("time").sleep(0.1)
    except KeyboardInterrupt:
        pass
    for number in range(10):
        master.addJob(double(number))
    print(sum(job.result for job in iter(master.popProcessedJob, None)), flush=True)
    """
    program = launch.script(start + "    master.addJob(double(1)); master.popProcessedJob()\n" + more, terminal=True)
    program.wait_for("ready")
    wait_until(lambda: len(processes(mark)) == KINDS[kind][1] + 1, "all of its processes, the sweeper too")
    program.press(CTRL_C)
    program.wait_for("90")
    assert program.ended() == 0
    assert "Traceback" not in program.text


def test_the_parts_of_a_cluster_end_when_their_program_is_killed_while_they_start(launch, mark):
    program = launch.script(CLUSTER)
    wait_until(lambda: len(processes(mark)) >= 2, "a first part")
    program.end(signal.SIGKILL)
    wait_until(lambda: not processes(mark), "an end to all parts", IMPORT_SECONDS + ORPHAN_SECONDS)


def test_a_forked_child_that_ends_leaves_the_cluster_of_its_parent_alone(launch, mark):
    program = launch.script(
        CLUSTER
        + """
    import os
    from tests.support import fork
    child = fork()
    if child == 0:
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    master.addJob(double(21))
    print(master.popProcessedJob().result)
    """
    )
    assert program.ended() == 0
    assert program.text == "42\n"
    assert not processes(mark)


def test_a_name_server_of_a_cluster_outlives_requests_of_strangers():
    with LocalCluster(slaves=1) as cluster:
        names = NameServer(parse_address(cluster.nameserver), security())
        assert names.lookup("nobody") is None
        assert names.groups() == [cluster.group]


def test_a_multi_process_master_is_gone_with_its_slaves_when_it_is_closed(mark):
    with MultiProcessMaster(2) as master:
        master.addJob(double(1))
        assert master.popProcessedJob(30).result == 2
        wait_until(lambda: len(processes(mark)) == 3, "two slaves and a sweeper")
        pids = list(processes(mark))
        started = time.monotonic()
    assert time.monotonic() - started < 2
    assert not any(map(alive, pids))


def test_a_part_that_dies_has_failed_also_where_its_exit_code_is_not_kept(launch):
    """A program that ignores SIGCHLD, or was started by one that does, is told of no exit codes."""
    program = launch.script("""
        import os, signal, time
        from papyros import ClusterError, LocalCluster
        from tests.support import wait_until

        if __name__ == "__main__":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            with LocalCluster(1) as cluster:
                os.kill(cluster.pids["master"], signal.SIGKILL)
                wait_until(lambda: cluster.failed_parts == ["master"], "word of the death")
            try:
                LocalCluster(1, options=["--port=99999"])
            except ClusterError as error:
                print(error)
    """)
    assert program.ended() == 0
    assert "has ended (how is not known, since this program ignores SIGCHLD), and is not started anew" in program.text
    assert "the master of the local cluster has ended (how is not known" in program.text
    assert "exit code" not in program.text
