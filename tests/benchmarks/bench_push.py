"""Pushing events into windows, and reading them: Tidemill beside Feast's plain push; same Redis, same rows, same run.

    python tests/benchmarks/bench_push.py [--events 30000] [--rounds 500] [--json FILE]

Windows that hold a week of history receive events at the rate of a busy stream (10,000 a second of event time), each
into 4 views (origin, carrier, destination, route) x 4 windows (1 h, 3 h, 24 h, 7 d); afterwards all windows are held
against the offline ones at the same instant. Feast's documented `store.push(..., to=PushMode.ONLINE)` writes the same
rows to one plain view, which keeps only the last of each key, and to four plain views of the same keys, which is the
nearer likeness. Its registry is cached for good, its Redis is ours with the same append-only file, rows come as a
Polars frame here and as a pandas frame there. Neither writes history. Only ours remembers which events it has seen.
Calls take turns in blocks, since nobody's events are pushed by both: each finds the processor's caches as its own
last call left them. A read takes 16 windowed features from 4 entities, or 16 plain ones.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tidemill.clock import ManualClock, to_micros
from tidemill.definitions.catalog import (
    Aggregation,
    AggregationFunction,
    Catalog,
    Entity,
    Field,
    Projection,
    Service,
    Source,
    Stream,
    View,
)
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import hop_for
from tidemill.offline.windows import window_values
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.push import write_events
from tidemill.online.store import OnlineStore
from tidemill.settings import Settings

START = datetime(2013, 10, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
NOW = START + WEEK + timedelta(seconds=30)
HISTORY = 20_000
WINDOWS = {"1h": timedelta(hours=1), "3h": timedelta(hours=3), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
CALLS = {1: 500, 10: 200, 100: 50, 1_000: None}
"""How many calls of each size; the largest take the rest of the events."""
BLOCKS = {1: 50, 10: 20, 100: 10, 1_000: 3}
"""How many calls of each size are made at a stretch, before it is another's turn."""
PLAIN = ("origin", "carrier", "dest", "event", "delay")
KEYS = {"origin": ("origin",), "carrier": ("carrier",), "dest": ("dest",), "route": ("origin", "dest")}
TARGETS = {
    "events a second": ("at least", 10_000.0),
    "over Feast's push": ("at least", 20.0),
    "windowed read over plain read": ("at most", 2.0),
}


def windowed(name: str) -> View:
    aggregations = tuple(
        Aggregation(
            name=f"{name}_delay_{text}",
            function=AggregationFunction.MEAN,
            column="delay",
            window=window,
            hop=hop_for(window),
        )
        for text, window in WINDOWS.items()
    )
    return View(
        name=f"{name}_windows",
        entities=KEYS[name],
        join_keys=KEYS[name],
        features=tuple(Field(name=item.name, dtype=ValueType.DOUBLE) for item in aggregations),
        source="departures",
        stream="departed",
        aggregations=aggregations,
        event_id="flight_id",
    )


def plain(name: str) -> View:
    features = tuple(Field(name=f"{name}_plain_{number}", dtype=ValueType.DOUBLE) for number in range(4))
    return View(name=f"{name}_plain", entities=KEYS[name], join_keys=KEYS[name], features=features, source="departures")


def make_catalog() -> Catalog:
    views = {"windows": [windowed(name) for name in KEYS], "plain": [plain(name) for name in KEYS]}
    return Catalog(
        project="bench",
        entities=tuple(Entity(name=key, join_key=key, dtype=ValueType.STRING) for key in ("origin", "carrier", "dest")),
        sources=(Source(name="departures", path="departures", timestamp_field="event"),),
        streams=(Stream(name="departed", kind="push", source="departures"),),
        views=(*views["windows"], *views["plain"]),
        services=tuple(
            Service(
                name=name,
                projections=tuple(
                    Projection(view=view.name, features=tuple(feature.name for feature in view.features))
                    for view in of_kind
                ),
            )
            for name, of_kind in views.items()
        ),
    )


def make_events(count: int, start: datetime, span: timedelta, *, seed: int) -> pl.DataFrame:
    """Departures in order of time: 3 origins, 16 carriers, 100 destinations."""
    random = np.random.default_rng(seed)
    event = to_micros(start) + np.sort(random.integers(0, span // timedelta(microseconds=1), count))
    return pl.DataFrame(
        {
            "origin": random.choice(["JFK", "LGA", "EWR"], count),
            "carrier": random.choice([f"C{number}" for number in range(16)], count),
            "dest": random.choice([f"D{number}" for number in range(100)], count),
            "event": pl.Series(event).cast(pl.Datetime("us", "UTC")),
            "delay": random.normal(10.0, 30.0, count),
            "flight_id": [f"flight-{seed}-{number}" for number in range(count)],
        }
    )


def run(count: int, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": platform.platform(), "python": platform.python_version(), "events": count}
    found["versions"] = {name: version(name) for name in ("feast", "redis", "hiredis", "polars")}
    history = make_events(HISTORY, START, WEEK, seed=1)
    events = make_events(count, START + WEEK, timedelta(seconds=count / 10_000), seed=2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        server = EmbeddedRedis(root / "redis")
        try:
            store = OnlineStore(
                address=server.ensure_started(),
                project="bench",
                catalog=make_catalog(),
                settings=Settings(redis_timeout=10),
                root=root,
                clock=ManualClock(NOW),
            )
            write_all(store, history)
            pushers = {
                "tidemill": lambda frame: write_events(store, "departed", frame, NOW),
                "feast": feast_pusher(server, root / "one", events, ("route",)),
                "feast, four views": feast_pusher(server, root / "four", events, tuple(KEYS)),
            }
            found["push"], found["redis"] = _pushes(store, events, pushers)
            compare_windows(store, pl.concat([history, events]))
            found["reads"] = _reads(store, events, rounds)
        finally:
            server.stop()
    calls = found["push"]["tidemill"]
    found["ratios"] = {
        "events a second": calls["1000 events a call"],
        **{f"over Feast's push, {size}": calls[size] / found["push"]["feast"][size] for size in calls},
        **{
            f"over Feast's push to four views, {size}": calls[size] / found["push"]["feast, four views"][size]
            for size in calls
        },
        "windowed read over plain read": found["reads"]["windowed"] / found["reads"]["plain"],
    }
    return found


def write_all(store: OnlineStore, events: pl.DataFrame) -> None:
    for first in range(0, len(events), 1_000):
        write_events(store, "departed", events[first : first + 1_000], NOW)


def _pushes(
    store: OnlineStore, events: pl.DataFrame, pushers: dict[str, Any]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Events a second of each pusher by the median call, in turn with the same rows in the same calls; and the
    microseconds for which Redis itself is busy with one of our calls."""
    rates: dict[str, dict[str, float]] = {who: {} for who in pushers}
    redis: dict[str, float] = {}
    first = 0
    for size, share in CALLS.items():
        times: dict[str, list[float]] = {who: [] for who in pushers}
        busy, calls = 0.0, 0
        last = len(events) // size * size if share is None else first + size * share
        frames = [events[start : start + size] for start in range(first, last, size)]
        for start in range(0, len(frames), BLOCKS[size]):
            block = frames[start : start + BLOCKS[size]]
            plain = [frame.select(*PLAIN).to_pandas() for frame in block]
            for who, push in pushers.items():
                store.resp.call("CONFIG", "RESETSTAT")
                for frame in block if who == "tidemill" else plain:
                    begin = time.perf_counter()
                    push(frame)
                    times[who].append(time.perf_counter() - begin)
                if who == "tidemill":
                    busy, calls = busy + _busy(store), calls + len(block)
        name = f"{size} event{'s' if size > 1 else ''} a call"
        redis[name] = busy / calls
        for who, taken in times.items():
            rates[who][name] = size / statistics.median(taken)
        first = last
    return rates, redis


def _busy(store: OnlineStore) -> float:
    """Microseconds that Redis has spent on scripts since its figures were reset."""
    found = store.resp.call("INFO", "commandstats").decode().splitlines()
    return sum(float(line.split("usec=")[1].split(",")[0]) for line in found if line.startswith("cmdstat_evalsha:"))


def compare_windows(store: OnlineStore, events: pl.DataFrame) -> None:
    """Every window of every entity, online and offline at the same instant."""
    at = np.array([to_micros(NOW)])
    for view in store.catalog.views:
        if not view.is_windowed:
            continue
        keys = events.select(view.join_keys).unique()
        until = np.repeat(at, len(keys))
        there = window_values(view, events.lazy(), keys, until, until, timestamp_field="event")
        names = [feature.name for feature in view.features]
        here = store.read_features([f"{view.name}:{name}" for name in names], keys.to_dicts())
        for name in names:
            other = pl.Series(here.values[name], dtype=pl.Float64)
            assert (other.is_null() == there[name].is_null()).all(), name
            assert ((other - there[name]).abs() <= 1e-9 * there[name].abs().clip(1.0)).fill_null(True).all(), name


def feast_pusher(server: EmbeddedRedis, root: Path, events: pl.DataFrame, names: tuple[str, ...]) -> Any:
    """Feast's push to plain views of its own Redis store, by the names of their keys."""
    from feast import FeatureStore, RepoConfig
    from feast.data_source import PushMode

    feast = FeatureStore(config=RepoConfig(**apply_feast(server, root, events, names)))
    warm = events[:10].select(*PLAIN).to_pandas()
    feast.push("departed", warm, to=PushMode.ONLINE)
    return lambda frame: feast.push("departed", frame, to=PushMode.ONLINE)


def apply_feast(server: EmbeddedRedis, root: Path, events: pl.DataFrame, names: tuple[str, ...]) -> dict[str, Any]:
    """Feast's definitions of those views over the same Redis; its configuration."""
    from feast import Entity as FeastEntity
    from feast import FeatureStore, FeatureView, FileSource, PushSource, RepoConfig
    from feast import Field as FeastField
    from feast.types import Float64, String
    from feast.value_type import ValueType as FeastType

    root.mkdir()
    events[:1].write_parquet(root / "none.parquet")
    entities = {
        key: FeastEntity(name=key, join_keys=[key], value_type=FeastType.STRING)
        for key in ("origin", "carrier", "dest")
    }
    batch = FileSource(name="departures", path=str(root / "none.parquet"), timestamp_field="event")
    pushed = PushSource(name="departed", batch_source=batch)
    views = [
        FeatureView(
            name=name,
            entities=[entities[key] for key in KEYS[name]],
            schema=[
                *(FeastField(name=key, dtype=String) for key in KEYS[name]),
                FeastField(name="delay", dtype=Float64),
            ],
            source=pushed,
        )
        for name in names
    ]
    config = {
        "project": f"feast_bench_{len(names)}",
        "provider": "local",
        "registry": {"path": str(root / "registry.db"), "cache_ttl_seconds": 0},
        "online_store": {"type": "redis", "connection_string": f"none:0,unix_socket_path={server.socket}"},
        "entity_key_serialization_version": 3,
    }
    FeatureStore(config=RepoConfig(**config)).apply([*entities.values(), pushed, *views])
    return config


def _reads(store: OnlineStore, events: pl.DataFrame, rounds: int) -> dict[str, float]:
    """Microseconds of a read of 16 features for one row, windowed and plain in turn."""
    for name in KEYS:
        view = store.catalog.view(f"{name}_plain")
        rows = events.select(view.join_keys).unique()
        values = [pl.lit(float(number)).alias(feature.name) for number, feature in enumerate(view.features)]
        instant = pl.lit(START).cast(pl.Datetime("us", "UTC"))
        frame = rows.with_columns(*values, __event_time=instant, __known_time=instant)
        store.write(view.name, frame)
    times: dict[str, list[float]] = {"windowed": [], "plain": []}
    asked = events.select("origin", "carrier", "dest")[-rounds:].to_dicts()
    for row in [*asked[:50], *asked]:
        for name, service in (("windowed", "windows"), ("plain", "plain")):
            start = time.perf_counter()
            answer = store.read(service, [row])
            times[name].append((time.perf_counter() - start) * 1e6)
            assert len(answer.values) == 16
    return {name: statistics.median(one[50:]) for name, one in times.items()}


def report(found: dict[str, Any]) -> None:
    print(f"{found['machine']}, Python {found['python']}, {found['versions']}")
    print(
        "\nevents a second into 4 keys x 4 windows, and rows a second by Feast's push into one plain view and into four"
    )
    for calls, rate in found["push"]["tidemill"].items():
        one, four = (found["push"][who][calls] for who in ("feast", "feast, four views"))
        print(f"  {calls:24} {rate:10,.0f} {one:10,.0f} {rate / one:6.1f}x {four:10,.0f} {rate / four:6.1f}x")
    print("\nmicroseconds of a call, of which Redis itself is busy")
    for calls, busy in found["redis"].items():
        size = int(calls.split()[0])
        print(f"  {calls:24} {size / found['push']['tidemill'][calls] * 1e6:10,.0f} {busy:10,.0f}")
    print("\nread of 16 features, 1 row, microseconds")
    for name, micros in found["reads"].items():
        print(f"  {name:30} {micros:10,.0f}")
    print()
    for name, ratio in found["ratios"].items():
        how, target = next(target for key, target in TARGETS.items() if name.startswith(key))
        held = ratio <= target if how == "at most" else ratio >= target
        print(f"  {name:50} {ratio:10,.2f}   {how} {target:g}   {'held' if held else 'MISSED'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    outcome = run(options.events, options.rounds)
    report(outcome)
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2))
