"""A bulk load's connection: what becomes of it when Redis does, and how it gives way to those who read."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

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
