"""Two runs, a backfill and a push, each in its steps, in every order in which the steps can come: one state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from online_stores import open_store

from tidemill.definitions import Catalog, Entity, Feature, Source, Stream, ValueType, View
from tidemill.online.push import write_events
from tidemill.online.store import OnlineStore

T0 = datetime(2013, 10, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TIMES = pl.Datetime("us", "UTC")
CATALOG = Catalog(
    project="p",
    entities=(Entity(name="e", join_key="id", dtype=ValueType.INT64),),
    sources=(Source(name="s", path="s", timestamp_field="at", known_field="known"),),
    streams=(Stream(name="pushed", kind="push", source="s"),),
    views=(
        View(
            name="v",
            entities=("e",),
            join_keys=("id",),
            features=(Feature(name="x", dtype=ValueType.INT64), Feature(name="y", dtype=ValueType.STRING)),
            source="s",
            stream="pushed",
        ),
    ),
)

Fact = tuple[int, int, int, int]
"""Entity, minutes of the event, minutes of when it was known, and the value."""
Step = tuple[str, int, list[Fact]]
"""Who writes, when the writer learned its facts (minutes), and what it writes in one step."""

FIRST_RUN: list[Step] = [("run", 10, [(1, 5, 5, 1), (2, 9, 9, 2)]), ("run", 10, [(3, 8, 8, 3), (4, 1, 1, 4)])]
SECOND_RUN: list[Step] = [
    ("run", 20, [(1, 5, 12, 11), (2, 15, 15, 12)]),  # a correction of an old event, and a new event
    ("run", 20, [(3, 8, 8, 13), (4, 2, 19, 14)]),  # the same fact told otherwise, and a late event
]
BACKFILL: list[Step] = [("run", 15, [(1, 4, 14, 21), (2, 9, 14, 22)]), ("run", 15, [(3, 8, 8, 23), (4, 1, 2, 24)])]
PUSH: list[Step] = [("push", 18, [(1, 5, 12, 31), (2, 16, 16, 32), (3, 8, 7, 33), (4, 2, 18, 34), (5, 18, 18, 35)])]
WRITERS = (FIRST_RUN, SECOND_RUN, BACKFILL, PUSH)


def interleavings(writers: Sequence[Sequence[Step]]) -> Iterator[list[Step]]:
    """Every order of all steps in which each writer's own come in order."""
    if not any(writers):
        yield []
    for place, steps in enumerate(writers):
        if steps:
            for rest in interleavings([*writers[:place], steps[1:], *writers[place + 1 :]]):
                yield [steps[0], *rest]


def expected() -> dict[int, int]:
    """Of each entity the value of the greatest event, then known time, then moment of learning."""
    facts = [
        (entity, (event, known, learned), value)
        for steps in WRITERS
        for _, learned, told in steps
        for entity, event, known, value in told
    ]
    entities = {entity for entity, _, _ in facts}
    return {entity: max((order, value) for one, order, value in facts if one == entity)[1] for entity in entities}


def frame(facts: Sequence[Fact], event: str, known: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [entity for entity, *_ in facts],
            "x": [value for *_, value in facts],
            "y": [f"<{value}>" for *_, value in facts],
            event: pl.Series([T0 + at * MINUTE for _, at, _, _ in facts], dtype=TIMES),
            known: pl.Series([T0 + at * MINUTE for _, _, at, _ in facts], dtype=TIMES),
        }
    )


@pytest.fixture(params=["feast", "packed"])
def store(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> Iterator[OnlineStore]:
    store = open_store(CATALOG, address, at=T0, root=tmp_path, online_layout=request.param)
    yield store
    store.close()


def state(store: OnlineStore) -> dict[bytes, list[bytes]]:
    keys = store.resp.call("KEYS", "*")
    return {
        key: sorted(found) for key, found in zip(keys, store.resp.pipeline([("HGETALL", k) for k in keys]), strict=True)
    }


def test_every_interleaving_of_two_runs_a_backfill_and_a_push_ends_in_the_same_state(store: OnlineStore) -> None:
    frames = {
        id(step): frame(step[2], "__event_time", "__known_time") if step[0] == "run" else frame(step[2], "at", "known")
        for steps in WRITERS
        for step in steps
    }
    first: dict[bytes, list[bytes]] | None = None
    count = 0
    for order in interleavings(WRITERS):
        store.resp.call("FLUSHALL")
        for step in order:
            kind, learned, _ = step
            if kind == "run":
                store.write("v", frames[id(step)], learned=T0 + learned * MINUTE)
            else:
                write_events(store, "pushed", frames[id(step)], T0 + learned * MINUTE)
        found = state(store)
        first = found if first is None else first
        assert found == first, [(kind, learned) for kind, learned, _ in order]
        count += 1
    assert count == 630  # 7 steps; 3 writers have 2 each: 7! / (2! 2! 2!)
    wanted = expected()
    rows = [{"id": entity} for entity in wanted]
    read = store.read_features(["v:x", "v:y"], rows)
    assert read.values["x"] == list(wanted.values())
    assert read.values["y"] == [f"<{value}>" for value in wanted.values()]
