"""One session: one system, in a process of its own. Figures go to a file, one JSON object a line, as they come.

The functions up here are those "of ``__main__``". Nothing is imported before it
is needed: processes that a peer spawns import this module again.
"""


def noop_of_main(value: object) -> object:
    """Return the argument."""
    return value


if __name__ == "__main__":
    import sys

    import papyros

    class NoopOfMain(papyros.Job):
        """Returns its argument."""

        def __call__(self, value: object) -> object:
            """Return the argument."""
            return value

    from benchmarks.running import run_session

    run_session(sys.argv[1:], noop_of_main, NoopOfMain)
