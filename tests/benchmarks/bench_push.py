"""Pushing events into windows, and reading them: Tidemill beside Feast's plain push; same Redis, same rows, same run.

    python tests/benchmarks/bench_push.py [--events 30000] [--rounds 500] [--json FILE]

An event goes into 4 views (origin, carrier, destination, route) x 4 windows (1 h, 3 h, 24 h, 7 d). Before anything is
timed the windows read online are compared with the offline ones at the same instant. Feast writes the same rows to one
plain view, which keeps only the last of them. A read takes 16 windowed features from 4 entities, or 16 plain ones.
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
WINDOWS = {"1h": timedelta(hours=1), "3h": timedelta(hours=3), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
KEYS = {"origin": ("origin",), "carrier": ("carrier",), "dest": ("dest",), "route": ("origin", "dest")}
TARGETS = {
    "events a second": ("at least", 10_000.0),
    "Feast's push of the same rows": ("at least", 20.0),
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


def make_events(count: int, seed: int = 7) -> pl.DataFrame:
    """A week of departures in order of time: 3 origins, 16 carriers, 100 destinations."""
    random = np.random.default_rng(seed)
    event = to_micros(START) + np.sort(random.integers(0, 7 * 86_400 * 10**6, count))
    return pl.DataFrame(
        {
            "origin": random.choice(["JFK", "LGA", "EWR"], count),
            "carrier": random.choice([f"C{number}" for number in range(16)], count),
            "dest": random.choice([f"D{number}" for number in range(100)], count),
            "event": pl.Series(event).cast(pl.Datetime("us", "UTC")),
            "delay": random.normal(10.0, 30.0, count),
            "flight_id": [f"flight-{number}" for number in range(count)],
        }
    )


def run(count: int, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": platform.platform(), "python": platform.python_version(), "events": count}
    found["versions"] = {name: version(name) for name in ("feast", "redis", "hiredis", "polars")}
    events = make_events(count)
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
                clock=ManualClock(START + timedelta(days=7)),
            )
            found["push"] = {f"{size} events a call": _push(store, events, size) for size in (1_000, 100, 1)}
            found["feast"] = _feast_push(server, root, events[: min(count, 10_000)])
            found["reads"] = _reads(store, events, rounds)
        finally:
            server.stop()
    ours = found["push"]["1000 events a call"]
    found["ratios"] = {
        "events a second": ours,
        "Feast's push of the same rows": ours / found["feast"],
        "windowed read over plain read": found["reads"]["windowed"] / found["reads"]["plain"],
    }
    return found


def _push(store: OnlineStore, events: pl.DataFrame, size: int) -> float:
    """Events a second, into empty windows; with few events a call, fewer of them."""
    store.resp.call("FLUSHALL")
    some = events if size >= 100 else events[-500:]
    at = START + timedelta(days=7)
    start = time.perf_counter()
    for first in range(0, len(some), size):
        write_events(store, "departed", some[first : first + size], at)
    seconds = time.perf_counter() - start
    _compare(store, some)
    return len(some) / seconds


def _compare(store: OnlineStore, events: pl.DataFrame) -> None:
    """Every window of every entity, online and offline at the same instant."""
    at = np.array([to_micros(START + timedelta(days=7))])
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


def _feast_push(server: EmbeddedRedis, root: Path, events: pl.DataFrame) -> float:
    """Rows a second of Feast's push to one plain view of its own Redis store, a thousand rows a call."""
    from feast import Entity as FeastEntity
    from feast import FeatureStore, FeatureView, FileSource, PushSource, RepoConfig
    from feast import Field as FeastField
    from feast.data_source import PushMode
    from feast.types import Float64, String
    from feast.value_type import ValueType as FeastType

    events[:1].write_parquet(root / "none.parquet")
    origin, dest = (FeastEntity(name=key, join_keys=[key], value_type=FeastType.STRING) for key in ("origin", "dest"))
    batch = FileSource(name="departures", path=str(root / "none.parquet"), timestamp_field="event")
    pushed = PushSource(name="departed", batch_source=batch)
    schema = [FeastField(name=key, dtype=String) for key in ("origin", "dest")]
    view = FeatureView(
        name="route",
        entities=[origin, dest],
        schema=[*schema, FeastField(name="delay", dtype=Float64)],
        source=pushed,
    )
    feast = FeatureStore(
        config=RepoConfig(
            project="feast_bench",
            provider="local",
            registry={"path": str(root / "registry.db"), "cache_ttl_seconds": 0},
            online_store={"type": "redis", "connection_string": f"none:0,unix_socket_path={server.socket}"},
            entity_key_serialization_version=3,
        )
    )
    feast.apply([origin, dest, pushed, view])
    frames = [
        events[first : first + 1_000].select("origin", "dest", "event", "delay").to_pandas()
        for first in range(0, len(events), 1_000)
    ]
    feast.push("departed", frames[0], to=PushMode.ONLINE)
    start = time.perf_counter()
    for frame in frames:
        feast.push("departed", frame, to=PushMode.ONLINE)
    return len(events) / (time.perf_counter() - start)


def _reads(store: OnlineStore, events: pl.DataFrame, rounds: int) -> dict[str, float]:
    """Microseconds of a read of 16 features for one row, windowed and plain in turn."""
    store.resp.call("FLUSHALL")
    at = START + timedelta(days=7)
    for first in range(0, len(events), 1_000):
        write_events(store, "departed", events[first : first + 1_000], at)
    for name in KEYS:
        view = store.catalog.view(f"{name}_plain")
        rows = events.select(view.join_keys).unique()
        values = [pl.lit(float(number)).alias(feature.name) for number, feature in enumerate(view.features)]
        instant = pl.lit(START).cast(pl.Datetime("us", "UTC"))
        frame = rows.with_columns(*values, __event_time=instant, __known_time=instant)
        store.write(view.name, frame, first_load=True)
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
    print("\nevents a second into 4 keys x 4 windows")
    for calls, rate in found["push"].items():
        print(f"  {calls:30} {rate:10,.0f}")
    print(f"  {'Feast, one plain view':30} {found['feast']:10,.0f}")
    print("\nread of 16 features, 1 row, microseconds")
    for name, micros in found["reads"].items():
        print(f"  {name:30} {micros:10,.0f}")
    print()
    for name, ratio in found["ratios"].items():
        how, target = TARGETS[name]
        held = ratio <= target if how == "at most" else ratio >= target
        print(f"  {name:36} {ratio:10,.2f}   {how} {target:g}   {'held' if held else 'MISSED'}")


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
