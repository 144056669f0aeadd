"""Online reads: Tidemill against the bare socket and against Feast's SDK; same Redis, same data, same run.

    python tests/benchmarks/bench_online.py [--entities 20000] [--rounds 300] [--servers 5] [--json FILE]

Answers are compared first: every reader must return the same values. Times are medians (p50) and p99 of single reads in
microseconds, taken in turn within one run, since single figures drift by half from run to run.

All is measured on several servers, one after the other, of which the medians count: whether the kernel runs a server
beside its client or on the client's own processor halves or doubles a round trip, and stays so while the server lives.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hiredis
import numpy as np
import polars as pl

from tidemill.clock import ManualClock
from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, ValueType, View
from tidemill.online.embedded import EmbeddedRedis
from tidemill.online.store import OnlineStore
from tidemill.settings import Settings

T0 = datetime(2024, 5, 1, 12, tzinfo=UTC)
FEATURES = 10
KINDS = (ValueType.DOUBLE, ValueType.INT64, ValueType.STRING, ValueType.DOUBLE, ValueType.FLOAT)
TARGETS = {
    "1 row: over the bare socket": ("at most", 1.3),
    "1 row: Feast over ours": ("at least", 3.0),
    "100 rows: over the bare socket": ("at most", 1.3),
    "100 rows: Feast over ours": ("at least", 8.0),
    "100 rows: p99 over p50": ("at most", 2.0),
    "100 rows, packed: Feast over ours": ("at least", 20.0),
}


def feature_names(view: int) -> list[str]:
    return [f"v{view}_f{number}" for number in range(FEATURES)]


def make_catalog(views: int) -> Catalog:
    found = tuple(
        View(
            name=f"view{view}",
            entities=("driver",),
            join_keys=("driver_id",),
            features=tuple(
                Feature(name=name, dtype=KINDS[place % len(KINDS)]) for place, name in enumerate(feature_names(view))
            ),
            source="s",
            ttl=timedelta(days=1),
        )
        for view in range(views)
    )
    service = Service(
        name="all",
        projections=tuple(Projection(view=v.name, features=tuple(f.name for f in v.features)) for v in found),
    )
    return Catalog(
        project="bench",
        entities=(Entity(name="driver", join_key="driver_id", dtype=ValueType.INT64),),
        views=found,
        services=(service,),
    )


def make_rows(view: View, entities: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {"driver_id": np.arange(entities)}
    for feature in view.features:
        columns[feature.name] = _values(feature.dtype, random, entities)
    minutes = random.integers(0, 600, entities)
    frame = pl.DataFrame(columns).with_columns(
        (pl.lit(T0) - pl.duration(minutes=pl.Series(minutes))).cast(pl.Datetime("us", "UTC")).alias("__event_time")
    )
    return frame.with_columns(pl.col("__event_time").alias("__known_time"))


def _values(dtype: ValueType, random: np.random.Generator, entities: int) -> pl.Series:
    if dtype is ValueType.INT64:
        return pl.Series(random.integers(0, 1_000_000, entities))
    if dtype is ValueType.STRING:
        return pl.Series(random.integers(0, 500, entities)).cast(pl.String).str.zfill(8)
    floats = pl.Series(random.random(entities))
    return floats.cast(pl.Float32) if dtype is ValueType.FLOAT else floats


def feast_reader(views: int, server: EmbeddedRedis, root: Path) -> Callable[[list[dict[str, Any]]], dict[str, list]]:
    """Feast's SDK as its users run it: local registry, its own Redis store, feature references."""
    from feast import Entity as FeastEntity
    from feast import FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import from_value_type
    from feast.value_type import ValueType as FeastType

    driver = FeastEntity(name="driver", join_keys=["driver_id"], value_type=FeastType.INT64)
    catalog = make_catalog(views)
    tables = [
        FeatureView(
            name=view.name,
            entities=[driver],
            ttl=view.ttl,
            schema=[Field(name="driver_id", dtype=from_value_type(FeastType.INT64))]
            + [Field(name=f.name, dtype=from_value_type(FeastType[f.dtype.name])) for f in view.features],
            source=FileSource(name=f"source_{view.name}", path=str(root / "none.parquet"), timestamp_field="at"),
        )
        for view in catalog.views
    ]
    pl.DataFrame({"driver_id": [0], "at": [T0]}).write_parquet(root / "none.parquet")
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry={"path": str(root / f"registry{views}.db"), "cache_ttl_seconds": 0},
            online_store={"type": "redis", "connection_string": f"none:0,unix_socket_path={server.socket}"},
            entity_key_serialization_version=3,
        )
    )
    store.apply([driver, *tables])
    refs = [f"{view.name}:{feature.name}" for view in catalog.views for feature in view.features]
    return lambda rows: store.get_online_features(features=refs, entity_rows=rows).to_dict()


def bare_reader(store: OnlineStore) -> Callable[[list[dict[str, Any]]], list]:
    """The limit: the very same commands, prepared beforehand, over a bare blocking socket of its own; the replies are
    parsed by the same parser, and neither checked nor decoded."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(store.address.removeprefix("unix://"))
    plan, reader, prepared = store.plan("all"), hiredis.Reader(), {}

    def read(rows: list[dict[str, Any]]) -> list:
        request = prepared.get(id(rows))
        if request is None:
            request = prepared[id(rows)] = plan.prepare(rows)
        connection.sendall(request.packed)
        found: list = []
        while len(found) < request.replies:
            reader.feed(connection.recv(65_536))
            while (reply := reader.gets()) is not False:
                found.append(reply)
        return found

    return read


def measure(readers: dict[str, Callable], requests: list[list[dict[str, Any]]], rounds: int) -> dict[str, list[float]]:
    """Microseconds of each read. The readers take turns in an order that moves on, each with rows of its own: whoever
    asks for what another has just asked for finds it in Redis's caches."""
    times: dict[str, list[float]] = {name: [] for name in readers}
    names = list(readers)
    for number in range(rounds):
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            rows = requests[(7 * number + 11 * turn) % len(requests)]
            start = time.perf_counter()
            readers[name](rows)
            times[name].append((time.perf_counter() - start) * 1e6)
    return times


def compare_answers(readers: dict[str, Callable], requests: list[list[dict[str, Any]]]) -> None:
    for rows in requests[:5]:
        answers = {name: read(rows) for name, read in readers.items()}
        first = answers.pop("tidemill")
        for name, other in answers.items():
            assert {key: list(other[key]) for key in first} == first, f"{name} differs from tidemill"


def run(entities: int, rounds: int, servers: int) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": platform.platform(), "python": platform.python_version(), "rounds": rounds}
    found["versions"] = {name: version(name) for name in ("feast", "redis", "hiredis", "polars")}
    found["servers"] = [_on_a_new_server(entities, rounds) for _ in range(servers)]
    found["reads"] = {
        size: {name: _medians([one[size][name] for one in found["servers"]]) for name in readers}
        for size, readers in found["servers"][0].items()
    }
    ratios = [_ratios(one) for one in found["servers"]]
    found["ratios"] = _medians(ratios)
    found["least"], found["greatest"] = (
        {name: end(one[name] for one in ratios) for name in TARGETS} for end in (min, max)
    )
    return found


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def _on_a_new_server(entities: int, rounds: int) -> dict[str, Any]:
    catalog = make_catalog(3)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        server = EmbeddedRedis(root / "redis")
        address = server.ensure_started()
        try:
            stores = {
                layout: OnlineStore(
                    address=address,
                    project="bench" if layout == "feast" else "bench_packed",
                    catalog=catalog if layout == "feast" else replace(catalog, project="bench_packed"),
                    settings=Settings(online_layout=layout, redis_timeout=10),
                    root=root,
                    clock=ManualClock(T0),
                )
                for layout in ("feast", "packed")
            }
            for store in stores.values():
                for seed, view in enumerate(catalog.views):
                    store.write(view.name, make_rows(view, entities, seed))
            return _reads(stores, feast_reader(3, server, root), entities, rounds)
        finally:
            server.stop()


def _reads(stores: dict[str, OnlineStore], feast: Callable, entities: int, rounds: int) -> dict[str, Any]:
    random = np.random.default_rng(7)
    reads: dict[str, Any] = {}
    feast_and_ours = {
        "tidemill": lambda rows: stores["feast"].read("all", rows).to_dict(),
        "tidemill packed": lambda rows: stores["packed"].read("all", rows).to_dict(),
        "feast": feast,
    }
    for size in (1, 10, 100):
        requests = [
            [{"driver_id": int(entity)} for entity in random.choice(entities, size, replace=False)] for _ in range(50)
        ]
        compare_answers(feast_and_ours, requests)
        gc.collect()
        gc.freeze()  # as the server does after its start
        fast = {
            "bare socket": bare_reader(stores["feast"]),
            "tidemill": lambda rows: stores["feast"].read("all", rows),
            "bare socket, packed": bare_reader(stores["packed"]),
            "tidemill packed": lambda rows: stores["packed"].read("all", rows),
        }
        measure(fast, requests, 50)
        times = measure(fast, requests, rounds) | measure({"feast": feast}, requests, max(30, rounds // 5))
        gc.unfreeze()
        reads[f"{size} row{'s' if size > 1 else ''}"] = {
            name: {"p50": statistics.median(one), "p99": float(np.percentile(one, 99))} for name, one in times.items()
        }
    return reads


def _ratios(reads: dict[str, Any]) -> dict[str, float]:
    one, many = reads["1 row"], reads["100 rows"]
    return {
        "1 row: over the bare socket": one["tidemill"]["p50"] / one["bare socket"]["p50"],
        "1 row: Feast over ours": one["feast"]["p50"] / one["tidemill"]["p50"],
        "100 rows: over the bare socket": many["tidemill"]["p50"] / many["bare socket"]["p50"],
        "100 rows: Feast over ours": many["feast"]["p50"] / many["tidemill"]["p50"],
        "100 rows: p99 over p50": many["tidemill"]["p99"] / many["tidemill"]["p50"],
        "100 rows, packed: Feast over ours": many["feast"]["p50"] / many["tidemill packed"]["p50"],
    }


def report(found: dict[str, Any]) -> None:
    print(f"{found['machine']}, Python {found['python']}, {found['versions']}")
    for rows, readers in found["reads"].items():
        print(f"\n{rows}, 3 views x {FEATURES} features, microseconds")
        for name, times in readers.items():
            print(f"  {name:24} p50 {times['p50']:10,.0f}   p99 {times['p99']:10,.0f}")
    print()
    for name, ratio in found["ratios"].items():
        how, target = TARGETS[name]
        held = ratio <= target if how == "at most" else ratio >= target
        between = f"{found['least'][name]:.2f} to {found['greatest'][name]:.2f}"
        print(f"  {name:40} {ratio:7.2f}   {between:16}   {how} {target:g}   {'held' if held else 'MISSED'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--servers", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    outcome = run(options.entities, options.rounds, options.servers)
    report(outcome)
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2))
