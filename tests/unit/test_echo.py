"""What stands in for the streams of a slave: whole lines, also of bytes that come in pieces."""

from __future__ import annotations

import io

import pytest

import papyros
from papyros.echo import LINE_CHARACTERS, Echo
from papyros.tasks import Task
from papyros.terms import Terms
from tests.support import at_most
from tests.unit.crews import FakeSource, crew_of


@pytest.fixture
def sent():
    return []


@pytest.fixture
def echo(sent):
    def send(text):
        sent.append(text)
        return True

    return Echo(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), send)


def test_a_line_is_sent_when_it_is_whole(echo, sent):
    echo.write("one, ")
    assert sent == []
    echo.write("two\nthree")
    assert sent == ["one, two\n"]
    echo.flush()
    assert sent == ["one, two\n", "three"]


def test_a_character_may_come_in_pieces(echo, sent):
    for byte in "é☃\n".encode():
        assert echo.buffer.write(bytes([byte])) == 1
    assert sent == ["é☃\n"]


def test_half_a_character_is_not_kept_for_the_next_job(echo, sent):
    echo.buffer.write(b"abc\xc3")
    echo.flush()
    echo.end_job()
    echo.buffer.write(b"next\n")
    assert "".join(sent) == "abc\N{REPLACEMENT CHARACTER}next\n"


def test_who_closes_the_binary_side_closes_only_their_own(echo, sent):
    io.TextIOWrapper(echo.buffer, encoding="utf-8").close()
    echo.buffer.write(b"next\n")
    assert sent == ["next\n"]


def test_what_is_no_text_is_shown_as_well_as_can_be(echo, sent):
    echo.buffer.write(b"\xff!\n")
    assert sent == ["\N{REPLACEMENT CHARACTER}!\n"]


def test_a_line_without_an_end_takes_no_more_time_than_its_length_needs_and_goes_in_parts(echo, sent):
    """A dot for each step, say."""
    with at_most(5):
        for _ in range(500_000):
            echo.write(".")
    assert len(sent) == 500_000 // LINE_CHARACTERS
    echo.end_job()
    assert "".join(sent) == "." * 500_000


def test_a_line_that_goes_in_parts_is_shown_without_an_empty_one_at_its_end(echo, sent):
    echo.write("a" * LINE_CHARACTERS)
    echo.write("\n")  # as `print` does
    echo.write("next\n")
    echo.write("half")
    echo.flush()
    echo.write("\n")
    echo.write("\n")
    assert sent == ["a" * LINE_CHARACTERS, "next\n", "half", "\n"]


def test_the_first_line_end_of_a_job_is_its_own(echo, sent):
    echo.write("no end")
    echo.end_job()
    echo.write("\n")
    assert sent == ["no end", "\n"]


def test_a_line_that_nobody_wants_keeps_its_end():
    stream = Utf8()
    echo = Echo(stream, lambda text: False)
    echo.write("a" * LINE_CHARACTERS)
    echo.write("\n")
    assert stream.getvalue() == "a" * LINE_CHARACTERS + "\n"


def test_what_is_no_text_is_refused_and_spoils_nothing(echo, sent):
    with pytest.raises(TypeError, match="must be str, not bytes"):
        echo.write(b"bytes")
    echo.write("next\n")
    assert sent == ["next\n"]


def test_who_closes_it_sends_what_is_kept_and_closes_it_for_nobody(echo, sent):
    with echo:
        echo.write("no end")
    echo.close()
    echo.writelines(["next\n"])
    assert sent == ["no end", "next\n"]
    assert not echo.isatty()
    assert not echo.closed


def test_an_alarm_that_comes_while_something_is_sent_is_the_jobs():
    def ring(text):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        Echo(Utf8(), ring).write("a line\n")


@papyros.job
def print_part(text):
    print(text, end="")


def test_what_a_job_has_begun_to_print_goes_to_no_client_of_another(capfd):
    """A job whose client does not ask for prints shares a slave with one whose client does."""
    source = FakeSource()
    with crew_of(source, 1):
        for tag, echo in enumerate([False, True, False]):
            job = source.jobs[tag] = print_part(f"of {tag}; ")
            payload = source.packer.pack(job)
            source.waiting.append(Task(tag, payload.definition, payload.blob, Terms(echo=echo)))
            source.crew.poke()
            source.wait_for_outcomes(tag + 1)
    assert len(set(source.slaves.values())) == 1
    assert [(tag, text) for tag, _, text in source.prints] == [(1, "of 1; ")]
    assert capfd.readouterr().out == "of 0; of 2; \n"


class Utf8(io.StringIO):
    encoding = "utf-8"
