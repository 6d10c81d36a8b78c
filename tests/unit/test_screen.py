"""What jobs print reaches who reads it, and nobody waits for one who does not."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading

import pytest

from papyros.screen import KEPT_CHARACTERS, Screen
from tests.support import at_most, none_to_spare, wait_until


class Gone(io.StringIO):
    """A stream that is another one's affair: a window, say, that was closed."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


class NoFile(io.StringIO):
    """A stream that is no file, or none any more, and says so in a way of its own."""

    def __init__(self, descriptors=()):
        super().__init__()
        self.descriptors = list(descriptors)

    def fileno(self):
        if not self.descriptors:
            raise NotImplementedError("no file here")
        return self.descriptors.pop()


@pytest.fixture
def screen():
    screen = Screen()
    yield screen
    screen.close()


@pytest.fixture
def pipe():
    """A stream, and the file descriptor of the end at which it is read."""
    end, begin = os.pipe()
    os.set_blocking(end, False)
    with open(begin, "w", encoding="utf-8") as stream:
        yield stream, end
        os.close(end)
        with contextlib.suppress(BrokenPipeError):
            stream.flush()


def read_all(end):
    """Read what is there now."""
    chunks = []
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(end, 1 << 16):
            chunks.append(chunk)
    return b"".join(chunks).decode()


def fill(stream):
    """Write to a pipe until it has no more room."""
    with contextlib.suppress(BlockingIOError):
        os.set_blocking(stream.fileno(), False)
        while os.write(stream.fileno(), b"." * 4096):
            pass
    os.set_blocking(stream.fileno(), True)


def test_a_print_has_the_job_and_its_slave_before_each_line(screen, capsys):
    screen.show_print("job #1", "lab1/42", "one\ntwo\n")
    assert capsys.readouterr().out == "[job #1 on lab1/42] one\n[job #1 on lab1/42] two\n"


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("closed"), RuntimeError("deleted")], ids=repr)
def test_a_stream_that_fails_is_nobodys_business(screen, error, monkeypatch):
    screen.show(Gone(error), "text")
    screen.show(None, "text")
    monkeypatch.setattr(sys, "stdout", Gone(error))
    screen.show_print("job #1", "lab1/42", "text")


def test_a_stream_that_is_no_file_is_written_to(screen):
    screen.show(stream := NoFile(), "text")
    assert stream.getvalue() == "text"


def test_a_stream_that_is_no_file_any_more_is_written_to_in_the_end(screen, pipe):
    full, _ = pipe
    fill(full)
    stream = NoFile([full.fileno(), full.fileno()])  # when it is shown, and when the thread begins to wait for a reader
    screen.show(stream, "text")
    wait_until(lambda: stream.getvalue() == "text", "the text")


def test_what_nobody_reads_now_is_read_later_in_order(screen, pipe):
    stream, end = pipe
    lines = [f"{number} é{'x' * 90}\n" for number in range(5000)]  # several times what a pipe holds
    with at_most(2):
        for line in lines:
            screen.show(stream, line)
    read = []
    wait_until(lambda: read.append(read_all(end)) or len("".join(read)) >= len("".join(lines)), "all of it")
    assert "".join(read) == "".join(lines)


def test_of_what_nobody_reads_the_end_is_kept(screen, pipe):
    stream, end = pipe
    lines = [f"{number:09}\n" for number in range(KEPT_CHARACTERS // 10 * 2)]
    for line in lines:
        screen.show(stream, line)
    read = []
    wait_until(lambda: read.append(read_all(end)) or "".join(read).endswith(lines[-1]), "the end of it")
    assert len("".join(read)) < KEPT_CHARACTERS + (1 << 18)


def test_a_long_text_takes_no_more_time_than_its_length_needs(screen, tmp_path):
    """The thread that shows it is the one that feeds the slaves, and stops jobs whose time is up."""
    with open(tmp_path / "shown", "w", encoding="utf-8") as stream, at_most(4):
        screen.show(stream, "x" * 50_000_000)
    assert (tmp_path / "shown").stat().st_size == 50_000_000


def test_closing_does_not_wait_for_a_reader(pipe):
    stream, _ = pipe
    screen = Screen()
    screen.show(stream, "x" * (1 << 18))
    with at_most(2):
        screen.close()
        screen.show(stream, "too late")


def test_what_waits_for_a_reader_waits_on_where_no_thread_can_be_started(screen, pipe, monkeypatch):
    stream, end = pipe
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_to_spare)
        screen.show(stream, "x" * (1 << 18))
    screen.show(stream, "the end")
    read = []
    wait_until(lambda: read.append(read_all(end)) or "".join(read).endswith("the end"), "all of it")


def test_of_a_print_of_very_many_lines_the_end_is_shown(screen, capsys):
    screen.show_print("job", "slave", "\n" * KEPT_CHARACTERS + "the end\n")
    assert len((shown := capsys.readouterr().out).splitlines()) <= KEPT_CHARACTERS
    assert shown.endswith("[job on slave] the end\n")


def test_of_a_print_of_nothing_but_line_ends_no_more_is_made_than_is_kept(screen, monkeypatch):
    shown = []
    monkeypatch.setattr(screen, "show", lambda stream, text: shown.append(text))
    monkeypatch.setattr("papyros.screen.KEPT_CHARACTERS", 1000)
    screen.show_print("job", "slave", "\n" * 1000)
    screen.show_print("j" * 1000, "slave", "\n" * 1000 + "the end\n")
    assert 900 < len(shown[0]) < 1100
    assert shown[1].count("\n") == 1
    assert shown[1].endswith("] the end\n")


def test_a_pipe_with_little_room_keeps_nobody_waiting(screen, pipe):
    """It says that it has room for a page, and the stream may have more in its buffer, of what its program prints."""
    stream, end = pipe
    fill(stream)
    os.read(end, 5000)
    stream.write("x" * 8000)  # of the program itself, not yet written
    with at_most(2):
        screen.show(stream, "text")
    read = []
    wait_until(lambda: read.append(read_all(end)) or "".join(read).endswith("text"), "all of it")


def test_of_what_a_stream_has_no_characters_for_the_rest_is_shown(screen):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    screen.show(stream, "caf\u00e9: 3 \u20ac\nnext line\n")
    assert stream.buffer.getvalue() == b"caf\xe9: 3 \\u20ac\nnext line\n"


@pytest.mark.parametrize(
    ("errors", "shown"),
    [("surrogateescape", rb"\udcff gr\xfc\xdfe"), ("replace", b"? gr??e"), ("ignore", b" gre")],
)
def test_a_stream_that_does_not_know_what_to_do_about_a_character_has_an_escape_for_it(screen, errors, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors)
    screen.show(stream, "\udcff gr\xfc\xdfe")
    assert stream.buffer.getvalue() == shown
