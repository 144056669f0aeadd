"""Writes have room and time of their own: what waits too long is never begun, what was begun is waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from waiting import PATIENCE

from tidemill_serving.problems import DeadlineError, OverloadedError
from tidemill_serving.write_lane import WriteLane


class Gate:
    """A write that waits to be let through, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun, self.open = 0, threading.Event()

    def write(self) -> str:
        self.begun += 1
        assert self.open.wait(PATIENCE)
        return "written"


def run(scenario: Callable[[Gate], Awaitable[None]]) -> None:
    asyncio.run(scenario(Gate()))  # type: ignore[arg-type]


async def begun(lane: WriteLane, gate: Gate, count: int) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(lane.run(gate.write)) for _ in range(count)]
    while gate.begun < min(count, 8):
        await asyncio.sleep(0.001)
    return tasks


def test_beyond_its_room_a_write_is_turned_away() -> None:
    async def scenario(gate: Gate) -> None:
        lane = WriteLane(pending=3, seconds=30.0)
        tasks = await begun(lane, gate, 3)
        with pytest.raises(OverloadedError, match="3 writes are waiting"):
            await lane.run(gate.write)
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["written"] * 3
        assert await lane.run(gate.write) == "written"
        assert lane.pending == 0
        lane.close()

    run(scenario)


def test_a_write_that_waits_too_long_is_never_begun_and_one_that_was_begun_is_waited_for() -> None:
    async def scenario(gate: Gate) -> None:
        lane = WriteLane(pending=100, seconds=60.0)
        tasks = await begun(lane, gate, 8)  # as many as there are threads
        lane._seconds = 0.05  # for the next one alone: a busy machine may take long to begin those
        with pytest.raises(DeadlineError, match="none is written"):
            await lane.run(gate.write)
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["written"] * 8
        lane.close()
        assert gate.begun == 8

    run(scenario)
