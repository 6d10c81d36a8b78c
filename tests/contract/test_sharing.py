"""`papyros.shared`: one value in many jobs, on every master."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import random
import sys
import threading
from pathlib import Path

import pytest

import papyros
from tests.contract.jobs_for_tests import ExplodesWhenPickled, ExplodesWhenUnpickled, Square, call
from tests.contract.sharing import (
    Scaled,
    digest,
    end_slave_once,
    give_back,
    hand_on,
    kinds,
    mapping,
    pick,
    pick_inside,
    same,
    write_to,
)
from tests.support import PATIENCE, wait_until

TABLE = [number * number for number in range(1000)]


def results(master, *jobs):
    for job in jobs:
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == set(jobs)
    return [job.result for job in jobs]


def errors(master, *jobs):
    for job in jobs:
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == set(jobs)
    return [job.exception for job in jobs]


def test_a_shared_argument_arrives_as_the_value_itself(make_master):
    table = papyros.shared(TABLE)
    jobs = [pick(table, number) for number in range(100)]
    assert results(make_master(), *jobs) == TABLE[:100]


def test_positional_and_named_arguments_arrive_and_what_is_nested_stays_a_handle(make_master):
    one, two = papyros.shared([1]), papyros.shared({"two": 2})
    assert results(make_master(), kinds(one, 3, two, [one], key=two, other={"nested": two})) == [
        ["list", "int", "dict", "list", "dict", "dict"]
    ]
    assert results(make_master(), pick_inside([papyros.shared(TABLE), papyros.shared(TABLE[::-1])], 3)) == [
        [9, TABLE[-4]]
    ]


def test_handles_are_attributes_of_jobs_too_and_a_job_sees_them_among_its_own_arguments(make_master):
    job = Scaled(papyros.shared(TABLE), 3)
    job.factors = papyros.shared([1, 10, 100, 1000])
    assert results(make_master(), job) == [("Shared", 9000)]


def test_classes_that_travel_by_value_may_refer_to_handles(make_master):
    table = papyros.shared(TABLE)

    @papyros.job
    def look_up(position):
        return table.value[position]

    assert results(make_master(), *[look_up(number) for number in range(20)]) == TABLE[:20]


def test_functions_that_travel_with_a_job_may_refer_to_handles(make_master):
    table = papyros.shared(TABLE)
    assert results(make_master(), *[call(lambda n=n: table.value[n]) for n in range(20)]) == TABLE[:20]


def test_two_handles_of_one_value_are_one_value_where_it_arrives(make_process_master):
    one, other = papyros.shared(list(TABLE)), papyros.shared(list(TABLE))
    assert results(make_process_master(), same(one, one), same(one, other)) == [True, True]


def test_an_executor_takes_handles(make_master):
    table = papyros.shared(TABLE)
    with make_master().executor() as executor:
        assert list(executor.map(lambda table, n: table[n], [table] * 20, range(20))) == TABLE[:20]
        assert executor.submit(pick.function, table, 7).result(PATIENCE) == 49


def test_children_share_what_their_parent_got_and_what_it_has_made(make_master):
    master = make_master()
    wanted = sorted(2 * TABLE[:5] + list(range(100, 105)))
    table = papyros.shared(TABLE)
    assert results(master, *[hand_on([table], 5) for _ in range(4)]) == [wanted] * 4


def test_bytes_and_views_of_memory_arrive_unchanged(make_master):
    content = random.Random(1).randbytes(300_000)
    wanted = (hashlib.sha256(content).hexdigest(), len(content))
    found = results(make_master(), *[digest(papyros.shared(kind(content))) for kind in (bytes, bytearray, memoryview)])
    assert [told[:2] for told in found] == [wanted] * 3


def test_a_view_of_memory_keeps_its_form(make_process_master):
    view = memoryview(bytes(range(240))).cast("I", (3, 4, 5))
    [(form, shape, content)] = results(
        make_process_master(), call(lambda handle: describe(handle[0].value), [papyros.shared(view)])
    )
    assert (form, shape, content) == ("I", (3, 4, 5), view.tolist())


def describe(view):
    return view.format, view.shape, view.tolist()


def test_what_slaves_share_they_cannot_change(make_process_master):
    view = papyros.shared(memoryview(bytes(5000)))
    assert [type(error) for error in errors(make_process_master(), write_to(view))] == [TypeError]


def test_arrays_arrive_as_views_that_cannot_be_changed(make_process_master):
    numpy = pytest.importorskip("numpy")
    array = papyros.shared(numpy.arange(100_000).reshape(100, 1000))
    [told] = results(make_process_master(), call(lambda h: about_array(h[0].value), [array]))
    assert told == (False, False, 4_999_950_000)
    [error] = errors(make_process_master(), write_to(array))
    assert type(error) is ValueError


def about_array(array):
    return array.flags.writeable, array.flags.owndata, int(array.sum())


def test_what_is_changed_after_the_first_job_was_added_does_not_travel(make_process_master):
    content = [1, 2, 3]
    handle = papyros.shared(content)
    master = make_process_master()
    assert results(master, pick(handle, 0)) == [1]
    content[0] = "changed"
    assert results(master, pick(handle, 0)) == [1]
    assert results(master, pick(papyros.shared(content), 0)) == ["changed"]


def test_a_handle_can_be_given_back(make_master):
    [[handle]] = results(make_master(), give_back([papyros.shared(TABLE)]))
    assert handle.value == TABLE


def test_sharing_a_handle_makes_no_other_one():
    handle = papyros.shared(TABLE)
    assert papyros.shared(handle) is handle
    assert repr(handle) == "shared(list)"
    assert repr(pick(handle, 3)) == "pick(shared(list), 3)"
    assert handle.value is TABLE


@pytest.mark.parametrize("value", [threading.Lock(), ExplodesWhenPickled()])
def test_what_cannot_be_pickled_is_the_outcome_of_each_job_with_it(make_process_master, value):
    handle = papyros.shared(value)
    found = errors(make_process_master(), pick(handle, 0), Square(3), pick(handle, 1))
    assert [type(error) for error in found] == [papyros.PayloadError, type(None), papyros.PayloadError]
    assert "value to be shared cannot be pickled" in str(found[0])


def test_what_cannot_be_unpickled_is_the_outcome_of_each_job_with_it(make_process_master):
    handle = papyros.shared(ExplodesWhenUnpickled())
    found = errors(make_process_master(), pick(handle, 0), Square(3), pick(handle, 1))
    assert [type(error) for error in found] == [papyros.PayloadError, type(None), papyros.PayloadError]
    assert "exploded while it was unpacked" in str(found[0])


def test_what_is_larger_than_the_bound_is_the_outcome_of_each_job_with_it(make_process_master):
    handle = papyros.shared(bytes(20_000))
    master = make_process_master(max_bytes=10_000)
    found = errors(master, pick(handle, 0), Square(3))
    assert [type(error) for error in found] == [papyros.PayloadTooLargeError, type(None)]
    assert "10,000 bytes" in str(found[0])
    assert results(make_process_master(), pick(handle, 0)) == [0]


def test_a_slave_that_takes_the_place_of_a_dead_one_has_the_value_too(make_process_master, tmp_path):
    table = papyros.shared(TABLE)
    master = make_process_master()
    jobs = [end_slave_once(table, str(tmp_path)), *[pick(table, number) for number in range(50)]]
    found = results(master, *jobs)
    assert found[0][0] == 0
    assert found[1:] == TABLE[:50]


def test_jobs_that_are_pending_keep_a_value_of_which_nobody_has_the_handle(make_process_master, gates):
    gate = gates()
    master = make_process_master()
    handle = papyros.shared(list(TABLE))
    arguments = [handle]
    job = pick_inside(arguments, 3)
    waiting = [pick(handle, 2, gate.path) for _ in range(8)]
    for each in (*waiting, job):
        master.addJob(each)
    arguments.clear()
    del handle
    gc.collect()
    gate.open()
    assert set(master.processedJobs(PATIENCE)) == {job, *waiting}
    assert job.result == [9]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_value_is_held_once_a_machine_and_let_go_of_with_its_handle(make_process_master, gates):
    master = make_process_master()
    size = 4_000_000
    handle = papyros.shared(memoryview(bytes(size)))
    gate = gates()
    jobs = [mapping(handle, gate.path) for _ in range(2)]
    for job in jobs:
        master.addJob(job)
    gate.wait_for_arrivals(2)
    gate.open()
    assert set(master.processedJobs(PATIENCE)) == set(jobs)
    [(one, host, inode, rss, _, _), (other, _, another, _, _, _)] = [job.result for job in jobs]
    assert one != other
    assert inode == another
    assert rss >= size
    assert held_by(host) & {inode}
    status = master.status()
    assert (status.shared, status.shared_bytes >= size) == (1, True)
    assert "shared: 1 value, 4.0 MB" in str(status)
    for pid in (one, other):
        assert inode in held_by(pid)
    del handle, job, jobs
    gc.collect()
    wait_until(lambda: not master.status().shared, "a master that holds nothing")
    for pid in (host, one, other):
        wait_until(lambda pid=pid: inode not in held_by(pid), f"process {pid} lets go of the value")
    assert "shared" not in str(master.status())


def held_by(pid):
    """The inodes of what a process has open, or mapped, of shared values."""
    found = {int(words[4]) for words in map(str.split, _maps(pid)) if "papyros-shared" in words[-2] + words[-1]}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # what was open in this moment may be closed in the next one
            if "papyros-shared" in os.readlink(path):
                found.add(os.stat(path).st_ino)
    return found


def _maps(pid):
    return Path(f"/proc/{pid}/maps").read_text().splitlines()
