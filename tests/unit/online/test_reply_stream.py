"""A bulk load's connection: what becomes of it when Redis does, and how it gives way to those who read."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from waiting import PATIENCE, wait_until

from tidemill.errors import OnlineStoreUnavailableError
from tidemill.online.resp import RespClient, pack_command


def test_a_redis_that_dies_while_the_last_replies_of_a_stream_are_due_is_told(own_server):
    client = RespClient(own_server.ensure_started())
    with client.stream() as stream, ThreadPoolExecutor(1) as pool:
        stream.send(pack_command("BLPOP", "nothing", 0), 1)
        wait_until(lambda: b"cmd=blpop" in client.call("CLIENT", "LIST"))
        ending = pool.submit(stream.finish)
        os.kill(own_server.pid, signal.SIGKILL)
        with pytest.raises(OnlineStoreUnavailableError):
            ending.result(PATIENCE)
    client.close()


class Interrupted:
    """The parts that a stream has yet to send; Ctrl-C comes while the first end of all waits for room."""

    def __init__(self, parts: Any) -> None:
        self._parts, self._interrupts = parts, [KeyboardInterrupt()]

    def put(self, pieces: Any) -> None:
        if pieces is None and self._interrupts:
            raise self._interrupts.pop()
        self._parts.put(pieces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts, name)


def test_a_load_that_is_interrupted_while_its_end_waits_for_room_ends(own_server):
    client = RespClient(own_server.ensure_started())
    stream = client.stream()
    stream._parts = Interrupted(stream._parts)  # type: ignore[assignment]
    stream.send(pack_command("PING"), 1)
    with pytest.raises(KeyboardInterrupt):
        stream.finish()
    leaving = threading.Thread(target=stream.__exit__, daemon=True)
    leaving.start()
    leaving.join(PATIENCE)
    assert not leaving.is_alive()
    client.close()
