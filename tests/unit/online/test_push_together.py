"""Few events of several callers go to Redis together; each caller is answered for its own."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from departures import WINDOW, departures
from online_stores import open_store
from waiting import PATIENCE, wait_until

from tidemill.errors import ConflictError, OnlineStoreUnavailableError
from tidemill.online.keys import key_layout
from tidemill.online.push import write_events, writer_of
from tidemill.online.push_few import FewRows
from tidemill.online.push_together import PushesTogether, Waiting, next_batch
from tidemill.online.store import OnlineStore
from tidemill.online.tile_log import TileLog

NOW = datetime(2013, 10, 1, 12, tzinfo=UTC)
AT = 1_380_628_800_000_000


def rows(*names: str) -> FewRows:
    return FewRows(event=[AT] * len(names), known=[AT] * len(names), values=[(name,) for name in names])


class Writes:
    """A write that can be held up, and notes which rows came together at which instant."""

    def __init__(self, refuse: Callable[[Sequence[str]], Exception | None] = lambda _names: None) -> None:
        self.batches: list[list[str]] = []
        self.instants: list[int] = []
        self.begun, self.open = threading.Event(), threading.Event()
        self._refuse = refuse

    def __call__(self, found: FewRows, at: int) -> set[int]:
        names = [values[0] for values in found.values]
        if not self.begun.is_set():
            self.begun.set()
            assert self.open.wait(PATIENCE)
        self.batches.append(names)
        self.instants.append(at)
        error = self._refuse(names)
        if error is not None:
            raise error
        return {place for place, name in enumerate(names) if name.startswith("again")}


def while_the_first_is_written(writes: Writes, *pushes: tuple[FewRows, int]) -> list[Future[int]]:
    """What callers are told who come, one after the other, while somebody is at work."""
    together = PushesTogether(writes)
    with ThreadPoolExecutor(len(pushes) + 1) as threads:
        first = threads.submit(together.write, rows("first"), AT)
        assert writes.begun.wait(PATIENCE)
        found = []
        for place, (some, at) in enumerate(pushes, start=1):
            found.append(threads.submit(together.write, some, at))
            wait_until(lambda: len(together._queue) == place)  # noqa: B023 - asked at once
        writes.open.set()
    assert first.result(PATIENCE) == 0
    return found


def test_whoever_comes_while_one_is_at_work_goes_together_in_order_and_is_told_of_its_own_rows() -> None:
    writes = Writes()
    found = while_the_first_is_written(
        writes, (rows("b", "again b"), AT), (rows("c"), AT + 5), (rows("again d", "again e"), AT + 1)
    )
    assert writes.batches == [["first"], ["b", "again b", "c", "again d", "again e"]]
    assert writes.instants == [AT, AT + 5]
    assert [one.result(PATIENCE) for one in found] == [1, 0, 2]


def test_an_event_that_redis_refuses_fails_its_own_caller_alone() -> None:
    writes = Writes(lambda names: ConflictError("It is of another kind.") if "bad" in names else None)
    found = while_the_first_is_written(writes, (rows("b"), AT), (rows("bad"), AT), (rows("again d"), AT))
    assert found[0].result(PATIENCE) == 0
    assert found[2].result(PATIENCE) == 1
    with pytest.raises(ConflictError, match="another kind"):
        found[1].result(PATIENCE)
    assert writes.batches == [["first"], ["b", "bad", "again d"], ["b"], ["bad"], ["again d"]]


def test_all_are_told_that_redis_is_gone_and_none_is_tried_again() -> None:
    writes = Writes(lambda names: OnlineStoreUnavailableError("It is gone.") if "first" not in names else None)
    found = while_the_first_is_written(writes, (rows("b"), AT), (rows("c"), AT))
    for one in found:
        with pytest.raises(OnlineStoreUnavailableError, match="It is gone"):
            one.result(PATIENCE)
    assert writes.batches == [["first"], ["b", "c"]]


def test_after_an_interruption_the_others_are_told_and_the_next_caller_is_served() -> None:
    interrupted = threading.Event()

    def write(found: FewRows, _at: int) -> set[int]:
        if found.values[0] == ("b",):
            interrupted.set()
            raise KeyboardInterrupt
        return writes(found, _at)

    writes = Writes()
    together = PushesTogether(write)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(together.write, rows("first"), AT)
        assert writes.begun.wait(PATIENCE)
        found = []
        for place, name in enumerate("bc", start=1):
            found.append(threads.submit(together.write, rows(name), AT))
            wait_until(lambda: len(together._queue) == place)  # noqa: B023 - asked at once
        writes.open.set()
        assert first.result(PATIENCE) == 0
        with pytest.raises(KeyboardInterrupt):
            found[0].result(PATIENCE)
        with pytest.raises(OnlineStoreUnavailableError, match="interrupted"):
            found[1].result(PATIENCE)
    assert interrupted.is_set()
    assert together.write(rows("again d"), AT) == 1


def test_callers_whose_presents_are_far_apart_and_too_many_rows_are_written_one_after_the_other() -> None:
    queue = deque([Waiting(rows("a"), AT), Waiting(rows("b"), AT + 2_000_000), Waiting(rows("c"), AT)])
    assert [len(next_batch(queue)) for _ in range(3)] == [1, 1, 1]
    queue = deque(Waiting(rows(*"abcdefgh" * 4), AT) for _ in range(5))
    assert [len(next_batch(queue)) for _ in range(3)] == [2, 2, 1]


@pytest.fixture
def store(address: str, tmp_path: Path) -> Iterator[OnlineStore]:
    store = open_store(departures("together"), address, at=NOW, root=tmp_path, redis_timeout=30)
    yield store
    store.close()


def departure(number: int, **others: Any) -> dict[str, Any]:
    """One of 300, each of which comes twice."""
    origin, carrier = f"O{number % 7}", f"C{number % 3}"
    at = NOW - timedelta(seconds=number % 300 * 15)  # some of them over an hour ago
    return {"origin": origin, "carrier": carrier, "event": at, "delay": number % 50, "id": str(number % 300)} | others


@contextmanager
def held_up(store: OnlineStore):
    """Somebody is at work until the block ends, so that all who come meanwhile go together."""
    together = writer_of(store, "departed").together
    with together._guard:
        together._at_work = True
    try:
        yield together
    finally:
        together._pass_on()


def test_events_from_many_threads_count_once_each_and_end_in_the_state_of_one_thread(store: OnlineStore) -> None:
    events = [departure(number) for number in range(300)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda event: write_events(store, "departed", [event], NOW), events + events))
    assert Counter(answer.accepted for answer in answers) == {1: 300, 0: 300}
    assert Counter(answer.duplicates for answer in answers) == {0: 300, 1: 300}
    for view, key in (("origins", "origin"), ("carriers", "carrier")):
        names = sorted({event[key] for event in events})
        found = store.read_features([f"{view}:{view}_count", f"{view}:{view}_delay"], [{key: name} for name in names])
        inside = [event for event in events if event["event"] >= NOW - WINDOW]
        of_each = [[event["delay"] for event in inside if event[key] == name] for name in names]
        assert found.values[f"{view}_count"] == [len(delays) for delays in of_each]
        assert found.values[f"{view}_delay"] == [sum(delays) for delays in of_each]


def test_a_key_of_another_kind_in_redis_fails_only_who_meets_it(store: OnlineStore) -> None:
    view = store.catalog.view("origins")
    foreign = TileLog.of(view).prefix("together") + key_layout(store.catalog, view).encode(["O1"])
    store.resp.call("LPUSH", foreign, "not ours")
    with ThreadPoolExecutor(3) as threads:
        with held_up(store) as together:
            found = [threads.submit(write_events, store, "departed", [departure(n)], NOW) for n in (0, 1, 2)]
            wait_until(lambda: len(together._queue) == 3)
        assert [found[place].result(PATIENCE).accepted for place in (0, 2)] == [1, 1]
        with pytest.raises(ConflictError, match="another kind"):
            found[1].result(PATIENCE)
    assert store.read_features(["carriers:carriers_count"], [{"carrier": f"C{n}"} for n in range(3)]).values == {
        "carriers_count": [1, 0, 1]
    }


def test_events_are_sent_again_over_a_new_connection_only_where_each_has_an_id(store: OnlineStore) -> None:
    writer = writer_of(store, "departed")

    def is_sent_again(*events: dict[str, Any]) -> bool:
        found = writer.few_rows(list(events), NOW)
        assert found is not None
        return next(writer.tiles.few_steps(found, at=AT)).retry

    assert is_sent_again(departure(1), departure(2))
    assert not is_sent_again(departure(1), departure(2, id=None))
    assert not is_sent_again(departure(2, id=None))
