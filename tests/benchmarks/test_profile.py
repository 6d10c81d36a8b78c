"""The profile of the legs calls what there is, and leaves nothing behind."""

from benchmarks.profile_legs import cheapest, cluster_legs, legs_table, limit, processes_legs


def test_each_leg_takes_its_time():
    cluster = cluster_legs(1000)
    assert {process: len(found) for process, found in cluster.items()} == {
        "client": 7,
        "master": 4,
        "slave host": 5,
        "slaves": 1,
    }
    processes = processes_legs(1000)
    assert {process: len(found) for process, found in processes.items()} == {"client": 7, "slaves": 1}
    for legs in cluster, processes:
        assert all(spent > 0 for found in legs.values() for spent in found.values())
    assert limit(1000) > 0


def test_the_least_of_each_figure_counts():
    runs = iter([{"a": {"x": 3.0, "y": 1.0}, "b": 5.0}, {"a": {"x": 2.0, "y": 4.0}, "b": 6.0}])
    assert cheapest(lambda jobs: next(runs), 10, 2) == {"a": {"x": 2.0, "y": 1.0}, "b": 5.0}


def test_what_is_no_leg_is_the_rest():
    text = legs_table({"client": {"addJob": 3.0}}, {"client": 10.0, "wall": 7.0})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert [(leg, spent) for _, leg, spent in cells] == [
        ("addJob", "3.00"),
        ("the rest: sockets, threads, locks", "7.00"),
        ("**all of it**", "**10.00**"),
        ("**processor time**", "**10.00**"),
        ("time, with the cores that there are", "7.00"),
    ]
