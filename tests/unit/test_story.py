"""What is told to people reaches them, or is dropped: nobody stops for it."""

from __future__ import annotations

import io
import sys

import pytest

from papyros.story import show, show_print


class Gone(io.StringIO):
    """A stream that is another one's affair: a window, say, that was closed."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def test_a_print_has_the_job_and_its_slave_before_each_line(capsys):
    show_print("job #1", "lab1/42", "one\ntwo\n")
    assert capsys.readouterr().out == "[job #1 on lab1/42] one\n[job #1 on lab1/42] two\n"


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("closed"), RuntimeError("deleted")], ids=repr)
def test_a_stream_that_fails_is_nobodys_business(error, monkeypatch):
    show(Gone(error), "text")
    show(None, "text")
    monkeypatch.setattr(sys, "stdout", Gone(error))
    show_print("job #1", "lab1/42", "text")
