"""The job classes of a slave: what becomes of one that cannot be loaded."""

from __future__ import annotations

import pickle
import traceback

import pytest

import papyros
from papyros.errors import PayloadError
from papyros.jobclasses import JobClasses
from papyros.store import Held, needs_of
from papyros.wire import Packer
from tests.contract.jobs_for_tests import Square

REFERENCE = b"cnobody_has_this_module\nFar\n."


def test_a_class_that_cannot_be_loaded_says_so_to_each_job_in_as_many_lines() -> None:
    classes, packer = JobClasses(), Packer()
    classes.define(1, pickle.dumps(("Far", REFERENCE, [], {})))

    def refusal() -> str:
        with pytest.raises(PayloadError, match="Far cannot be loaded") as caught:
            classes.find(1, packer)
        return "".join(traceback.format_exception(caught.value))

    assert refusal() == refusal() == refusal()


@pytest.mark.pure
def test_a_class_whose_loading_was_interrupted_is_loaded_for_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of it was stopped, or the memory was short for a moment: its crew sends a definition once."""
    classes, packer = JobClasses(), Packer()
    classes.define(1, packer.definitions[packer.pack(Square(3)).definition])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("papyros.jobclasses.load_definition", interrupt)
        with pytest.raises(KeyboardInterrupt):
            classes.find(1, packer)
    assert classes.find(1, packer) is Square


def test_a_class_that_needs_a_value_is_loaded_as_soon_as_that_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of its slave had all file descriptors for a moment."""
    handle = papyros.shared([1, 2])

    @papyros.job
    def look() -> list[int]:
        return list(handle.value)

    classes, packer = JobClasses(), Packer()
    definition = packer.definitions[packer.pack(look()).definition]
    [digest] = needs_of(definition)
    held = packer.kept.get(digest)
    assert held is not None

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    classes.define(1, definition)
    with monkeypatch.context() as patch:
        patch.setattr(Held, "at", refuse)
        classes.offer(digest, held.place)
        for _ in range(2):
            with pytest.raises(PayloadError, match="Too many open files"):
                classes.find(1, packer)
    assert classes.find(1, packer).function() == [1, 2]


class Registry(type):
    """A class that counts as false, as long as nothing is in it."""

    def __len__(cls) -> int:
        return 0


class Registered(papyros.Job, metaclass=Registry):
    """Does nothing."""


def test_a_class_that_counts_as_false_is_found_for_each_of_its_jobs() -> None:
    classes, packer = JobClasses(), Packer()
    classes.define(7, packer.definitions[packer.pack(Registered()).definition])
    assert [classes.find(7, packer) for _ in range(3)] == [Registered] * 3
