"""The profile of the legs calls what there is, and leaves nothing behind."""

from benchmarks.profile_legs import legs_table, limit, the_legs


def test_each_leg_takes_its_time():
    legs = the_legs(1000)
    assert {process: len(found) for process, found in legs.items()} == {
        "client": 7,
        "master": 4,
        "slave host": 4,
        "slaves": 1,
    }
    assert all(spent > 0 for found in legs.values() for spent in found.values())
    assert limit(1000) > 0


def test_what_is_no_leg_is_the_rest():
    legs = {"client": {"addJob": 3.0, "elsewhere": 9.0}}
    text = legs_table(legs, {"client": 10.0, "wall": 7.0}, {"client": lambda leg: leg == "addJob"})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert [(leg, spent) for _, leg, spent in cells] == [
        ("addJob", "3.0"),
        ("the rest: sockets, threads, locks", "7.0"),
        ("**all of it**", "**10.0**"),
        ("**processor time**", "**10.0**"),
        ("time, with the cores that there are", "7.0"),
    ]
