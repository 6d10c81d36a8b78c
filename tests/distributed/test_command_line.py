"""The command line: it teaches, refuses what is wrong in one line, and ends when it is asked to."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

import papyros
from papyros import DistributedMaster
from papyros.cpus import usable_cpus
from papyros.distributed.cli import main
from tests.contract.jobs_for_tests import double, wait_at
from tests.distributed.jobs import starts, stubborn, trace
from tests.distributed.programs import (
    CTRL_C,
    HOST_UP,
    MASTER_UP,
    PART,
    STANDALONE_UP,
    alive,
    elapsed,
    free_port,
    groups,
    processes,
    slaves_of,
    wait_until_gone,
)
from tests.support import at_most, wait_until

pytestmark = pytest.mark.measured

#: How long a part may take to end when it is asked to.
END_SECONDS = 3.0


# What it says -----------------------------------------------------------------------------


def test_help_teaches_the_three_commands(launch):
    program = launch.part("--help", name="help")
    assert program.ended() == 0
    for command in ("pyro5-ns", "python -m papyros.distributed ", "python -m papyros.distributed --slaves=3"):
        assert command in program.text
    for option in ("--group", "--nameserver", "--host", "--port", "--config", "--logging", "--standalone"):
        assert option in program.text
    assert "--lifeline" not in program.text
    assert max(map(len, program.text.splitlines())) <= 100


def test_version(launch):
    program = launch.part("--version")
    assert program.ended() == 0
    assert program.text == f"Papyros {papyros.__version__}\n"


def refusal(capsys, *arguments):
    """Return the line with which the command line refuses its arguments."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line, *rest = captured.err.splitlines()
    assert rest in ([], ["Try --help."]), captured.err
    assert line.isprintable()
    assert line.startswith("python -m papyros.distributed: ")
    return line


@pytest.mark.parametrize("slaves", ["0", "-1", "abc", "1.5", "", " 3", "٣", "10001", "9" * 30])
def test_a_wrong_number_of_slaves_is_refused(slaves, capsys):
    line = refusal(capsys, f"--slaves={slaves}")
    assert "--slaves" in line
    assert repr(slaves) in line or ascii(slaves) in line
    assert "whole number" in line


def test_a_number_of_slaves_beyond_all_bounds_is_refused_in_a_short_line(capsys):
    line = refusal(capsys, f"--slaves={'9' * 5000}")
    assert "whole number" in line
    assert len(line) < 500


@pytest.mark.parametrize("port", ["-1", "65536", "abc", "", "1.5"])
def test_a_wrong_port_is_refused(port, capsys):
    line = refusal(capsys, f"--port={port}")
    assert "--port" in line
    assert repr(port) in line or ascii(port) in line


WRONG_GROUPS = {
    "path": "../../etc/passwd",
    "slash": "a/b",
    "newline": "lab\nrm -rf",
    "megabyte": "x" * (1 << 20),
    "colours": "\x1b[31mred\x1b[0m",
    "nul": "a\0b",
    "space": "my group",
    "letters": "gruppe-ä",
    "dot": ".hidden",
    "dash": "-x",
    "long": "x" * 64,
    "trailing newline": "lab\n",
}


@pytest.mark.parametrize("kind", WRONG_GROUPS)
def test_a_wrong_group_is_refused(kind, capsys):
    line = refusal(capsys, f"--group={WRONG_GROUPS[kind]}")
    assert "group" in line
    assert len(line) < 400


@pytest.mark.parametrize("option", ["--group", "--nameserver"])
def test_an_empty_text_is_refused(option, capsys, launch):
    port = free_port()  # where nothing is: a part that starts all the same has to wait
    program = launch.part("--nameserver", f"localhost:{port}", f"{option}=")
    wait_until(lambda: program.text, "any words")
    assert program.ended(1) == 2
    assert option in program.text


WRONG_ADDRESSES = ["a:b:c", "host:99999", "host:0", ":9090", "http://lab/", "two words", "a\nb", "\x1b[31m", "host:"]


@pytest.mark.parametrize("address", WRONG_ADDRESSES)
def test_a_wrong_name_server_is_refused(address, capsys):
    line = refusal(capsys, f"--nameserver={address}")
    assert "name server" in line


@pytest.mark.parametrize(("option", "value"), [("--group", "a/b"), ("--nameserver", "a:b:c")])
def test_the_option_is_named_whose_value_is_refused(option, value, capsys):
    assert option in refusal(capsys, f"{option}={value}")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bogus"], "--bogus"),
        (["--slave=3"], "--slave=3"),
        (["--grou=x"], "--grou=x"),
        (["--log"], "--log"),
        (["extra"], "extra"),
        (["--slaves", "3", "4"], "4"),
        (["--group"], "--group"),
        (["--config"], "--config"),
    ],
)
def test_what_is_no_option_is_refused(arguments, named, capsys):
    assert named in refusal(capsys, *arguments)


def test_a_wrong_command_line_ends_a_real_process_with_exit_code_2(launch):
    program = launch.part("--slaves=none")
    assert program.ended() == 2
    assert "--slaves" in program.text
    assert "Traceback" not in program.text


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_cannot_be_listened_on_is_an_error(host, launch, names):
    program = launch.part(f"--host={host}", f"--nameserver={names}")
    assert program.ended() == 1
    assert f"cannot listen on {host}" in program.text
    assert len(program.text.splitlines()) == 1


# What it does -----------------------------------------------------------------------------


def test_slaves_without_a_number_are_as_many_as_there_are_usable_cpus(launch, names, group):
    launch.master(group, names)
    arguments = [f"--group={group}", f"--nameserver={names}", "--slaves"]
    every = launch.part(*arguments, name="host")
    every.wait_for(HOST_UP)
    cpu = min(os.sched_getaffinity(0))
    on_one = f"import os, sys; os.sched_setaffinity(0, {{{cpu}}}); os.execv(sys.argv[1], sys.argv[1:])"
    one = launch(sys.executable, "-c", on_one, *PART, *arguments, name="one")
    one.wait_for("1 slave serves")
    wait_until(lambda: len(slaves_of(one.pid)) == 1, "one slave")
    assert len(slaves_of(every.pid)) == usable_cpus()


def test_logging_shows_more(launch, names, group):
    master = launch.master(group, names)
    quiet = launch.host(group, names)
    chatty = launch.host(group, names, 1, "--logging")
    master.end(signal.SIGKILL)
    for host in (quiet, chatty):
        host.wait_for("waiting for a master")
    assert re.search(r"papyros\.\S+ INFO .*broke", chatty.text)
    assert "INFO" not in quiet.text


def test_logging_shows_more_of_a_standalone_cluster(launch, group):
    arguments = ["--standalone", "--slaves=1", f"--group={group}", f"--nameserver=localhost:{free_port()}"]
    cluster = launch.part(*arguments, "--logging")
    cluster.wait_for(STANDALONE_UP)
    cluster.end()
    assert " INFO " in cluster.text


def test_words_come_through_a_pipe_at_once(read_once, names, group):
    line = read_once(f"--group={group}", f"--nameserver={names}")
    assert MASTER_UP in line


def test_standalone_serves_a_group_of_clients(launch, group, mark):
    names = f"localhost:{free_port()}"
    cluster = launch.part("--standalone", "--slaves=3", f"--group={group}", f"--nameserver={names}", name="all")
    cluster.wait_for(STANDALONE_UP)
    assert "3 slaves" in cluster.text
    assert sum("papyros.slave" in command for command in processes(mark).values()) == 3
    with DistributedMaster(group, names) as one, DistributedMaster(group, names) as other:
        for client, factor in ((one, 1), (other, 10)):
            for number in range(20):
                client.addJob(double(factor * number))
        assert sorted(job.result for job in one.processedJobs(30)) == list(range(0, 40, 2))
        assert sorted(job.result for job in other.processedJobs(30)) == list(range(0, 400, 20))
    with at_most(END_SECONDS):
        assert cluster.end() == 0
    assert not processes(mark)


def test_standalone_says_when_its_port_is_taken(launch, names):
    cluster = launch.part("--standalone", "--slaves=1", f"--nameserver={names}")
    assert cluster.ended() == 1
    assert "cannot listen on" in cluster.text
    assert "Traceback" not in cluster.text


# How it ends ------------------------------------------------------------------------------

PARTS = ["master", "host", "standalone", "waiting master", "waiting host"]


def start_part(kind, launch, names, group, terminal=False):
    """Start a part, and wait until it says that it is up, or what it waits for."""
    nowhere = f"localhost:{free_port()}"
    arguments, words = {
        "master": ([f"--nameserver={names}"], MASTER_UP),
        "host": ([f"--nameserver={names}", "--slaves=2"], HOST_UP),
        "standalone": ([f"--nameserver={nowhere}", "--slaves=2", "--standalone"], STANDALONE_UP),
        "waiting master": ([f"--nameserver={nowhere}"], "waiting for a name server"),
        "waiting host": ([f"--nameserver={nowhere}", "--slaves=2"], "waiting for a name server"),
    }[kind]
    if kind == "host":
        launch.master(group, names)
    program = launch.part(f"--group={group}", *arguments, name=kind, terminal=terminal)
    program.wait_for(words)
    return program


def clean_end(kind, program, names, group, mark):
    assert "Traceback" not in program.text
    assert "has ended" in program.text or "have ended" in program.text or "waiting" in kind or kind == "standalone"
    left = [command for command in processes(mark).values() if kind != "host" or "--slaves" in command]
    assert not [command for command in left if kind != "host" or "slave" in command]
    assert (group in groups(names)) == (kind == "host")  # the master that it served goes on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", PARTS)
def test_a_signal_ends_a_part_cleanly(kind, number, launch, names, group, mark):
    program = start_part(kind, launch, names, group)
    with at_most(END_SECONDS):
        assert program.end(number) == 0
    clean_end(kind, program, names, group, mark)


@pytest.mark.parametrize("kind", ["master", "host"])
def test_a_signal_ends_a_part_whichever_thread_it_reaches(kind, launch, names, group):
    """The system may choose any thread; and now and then the main one is not yet waiting when it gets the signal."""
    program = start_part(kind, launch, names, group)
    threads = {int(folder.name) for folder in Path(f"/proc/{program.pid}/task").iterdir()} - {program.pid}
    os.kill(max(threads), signal.SIGTERM)  # a number of a thread means its process, but that thread first
    assert program.ended(2) == 0


@pytest.mark.parametrize("kind", ["master", "host", "standalone"])
def test_ctrl_c_at_a_terminal_ends_a_part_cleanly(kind, launch, names, group, mark):
    program = start_part(kind, launch, names, group, terminal=True)
    program.press(CTRL_C)
    with at_most(END_SECONDS):
        assert program.ended() == 0
    clean_end(kind, program, names, group, mark)


def test_a_second_signal_ends_a_part_at_once(launch, names, group, gates):
    launch.master(group, names)
    host = launch.host(group, names)
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(stubborn(gate.path))  # a slave that does not end when asked to is waited for
        gate.wait_for_arrivals()
        slaves = slaves_of(host.pid)
        started = time.monotonic()
        while host.running:
            host.send(signal.SIGINT)  # two that come at once would be one
            assert elapsed(started) < 0.8
            time.sleep(0.01)
        assert host.ended() == 128 + signal.SIGINT
        wait_until_gone(slaves, 1.0)
        client.cancelAllJobs()


def test_a_host_ends_in_bounded_time_though_a_slave_does_not_want_to(launch, names, group, gates):
    launch.master(group, names)
    host = launch.host(group, names)
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(stubborn(gate.path))
        gate.wait_for_arrivals()
        slaves = slaves_of(host.pid)
        with at_most(END_SECONDS):
            assert host.end(signal.SIGINT) == 0
        assert not any(map(alive, slaves))


def test_sigterm_lets_a_host_finish_what_runs_and_give_back_the_rest(launch, names, group, gates, tmp_path):
    launch.master(group, names)
    first = launch.host(group, names)
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "running", gate.path))
        gate.wait_for_arrivals()
        client.addJob(trace(str(tmp_path), "waiting"))
        first.send(signal.SIGTERM)
        first.wait_for("draining")
        gate.open()
        assert client.popProcessedJob(30).result == "running"
        assert first.ended(END_SECONDS) == 0
        assert starts(tmp_path, "waiting") == []
        launch.host(group, names)
        assert client.popProcessedJob(30).result == "waiting"
    assert len(starts(tmp_path, "running")) == len(starts(tmp_path, "waiting")) == 1


def test_sigterm_waits_for_what_runs_only_so_long(launch, names, group, gates):
    launch.master(group, names)
    host = launch.host(group, names, 1, "--drain=0.3")
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(wait_at(gate.path))
        gate.wait_for_arrivals()
        with at_most(END_SECONDS):
            assert host.end() == 0
        assert client.numPendingJobs() == 1


@pytest.mark.parametrize("kind", ["master", "host"])
def test_a_part_ends_in_bounded_time_though_the_others_do_not_answer(kind, launch, group):
    names = launch.nameserver()
    master = launch.master(group, names.address)
    host = launch.host(group, names.address)
    frozen, part = ([names, host], master) if kind == "master" else ([names, master], host)
    for program in frozen:
        program.send(signal.SIGSTOP)
    with at_most(8):
        assert part.end() == 0


# Configuration files ----------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "papyros.toml"
        path.write_text(text)
        return path

    return write


def test_a_configuration_file_sets_what_the_command_line_does_not(launch, names, group, config):
    path = config(f'group = "{group}"\nnameserver = "{names}"\nslaves = 2\n\n[pyro]\nMAX_RETRIES = 1\n')
    launch.master(group, names)
    host = launch.part(f"--config={path}")
    host.wait_for(f"2 slaves serve the group '{group}'")
    launch.master(f"{group}.other", names)
    other = launch.part(f"--config={path}", f"--group={group}.other", "--slaves=1")
    other.wait_for(f"1 slave serves the group '{group}.other'")


def test_a_configuration_file_sets_items_of_pyro(launch, config):
    path = config('[pyro]\nSERVERTYPE = "multiplex"\n')
    program = launch.part(f"--config={path}")
    assert program.ended() == 2
    assert "SERVERTYPE" in program.text
    assert "'multiplex'" in program.text
    assert "Traceback" not in program.text


def test_items_of_pyro_hold_for_a_standalone_cluster_too(launch, config):
    path = config('[pyro]\nSERVERTYPE = "multiplex"\n')
    program = launch.part(f"--config={path}", "--standalone", "--slaves=1", f"--nameserver=localhost:{free_port()}")
    wait_until(lambda: STANDALONE_UP in program.text or not program.running, "a beginning or an end")
    assert "SERVERTYPE" in program.text


def test_pyro_items_may_make_connections_impatient(launch, names, group, config):
    """Pyro's COMMTIMEOUT is no reason to break a call that waits for work."""
    path = config("[pyro]\nCOMMTIMEOUT = 0.3\n")
    master = launch.master(group, names, f"--config={path}")
    host = launch.host(group, names, 1, f"--config={path}", "--logging")
    with DistributedMaster(group, names, host_master=False) as client:
        time.sleep(1.0)  # several times as long as a connection may be silent, by that item
        client.addJob(double(1))
        assert client.popProcessedJob(10).result == 2
    assert master.running
    assert host.text.count(HOST_UP) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('group = "lab\n', ["line 1"]),
        ("group = 1\ngroup = 2\n", ["line 2"]),
        ('\n\ngruop = "lab"\n', ["line 3", "'gruop'", "did you mean 'group'"]),
        ("[papyros]\nslaves = 3\n", ["line 1", "'papyros'", "there are "]),
        ('slaves = "three"\n', ["line 1", "'slaves'", "whole number", "'three'"]),
        ("slaves = 1.5\n", ["line 1", "'slaves'", "whole number"]),
        ("slaves = true\n", ["line 1", "'slaves'", "whole number"]),
        ("slaves = 0\n", ["'slaves'"]),
        ("slaves = -4\n", ["'slaves'"]),
        ("\ngroup = 7\n", ["line 2", "'group'", "text"]),
        ('logging = "yes"\n', ["line 1", "'logging'", "true or false"]),
        ("[pyro]\n\nCOMMTIMOUT = 3.0\n", ["line 3", "'COMMTIMOUT'", "did you mean 'COMMTIMEOUT'"]),
        ('[pyro]\nCOMMTIMEOUT = "soon"\n', ["line 2", "'COMMTIMEOUT'", "a number"]),
        ("pyro = 3\n", ["line 1", "'pyro'", "table"]),
    ],
)
def test_what_is_wrong_in_a_configuration_file_is_named(text, told, config, capsys):
    path = config(text)
    line = refusal(capsys, f"--config={path}")
    for words in (str(path), *told):
        assert words in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\nslaves = 0\n", ["line 2", "'slaves'"]),
        ("\nslaves = 10001\n", ["line 2", "'slaves'"]),
        ("\nport = 70000\n", ["line 2", "'port'"]),
        ("\nport = -1\n", ["line 2", "'port'"]),
        ("\nnameserver = 'two words'\n", ["line 2", "'nameserver'"]),
        ("\nnameserver = ''\n", ["line 2", "'nameserver'"]),
    ],
)
def test_a_wrong_value_in_a_configuration_file_is_named_with_its_line(text, told, config, capsys):
    # A wrong group comes second, so that nothing is started where the first is not noticed.
    path = config(text + "group = 'no/group'\n")
    line = refusal(capsys, f"--config={path}")
    for words in (str(path), *told):
        assert words in line


@pytest.mark.parametrize("item", ['SERIALIZER = "nonsense"', "THREADPOOL_SIZE = 1", "SSL = true"])
def test_a_value_that_pyro_refuses_is_named(item, config, launch):
    path = config(f"[pyro]\n{item}\n")
    program = launch.part(f"--config={path}", f"--nameserver=localhost:{free_port()}")
    assert program.ended() == 2
    assert item.partition(" ")[0] in program.text
    assert "Traceback" not in program.text


def test_a_configuration_file_that_cannot_be_read_is_named(tmp_path, capsys):
    missing = tmp_path / "missing.toml"
    assert str(missing) in refusal(capsys, f"--config={missing}")
    assert str(tmp_path) in refusal(capsys, f"--config={tmp_path}")
    latin = tmp_path / "latin.toml"
    latin.write_bytes('group = "gruppe-ä"'.encode("latin-1"))
    assert str(latin) in refusal(capsys, f"--config={latin}")
