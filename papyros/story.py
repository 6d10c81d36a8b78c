"""What is told to people of a job: how it lost its slaves, or that it ran for too long."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["name_job", "tell_before", "tell_deaths", "tell_overdue"]

#: How stories begin where they are told by those who know no job: whose it is, they are told at their client's.
_THE_JOB = "the job "


def tell_deaths(deaths: Sequence[object]) -> str:
    """Return what happened to the slaves that ran a job, one attempt a line."""
    if not deaths:
        return "the slave that ran the job was lost"
    attempts = [f"attempt {number}: {death}" for number, death in enumerate(deaths, 1)]
    times = "once" if len(deaths) == 1 else f"{len(deaths)} times"
    return f"{_THE_JOB}lost its slave {times} and is not tried again:\n" + "\n".join(attempts)


def tell_before(story: str, deaths: Sequence[object]) -> str:
    """Return the story of a job that was lost, with deaths of slaves while they ran it in a bundle with others."""
    return "\n".join([story, *(f"and before that, in a bundle with others: {death}" for death in deaths)])


def tell_overdue(slave: str, timeout: float) -> str:
    """Return what happened to a job that ran for too long."""
    return f"{_THE_JOB}ran longer than its timeout of {timeout:g} s on {slave}, and was stopped"


def name_job(story: str, job: str) -> str:
    """Return a story with the job in words in it, where it tells of a job that it does not know."""
    return f"{job} {story[len(_THE_JOB) :]}" if story.startswith(_THE_JOB) else story
