"""Micro-batching: nobody waits for a batch to fill, one bad item fails alone, time and room are limited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from virtual_time import run_in_virtual_time

from tidemill.errors import InputError, OnlineStoreUnavailableError, StaleFeaturesError
from tidemill_serving.batching import Batcher
from tidemill_serving.problems import DeadlineError, OverloadedError


class Doubling:
    """Doubles numbers, batch by batch, when `gate` is open; refuses 13, finds 77 too old and fails on 99."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        await self.gate.wait()
        if 13 in batch:
            raise InputError("13 cannot be doubled.")
        if 77 in batch:
            raise StaleFeaturesError("77 is too old.")
        if 99 in batch:
            raise OnlineStoreUnavailableError("The store is gone.")
        return [2 * number for number in batch]


def batcher(work: Doubling, **limits: Any) -> Batcher[int, int]:
    return Batcher(work.run, **({"largest": 4, "pending": 100, "seconds": 30.0} | limits))


def run(scenario: Callable[[Doubling], Any]) -> Any:
    async def play() -> Any:
        return await scenario(Doubling())

    return run_in_virtual_time(play())


async def together(doubled: Batcher[int, int], numbers: list[int]) -> list[Any]:
    return await asyncio.gather(*(doubled.submit(number) for number in numbers), return_exceptions=True)


def test_a_single_item_is_answered_at_once() -> None:
    async def scenario(work: Doubling) -> None:
        assert await batcher(work).submit(21) == 42
        assert work.batches == [[21]]

    run(scenario)


def test_items_that_came_meanwhile_share_batches_no_larger_than_allowed_and_keep_their_order() -> None:
    async def scenario(work: Doubling) -> None:
        doubled = batcher(work)
        assert await together(doubled, list(range(10))) == [2 * number for number in range(10)]
        assert work.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert doubled.pending == 0

    run(scenario)


def test_items_of_different_kinds_never_share_a_batch() -> None:
    async def scenario(work: Doubling) -> None:
        doubled = batcher(work)
        kinds = [1, 1, 2, 2, 1]
        answers = await asyncio.gather(*(doubled.submit(number, kind=kind) for number, kind in enumerate(kinds)))
        assert answers == [0, 2, 4, 6, 8]
        assert work.batches == [[0, 1], [2, 3], [4]]

    run(scenario)


def test_a_refused_item_fails_alone() -> None:
    async def scenario(work: Doubling) -> None:
        answers = await together(batcher(work), [1, 13, 3])
        assert (answers[0], answers[2]) == (2, 6)
        assert isinstance(answers[1], InputError)

    run(scenario)


def test_a_store_that_is_gone_is_told_to_all_without_asking_again_for_each() -> None:
    async def scenario(work: Doubling) -> None:
        answers = await together(batcher(work), [1, 99, 3])
        assert all(isinstance(answer, OnlineStoreUnavailableError) for answer in answers)
        assert len(work.batches) == 1

    run(scenario)


def test_beyond_its_room_items_are_turned_away_and_later_ones_are_welcome_again() -> None:
    async def scenario(work: Doubling) -> None:
        doubled = batcher(work, pending=2)
        work.gate.clear()
        waiting = [asyncio.ensure_future(doubled.submit(number)) for number in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="2 requests are waiting already"):
            await doubled.submit(3)
        work.gate.set()
        assert await asyncio.gather(*waiting) == [2, 4]
        assert await doubled.submit(3) == 6

    run(scenario)


def test_an_item_whose_time_is_up_is_told_so_and_not_begun_any_more() -> None:
    async def scenario(work: Doubling) -> None:
        doubled = batcher(work, largest=1, seconds=0.05)
        work.gate.clear()
        answers = await together(doubled, [1, 2, 3])
        assert all(isinstance(answer, DeadlineError) for answer in answers)
        work.gate.set()
        assert await doubled.submit(4) == 8
        assert work.batches == [[1], [4]]

    run(scenario)


def test_what_is_begun_is_waited_for_where_it_must_be_known_what_became_of_it() -> None:
    async def scenario(work: Doubling) -> None:
        doubled = batcher(work, largest=2, seconds=0.05, finishes=True)
        work.gate.clear()
        begun = [asyncio.ensure_future(doubled.submit(number)) for number in (1, 2)]
        await asyncio.sleep(0.01)
        with pytest.raises(DeadlineError):
            await doubled.submit(3)
        assert not any(one.done() for one in begun)
        work.gate.set()
        assert await asyncio.gather(*begun) == [2, 4]
        assert work.batches == [[1, 2]]
        assert await doubled.submit(4) == 8

    run(scenario)


def test_deadlines_are_each_item_s_own() -> None:
    async def scenario(work: Doubling) -> None:
        doubled = batcher(work, largest=1, seconds=0.2, lanes=2)
        work.gate.clear()
        early = asyncio.ensure_future(doubled.submit(1))
        await asyncio.sleep(0.15)
        late = asyncio.ensure_future(doubled.submit(2))
        with pytest.raises(DeadlineError):
            await early
        assert not late.done()
        work.gate.set()
        assert await late == 4

    run(scenario)


def test_an_item_that_comes_just_when_the_last_one_was_answered_is_begun() -> None:
    async def scenario(work: Doubling) -> None:
        doubled = batcher(work, seconds=1.0)
        for pauses in range(8):
            first = asyncio.ensure_future(doubled.submit(1))
            for _ in range(pauses):
                await asyncio.sleep(0)
            assert await doubled.submit(2) == 4
            assert await first == 2

    run(scenario)


def test_whoever_gave_up_waiting_leaves_no_trace() -> None:
    async def scenario(work: Doubling) -> None:
        doubled = batcher(work)
        work.gate.clear()
        given_up = asyncio.ensure_future(doubled.submit(1))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        assert doubled.pending == 0
        work.gate.set()
        assert await doubled.submit(2) == 4

    run(scenario)


def test_values_too_old_for_one_are_not_held_against_the_others() -> None:
    async def scenario(work: Doubling) -> None:
        answers = await together(batcher(work), [1, 77, 3])
        assert (answers[0], answers[2]) == (2, 6)
        assert isinstance(answers[1], StaleFeaturesError)

    run(scenario)


def test_heavy_items_are_turned_away_before_there_are_too_many_of_them() -> None:
    """One that is too heavy by itself is taken where nobody else waits."""

    async def scenario(work: Doubling) -> None:
        doubled = batcher(work, heaviest=10)
        work.gate.clear()
        begun = [asyncio.create_task(doubled.submit(number, weight=5)) for number in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="10 rows"):
            await doubled.submit(3)
        work.gate.set()
        assert await asyncio.gather(*begun) == [2, 4]
        assert await doubled.submit(4, weight=11) == 8

    run(scenario)
