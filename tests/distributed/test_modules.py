"""Programs that have modules of the same name, on the same slaves: none gets the code of another one."""

from __future__ import annotations

PROGRAM = """
    import sys
    import papyros
    import jobs_of_programs

    with papyros.DistributedMaster(sys.argv[1], sys.argv[2], host_master=False) as master:
        master.addJob(jobs_of_programs.Job1(5))
        job = master.popProcessedJob(timeout=20)
        print("outcome:", job.exception or job.result, flush=True)
"""
JOBS = "import papyros\nclass Job1(papyros.Job):\n    def __call__(self, n): return n {sign} 1\n"


def test_two_programs_with_modules_of_the_same_name_do_not_get_each_others_code(names, group, launch):
    launch.master(group, names)
    launch.host(group, names)
    printed = []
    for sign in "+-":
        home = launch.folder / f"program{sign}"
        home.mkdir()
        (home / "jobs_of_programs.py").write_text(JOBS.format(sign=sign))
        for _ in range(2):
            program = launch.script(PROGRAM, group, names, folder=home)
            assert program.ended() == 0, program.text
            printed.append(program.text)
    first, again, other, other_again = printed
    assert first == again == "outcome: 6\n"
    for text in other, other_again:
        assert "needs the module jobs_of_programs" in text
        assert "Give the modules different names" in text
