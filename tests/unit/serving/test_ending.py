"""How long a server that is told to end has for what it was asked before."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from small_project import open_small

from tidemill.cli.up import grace_of
from tidemill_serving.draining import DrainingServer
from tidemill_serving.process import server_config


@pytest.mark.parametrize("seconds", [0.5, 5.0, 60.0])
def test_whoever_ends_a_server_waits_for_the_slowest_request_that_it_takes(tmp_path: Path, seconds: float) -> None:
    """Such a request takes all of its time to arrive, and all of its time again to be answered."""
    with closing(open_small(tmp_path, request_timeout=seconds)) as project:
        waits = server_config(project, host="127.0.0.1", port=0).timeout_graceful_shutdown
        assert waits is not None
        assert waits > 2 * seconds
        assert grace_of(project.settings) > waits + DrainingServer.last_call + DrainingServer.last_words


def test_whoever_owns_the_process_is_told_before_anything_is_waited_for(tmp_path: Path) -> None:
    told: list[bool] = []
    with closing(open_small(tmp_path)) as project:
        server = DrainingServer(server_config(project, host="127.0.0.1", port=0))
        server.when_told_to_end = lambda: told.append(server.started)
        server.should_exit = True
        server.run()
    assert told == [True]
