"""A store that is away fills no disk with the same line."""

from __future__ import annotations

import logging

import pytest

from tidemill.errors import UnavailableError
from tidemill_serving.refusal_log import RefusalLog

AWAY = UnavailableError("Redis is away.")


def test_some_refusals_of_a_second_are_logged_and_the_others_counted(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog(logging.getLogger("tidemill.serving"))
    for number in range(5_000):
        log.note("/v1/features/rides", AWAY, at=100.0 + number / 5_000)
    assert caplog.messages == ["Answering /v1/features/rides: Redis is away."] * 10
    log.note("/v1/features/rides", AWAY, at=101.5)
    assert caplog.messages[-1].endswith("Redis is away. (4,990 refusals before it were not logged)")
    log.note("/v1/features/rides", AWAY, at=102.5)
    assert caplog.messages[-1] == caplog.messages[0]
    assert len(caplog.messages) == 12
