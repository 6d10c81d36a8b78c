"""A crowd: a hundred slaves, and more connections than a stock Pyro5 daemon serves."""

from __future__ import annotations

import contextlib
import time

import pytest

from papyros.distributed.line import Line
from papyros.distributed.security import Role
from tests.distributed.programs import HOST_UP, processes, uri_of
from tests.support import security, wait_until

HOSTS, SLAVES, CLIENTS, JOBS = 10, 10, 5, 200

CLIENT = """
    import sys
    from papyros import DistributedMaster
    from tests.contract.jobs_for_tests import nap

    group, names, me, number = sys.argv[1:]
    with DistributedMaster(group, names, host_master=False) as master:
        jobs = [nap(0.05, (me, i)) for i in range(int(number))]
        for job in jobs:
            master.addJob(job)
        popped = list(iter(master.popProcessedJob, None))
        assert len(popped) == len(set(popped)) == len(jobs), len(popped)
        assert sorted(job.result for job in popped) == sorted((me, i) for i in range(len(jobs)))
        print("all back, from", len({job.slave for job in popped}), "slaves", flush=True)
"""


@pytest.mark.slow
def test_a_hundred_slaves_and_five_clients_at_one_master_with_more_connections_besides(launch, names, group, mark):
    launch.master(group, names)
    arguments = [f"--group={group}", f"--nameserver={names}", f"--slaves={SLAVES}"]
    hosts = [launch.part(*arguments, name=f"host{number}") for number in range(HOSTS)]
    for host in hosts:
        host.wait_for(HOST_UP, 60)
    wait_until(
        lambda: sum("papyros.slave" in command for command in processes(mark).values()) == HOSTS * SLAVES,
        "a hundred slaves",
        60,
    )
    uri = uri_of(names, group)
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(Line(uri, security(), Role.WATCHER)) for _ in range(150)]
        started = time.monotonic()
        clients = [
            launch.script(CLIENT, group, names, f"client {number}", str(JOBS), name=f"client{number}")
            for number in range(CLIENTS)
        ]
        for client in clients:
            assert client.ended(60) == 0
            assert "all back" in client.text
        # The work itself takes half a second, with a hundred slaves; five programs have to start besides.
        assert time.monotonic() - started < 30
        for line in lines:  # whoever was there before is still served
            answer, _ = line.call("identify")
            assert answer["group"] == group
