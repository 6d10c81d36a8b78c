"""What commands say: to streams that are gone, closed, or have no characters for it."""

from __future__ import annotations

import io
import os
import sys

import pytest

from papyros.saying import Speaker, say
from tests.support import at_most


@pytest.fixture(params=["say", "Speaker"])
def saying(request):
    """Say a line, and be done with it."""

    def speak(text):
        speaker = Speaker()
        speaker.say(text)
        speaker.close()

    return say if request.param == "say" else speak


def test_a_line_has_escapes_for_what_the_stream_has_no_characters_for(saying, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    saying("gr\xfc\xdfe")
    assert stream.buffer.getvalue() == b"gr\\xfc\\xdfe\n"


def test_nothing_is_left_to_be_written_to_a_stream_that_is_gone(saying, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        saying("text")
        stream.flush()  # as the interpreter does at the exit


@pytest.mark.parametrize("closed", [False, True])
def test_where_there_is_no_stream_nothing_is_said(saying, closed, monkeypatch):
    stream = io.StringIO() if closed else None
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    saying("text")


def test_a_speaker_begins_lines_as_it_is_told_and_complains_elsewhere(capsys):
    speaker = Speaker("papyros: ")
    speaker.say("up")
    speaker.complain("prog: down")
    speaker.close()
    assert capsys.readouterr() == ("papyros: up\n", "prog: down\n")


def test_a_speaker_waits_for_a_reader_for_a_moment_only(monkeypatch):
    read, write = os.pipe()
    with open(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        speaker = Speaker()
        with at_most(3):
            speaker.say("x" * (1 << 18))
            speaker.close()
        os.close(read)
