"""What stands in for the streams of a slave: whole lines, also of bytes that come in pieces."""

from __future__ import annotations

import io

import pytest

from papyros.echo import LINE_CHARACTERS, Echo
from tests.support import at_most


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


class Utf8(io.StringIO):
    encoding = "utf-8"
