"""The command line: it teaches, refuses what is wrong in one line, and ends when it is asked to."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

import papyros
from papyros import DistributedMaster
from papyros.cpus import usable_cpus
from tests.contract.jobs_for_tests import double
from tests.distributed.jobs import trace
from tests.distributed.programs import (
    HOST_UP,
    MASTER_UP,
    PART,
    STANDALONE_UP,
    children_of,
    free_port,
    groups,
    processes,
    refusal,
    slaves_of,
)
from tests.support import PATIENCE, at_most, wait_until

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


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_package_itself_says_what_there_is(launch, arguments):
    program = launch(sys.executable, "-m", "papyros", *arguments, name="papyros")
    assert program.ended() == 0
    manual = Path(papyros.__file__).parents[1] / "docs" / "quickstart.md"
    for words in (f"Papyros {papyros.__version__}", "pyro5-ns", "python -m papyros.distributed --status", str(manual)):
        assert words in program.text
    wrong = launch(sys.executable, "-m", "papyros", "--slaves", name="wrong")
    assert wrong.ended() == 2


def test_version(launch):
    program = launch.part("--version")
    assert program.ended() == 0
    assert program.text == f"Papyros {papyros.__version__}\n"


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


@pytest.mark.parametrize("option", ["--lease", "--grace", "--drain"])
@pytest.mark.parametrize("seconds", ["0", "-1", "abc", "", "nan", "inf", "1s", "1,5"])
def test_a_wrong_number_of_seconds_is_refused(option, seconds, capsys):
    line = refusal(capsys, f"{option}={seconds}")
    assert option in line
    assert repr(seconds) in line
    assert "number of seconds above 0" in line


@pytest.mark.parametrize("option", ["--lease", "--grace"])
@pytest.mark.parametrize("seconds", ["0.001", "604801", "1e11", "1" * 100])
def test_a_silence_that_is_shorter_or_longer_than_makes_sense_is_refused(option, seconds, capsys):
    line = refusal(capsys, f"{option}={seconds}")
    assert option in line
    assert "from 0.1 to 604800, a week" in line


@pytest.mark.parametrize(
    ("seconds", "error"), [(-1, ValueError), (math.nan, ValueError), ("3", TypeError), ([], TypeError)]
)
def test_a_client_that_is_to_host_after_no_number_of_seconds_is_refused(seconds, error, names, group):
    with pytest.raises(error, match=r"timeout|number"):
        DistributedMaster(group, names, host_after=seconds)
    assert group not in groups(names)


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
    assert program.ended() == 2
    assert option in program.text


WRONG_ADDRESSES = [
    "::1",
    "a:b:c",
    "host:99999",
    "host:0",
    ":9090",
    "http://lab/",
    "two words",
    "a\nb",
    "\x1b[31m",
    "host:",
]


@pytest.mark.parametrize("address", WRONG_ADDRESSES)
def test_a_wrong_name_server_is_refused(address, capsys):
    line = refusal(capsys, f"--nameserver={address}")
    assert "name server" in line
    assert "[IPV6]:PORT" in line


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


def test_the_status_of_a_group_that_is_not_there_is_an_error_that_names_those_that_are(launch, names, group):
    nobody = launch.part(f"--group={group}", f"--nameserver={names}", "--status")
    assert nobody.ended() == 1
    assert f"no master of the group '{group}' is registered at {names}" in nobody.text
    launch.master(group, names)
    other = launch.part(f"--group={group}x", f"--nameserver={names}", "--status")
    assert other.ended() == 1
    assert f"no master of the group '{group}x'" in other.text
    assert group in other.text.partition("groups that have one: ")[2]
    assert "Traceback" not in nobody.text + other.text


def ask_for_status(launch, names, group):
    asked = launch.part(f"--group={group}", f"--nameserver={names}", "--status", name="status")
    assert asked.ended() == 0
    return asked.text


def test_the_status_tells_who_hosts_the_master(launch, names, group):
    with DistributedMaster(group, names) as client:
        first = f"master of the group '{group}', process {os.getpid()} on {os.uname().nodename}"
        for text in ask_for_status(launch, names, group), str(client.status()):
            assert text.splitlines()[0] == f"{first}, hosted by a client, with which it ends"


def test_the_status_where_there_is_no_key_says_what_to_do_first(launch, names, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    here = launch.part(f"--nameserver={names}", "--status")
    assert here.ended() == 1
    assert re.search("no key on this machine yet, since you have started nothing .* to start a master, .*:", here.text)
    elsewhere = launch.part("--nameserver=192.0.2.77", "--status")
    assert elsewhere.ended() == 1
    assert f"copy its key file to {tmp_path}/papyros/key" in elsewhere.text


def test_the_status_of_a_killed_master_refers_to_the_doctor_who_says_what_comes_next(launch, names, group):
    launch.master(group, names).end(signal.SIGKILL)
    asked = launch.part(f"--group={group}", f"--nameserver={names}", "--status", name="status")
    assert asked.ended() == 1
    assert "does not answer" in asked.text
    assert "--doctor" in asked.text
    doctor = launch.part(f"--group={group}", f"--nameserver={names}", "--doctor", name="doctor")
    assert doctor.ended() == 1
    assert f"with python -m papyros.distributed --group={group} --nameserver={names}: slaves wait for it" in doctor.text
    assert "Programs that may host the master need nobody for that" in doctor.text


def test_the_status_of_a_group_is_not_that_of_another_one_that_has_taken_the_port(launch, names, group):
    port = f"--port={free_port()}"
    launch.master(group, names, port).end(signal.SIGKILL)
    launch.master(f"{group}-2", names, port)
    asked = launch.part(f"--group={group}", f"--nameserver={names}", "--status", name="status")
    assert asked.ended() == 1
    assert f"serves another group, '{group}-2'" in asked.text
    assert "0 slaves" not in asked.text


def test_the_status_of_a_group_shows_what_its_slaves_run(launch, names, group, gates, tmp_path):
    gate = gates()
    master = launch.master(group, names)
    host = launch.host(group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "held", gate.path))
        gate.wait_for_arrivals()
        # A slave host that is too busy to answer in time is told of as it was before, and as silent.
        wait_until(lambda: any(slave.job for slave in client.status().slaves), "a job that is seen to run")
        answered = lambda: "silent" not in (text := ask_for_status(launch, names, group)) and text  # noqa: E731
        lines = wait_until(answered, "an answer of the slave host").splitlines()
        assert re.fullmatch(rf"master of the group '{group}', process {master.pid} on \S+", lines[0])
        assert lines[1:3] == ["  2 slaves, 1 client", "  jobs: 0 waiting, 1 assigned, 0 processed but not popped"]
        slaves = {f"{os.uname().nodename}/{pid}" for pid in slaves_of(host.pid)}
        does = dict(line.strip().split(": ", 1) for line in lines if "/" in line)
        assert does.keys() == slaves
        assert any(re.fullmatch(r"trace #1 for \d+\.\d s", words) for words in does.values())
        assert "stalled" not in "".join(lines)
        gate.open()
        assert client.popProcessedJob(30).result == "held"


def test_the_status_tells_that_a_slave_host_does_not_answer(launch, names, group):
    launch.master(group, names)
    host = launch.host(group, names)
    with DistributedMaster(group, names, host_master=False) as client:
        shown = lambda: [(slave.ready, slave.silent) for slave in client.status().slaves]  # noqa: E731
        wait_until(lambda: shown() == [(True, 0)], "a slave that is ready, of a host that answers")
        host.send(signal.SIGSTOP)
        wait_until(lambda: "its slave host has been silent for" in str(client.status()), "a word of the silence")
        doctor = launch.part(f"--group={group}", f"--nameserver={names}", "--doctor", name="doctor")
        assert doctor.ended() == 1
        assert "their slave hosts are silent" in doctor.text
        host.send(signal.SIGCONT)
        wait_until(lambda: client.status().slaves[0].silent == 0, "an end of it")


def test_the_status_of_a_group_without_slaves_says_why_nothing_happens(launch, names, group):
    launch.master(group, names)
    why = "3 jobs wait, no slave is connected"
    with DistributedMaster(group, names, host_master=False) as client:
        assert client.status().stalled == ""
        for number in range(3):
            client.addJob(double(number))
        wait_until(lambda: client.status().stalled == why, "a reason")
        assert ask_for_status(launch, names, group).splitlines()[-1] == f"  stalled: {why}"
        launch.host(group, names)
        assert len(client.processedJobs(30)) == 3
        assert client.status().stalled == ""
        assert "stalled" not in ask_for_status(launch, names, group)


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


def test_standalone_that_lost_a_part_says_so_and_fails_in_the_end(launch, group):
    cluster = launch.part("--standalone", "--slaves=1", f"--group={group}", f"--nameserver=localhost:{free_port()}")
    cluster.wait_for(STANDALONE_UP)
    [host] = children_of(cluster.pid, "--slaves", "--lifeline")
    os.kill(host, signal.SIGKILL)
    cluster.wait_for("papyros: the slave host of the local cluster was killed by SIGKILL")
    assert cluster.end() == 1
    assert "the cluster ended without its slave host" in cluster.text


def test_standalone_whose_parts_are_told_to_end_with_it_ends_in_order(launch, group):
    """As service managers do, which signal all processes of a service."""
    cluster = launch.part("--standalone", "--slaves=1", f"--group={group}", f"--nameserver=localhost:{free_port()}")
    cluster.wait_for(STANDALONE_UP)
    for pid in children_of(cluster.pid, "--lifeline"):
        os.kill(pid, signal.SIGTERM)
    assert cluster.end() == 0


def test_an_interrupt_while_modules_are_imported_shows_no_traceback(launch, tmp_path, monkeypatch):
    (tmp_path / "Pyro5.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    program = launch.part("--slaves=1")
    assert program.ended() == 130
    assert not program.text


def test_an_interrupt_of_a_command_that_asks_somebody_shows_no_traceback(launch):
    with socket.create_server(("localhost", 0)) as silent:
        program = launch.part("--status", f"--nameserver=localhost:{silent.getsockname()[1]}")
        silent.settimeout(PATIENCE)
        connection, _ = silent.accept()
        with connection:  # it waits for an answer now
            assert program.end(signal.SIGINT) == 130
    assert "Traceback" not in program.text


def test_standalone_says_when_its_port_is_taken(launch, names):
    cluster = launch.part("--standalone", "--slaves=1", f"--nameserver={names}")
    assert cluster.ended() == 1
    assert "cannot listen on" in cluster.text
    assert "Traceback" not in cluster.text
