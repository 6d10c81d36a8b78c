"""The waiting line against a sorted list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papyros.entries import Entry, Session
from papyros.terms import Terms
from papyros.waiting import FEW, WaitingLine

pytestmark = pytest.mark.compiled


def entry(number, priority=0, size=0):
    return Entry(Session("client"), number, None, size, Terms(priority))


def numbers(line):
    return [line.popleft().number for _ in range(len(line))]


def test_a_new_line_is_empty():
    line = WaitingLine()
    assert len(line) == 0
    assert not line
    with pytest.raises(IndexError):
        line.popleft()


def test_higher_priority_comes_first_and_then_the_order_of_adding():
    line = WaitingLine()
    for number, priority in enumerate([0, 5, -3, 5, 0, 10**9, -(10**9)]):
        line.append(entry(number, priority))
    assert numbers(line) == [5, 1, 3, 0, 4, 2, 6]


def test_what_is_put_back_takes_its_old_place():
    line = WaitingLine()
    for number in range(5):
        line.append(entry(number))
    first, second = line.popleft(), line.popleft()
    line.put_back(second)
    line.put_back(first)
    assert numbers(line) == [0, 1, 2, 3, 4]


def test_what_is_put_back_does_not_pass_a_higher_priority():
    line = WaitingLine()
    line.append(entry(0))
    low = line.popleft()
    line.append(entry(1, priority=1))
    line.append(entry(2))
    line.put_back(low)
    assert numbers(line) == [1, 0, 2]


def test_what_was_removed_does_not_come():
    line = WaitingLine()
    entries = [entry(number) for number in range(6)]
    for each in entries:
        line.append(each)
    for number in (0, 3, 5):
        line.remove(entries[number])
    assert len(line) == 3
    assert numbers(line) == [1, 2, 4]
    assert len(line) == 0


def test_what_was_put_back_can_be_removed():
    line = WaitingLine()
    line.append(entry(0))
    line.append(entry(1))
    first = line.popleft()
    line.put_back(first)
    line.remove(first)
    assert numbers(line) == [1]


def test_what_was_removed_can_be_put_back_and_removed_and_put_back():
    line = WaitingLine()
    first, second = entry(0), entry(1)
    line.append(first)
    line.append(second)
    for _ in range(3):
        line.remove(first)
        line.put_back(first)
    line.remove(first)
    assert line.popleft() is second
    assert len(line) == 0


def test_a_new_job_with_the_number_of_one_that_was_removed_is_another_job():
    line = WaitingLine()
    old, new = entry(1), entry(1, priority=5)
    line.append(entry(0))
    line.append(old)
    line.remove(old)
    line.append(new)
    assert line.popleft() is new
    assert numbers(line) == [0]


def test_removing_the_last_one_leaves_a_line_that_works():
    line = WaitingLine()
    only = entry(0)
    line.append(only)
    line.remove(only)
    assert len(line) == 0
    line.append(entry(1))
    assert numbers(line) == [1]


def test_clearing_returns_what_was_there():
    line = WaitingLine()
    entries = [entry(number, number % 2) for number in range(4)]
    for each in entries:
        line.append(each)
    line.remove(entries[2])
    assert sorted(each.number for each in line.clear()) == [0, 1, 3]
    assert len(line) == 0
    line.append(entry(9))
    assert numbers(line) == [9]


def test_a_number_may_come_back_while_its_ghost_is_in_the_line():
    """A client whose job was cancelled in vain adds it again."""
    line = WaitingLine()
    former, other = entry(1), entry(2)
    for each in (former, other):
        line.put_back(each)
    line.remove(former)
    again = entry(1)
    line.append(again)
    assert line.popleft() is again
    line.put_back(again)
    assert line.popleft() is again
    assert line.popleft() is other
    assert not line


@given(st.lists(st.tuples(st.sampled_from(["append", "pop", "put back", "remove"]), st.integers(-2, 2))))
def test_it_is_a_sorted_list_whatever_happens(steps):
    line = WaitingLine()
    model = []
    taken = []
    for number, (step, argument) in enumerate(steps):
        if step == "append":
            new = entry(number, argument, size=number)
            line.append(new)
            model.append(new)
        elif step == "pop" and model:
            model.sort(key=lambda each: (-each.priority, each.number))
            assert line.popleft() is model[0]
            taken.append(model.pop(0))
        elif step == "put back" and taken:
            back = taken.pop(argument % len(taken))
            line.put_back(back)
            model.append(back)
        elif step == "remove" and model:
            gone = model.pop(argument % len(model))
            line.remove(gone)
            taken.append(gone)  # it may come back too: it was started by somebody who then lost it
        assert len(line) == len(model)
        assert line.size == sum(each.size for each in model), "the bytes of the line are counted"
    assert numbers(line) == [each.number for each in sorted(model, key=lambda each: (-each.priority, each.number))]


def test_what_was_removed_behind_a_job_that_waits_for_long_is_forgotten():
    """Else a line would grow for ever in which jobs are added and cancelled behind one that nobody can take yet."""
    line = WaitingLine()
    first, back = entry(0), entry(1, priority=1)
    line.append(back)
    line.append(first)
    line.put_back(line.popleft())
    for number in range(2, 2000):
        line.append(cancelled := entry(number, number % 3))
        line.remove(cancelled)
    kept = len(line._removed) + len(line._returned) + sum(map(len, line._levels.values()))
    assert kept < 4 * FEW
    line.append(last := entry(2000))
    assert [line.popleft() for _ in range(len(line))] == [back, first, last]


def test_what_was_put_back_and_removed_again_is_forgotten_too():
    line = WaitingLine()
    line.append(first := entry(0))
    for number in range(1, 1000):
        line.put_back(again := entry(number))
        line.remove(again)
    assert len(line._removed) + len(line._returned) < 4 * FEW
    assert line.popleft() is first
    assert not line
