"""Bytes between two processes of one machine."""

import threading
from multiprocessing.connection import Client

import pytest

from coterie.silos.local_socket import Closed, Meeting, connect


@pytest.fixture
def meeting():
    opened = Meeting()
    yield opened
    opened.close()


def pair(meeting):
    """Return both ends of a line."""
    lines = []
    waiting = threading.Thread(target=lambda: lines.append(meeting.accept()))
    waiting.start()
    mine = connect(meeting.folder)
    waiting.join(5.0)
    return lines[0], mine


def test_headers_and_bodies_arrive_as_they_were_sent(meeting):
    one, other = pair(meeting)
    for body in (b"", b"\x00" * 3_000_000):
        threading.Thread(target=one.send, args=({"kind": "ask", "sites": ["a"]}, body)).start()
        assert other.receive() == ({"kind": "ask", "sites": ["a"]}, body)


def test_the_end_of_one_ends_a_wait_of_the_other_and_its_own(meeting):
    one, other = pair(meeting)
    ends = []

    def wait(line):
        with pytest.raises(Closed):
            line.receive()
        ends.append(line.ended)

    threads = [threading.Thread(target=wait, args=(line,)) for line in (one, other)]
    for thread in threads:
        thread.start()
    one.close()
    for thread in threads:
        thread.join(5.0)
    assert ends == [True, True]


def test_a_body_above_the_bound_and_what_is_not_a_header_end_the_line(meeting):
    one, other = pair(meeting)
    one.send({}, b"1234")
    with pytest.raises(Closed):
        other.receive(max_bytes=3)
    one, other = pair(meeting)
    one.connection.send_bytes(b"\x80\x04.")
    with pytest.raises(Closed):
        other.receive()


def test_a_wrong_secret_is_refused_and_the_next_caller_served(meeting):
    def call_with_wrong_secret():
        with pytest.raises(Exception):  # noqa: B017
            Client(str(meeting.folder / "socket"), "AF_UNIX", authkey=b"wrong")

    wrong = threading.Thread(target=call_with_wrong_secret)
    accepted = []
    waiting = threading.Thread(target=lambda: accepted.append(meeting.accept()))
    waiting.start()
    wrong.start()
    wrong.join(5.0)
    connect(meeting.folder)
    waiting.join(5.0)
    assert len(accepted) == 1


def test_closing_ends_the_wait_for_a_caller_and_removes_the_folder():
    meeting, ended = Meeting(), []

    def wait():
        with pytest.raises(Closed):
            meeting.accept()
        ended.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    meeting.close()
    meeting.close()
    thread.join(5.0)
    assert ended == [True]
    assert not meeting.folder.exists()
    with pytest.raises(Closed):
        connect(meeting.folder)
