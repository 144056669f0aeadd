"""How commands in two parts are exchanged with a Redis that takes its time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from threading import Thread

import hiredis
import pytest

from tidemill.online.connection import MORE, Connection
from tidemill.online.redis_refusals import ConnectionLostError


class Parts:
    """A listener whose second part is `b`; it notes what it was told."""

    def __init__(self, redis: socket.socket) -> None:
        self.redis, self.told = redis, []

    def rest(self) -> tuple[bytes, int]:
        return b"b", 2

    def take(self, replies: list[bytes], /) -> None:
        self.told.append(list(replies))
        self.redis.sendall(b"+three\r\n")  # only now does the last reply come


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the other end of its socket in the place of Redis."""
    ours, redis = socket.socketpair()
    connection = Connection.__new__(Connection)
    connection.socket = ours
    connection._reader = hiredis.Reader(notEnoughData=MORE)
    connection.limit(10)
    yield connection, redis
    ours.close()
    redis.close()


def test_what_has_come_is_told_while_redis_works_on_the_rest(ends: tuple[Connection, socket.socket]):
    connection, redis = ends
    parts = Parts(redis)

    def answer() -> None:
        asked = b""
        while asked != b"ab":
            asked += redis.recv(10)
        redis.sendall(b"+one\r\n+two\r\n")

    worker = Thread(target=answer)
    worker.start()
    assert connection.exchange(b"a", 1, parts) == [b"one", b"two", b"three"]
    worker.join()
    assert parts.told == [[b"one", b"two"]]


def test_an_answer_in_pieces_is_put_together_by_the_parser(ends: tuple[Connection, socket.socket]):
    connection, redis = ends
    shown: list[bytes] = []

    def glance(data: bytes) -> list[str] | None:
        shown.append(data)
        redis.sendall(b"\nabc\r\n+next\r\n")  # the rest comes only now
        return None

    redis.sendall(b"$3\r")
    assert connection.ask(b"a", 2, glance) == (False, [b"abc", b"next"])
    assert shown == [b"$3\r"]


def test_what_a_glance_has_understood_is_the_answer_and_the_next_one_is_not_mixed_up_with_it(
    ends: tuple[Connection, socket.socket],
):
    connection, redis = ends
    redis.sendall(b"+one\r\n")
    assert connection.ask(b"a", 1, lambda data: [len(data)]) == (True, [6])
    redis.sendall(b"+two\r\n")
    assert connection.ask(b"a", 1, lambda _: None) == (False, [b"two"])


def test_an_end_before_the_answer_is_an_error_and_nothing_to_glance_at(ends: tuple[Connection, socket.socket]):
    connection, redis = ends
    redis.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionLostError):
        connection.ask(b"a", 1, None)
