"""Programs that have modules of the same name, on the same slaves: none gets the code of another one."""

from __future__ import annotations

PROGRAM = """
    import sys
    import papyros
    import jobs_of_programs

    with papyros.DistributedMaster(sys.argv[1], sys.argv[2], host_master=False) as master:
        for job in master.execute(map(jobs_of_programs.Job1, range(20))):
            print("outcome:", job.exception or job.result - job.args[0], flush=True)
"""
JOBS = "import papyros\nclass Job1(papyros.Job):\n    def __call__(self, n): return n + {more}\n"


def run(launch, group, names, home, more):
    home.mkdir(exist_ok=True)
    (home / "jobs_of_programs.py").write_text(JOBS.format(more=more))
    return launch.script(PROGRAM, group, names, folder=home)


def outcomes(program):
    assert program.ended() == 0, program.text
    return {line.removeprefix("outcome: ") for line in program.text.splitlines()}


def test_programs_with_modules_of_the_same_name_do_not_get_each_others_code(names, group, launch):
    launch.master(group, names)
    host = launch.host(group, names)
    homes = [launch.folder / "home1", launch.folder / "home2"]
    for _ in range(2):
        for more, home in enumerate(homes, 1):
            assert outcomes(run(launch, group, names, home, more)) == {str(more)}
    assert "could not be loaded" not in host.text
    assert "exit code" not in host.text


def test_programs_that_run_at_the_same_time_are_kept_apart_too(names, group, launch):
    launch.master(group, names)
    launch.host(group, names, 2)
    programs = [run(launch, group, names, launch.folder / f"home{more}", more) for more in range(3)]
    assert [outcomes(program) for program in programs] == [{"0"}, {"1"}, {"2"}]


def test_a_module_that_was_changed_is_imported_again_by_slaves_that_stay(names, group, launch):
    launch.master(group, names)
    launch.host(group, names)
    home = launch.folder / "home"
    for more in (1, 22, 333):
        assert outcomes(run(launch, group, names, home, more)) == {str(more)}


def test_what_comes_first_where_slaves_run_is_refused_in_words(names, group, launch):
    launch.master(group, names)
    (launch.cwd / "jobs_of_programs.py").write_text(JOBS.format(more=1))
    launch.host(group, names)
    try:
        [text] = outcomes(run(launch, group, names, launch.folder / "home", 2))
    finally:
        (launch.cwd / "jobs_of_programs.py").unlink()
    assert "needs the module jobs_of_programs" in text
    assert f"{launch.cwd / 'jobs_of_programs.py'} comes first" in text
    assert "Give the modules different names" in text
