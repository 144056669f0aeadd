"""Materialization: Tidemill against Feast's `materialize`; same Parquet, same Redis, same run.

    python tests/benchmarks/bench_materialize.py [--entities 1000000] [--feast-entities N] [--json FILE]

Each engine runs in a process of its own, whose peak memory is told. What each left in Redis is compared first: a sample
of entities must read the same. Feast's own path is slow and takes much memory (about 10,000 rows a second and 10 GB for
10^6 entities), so it may be given fewer entities; rows a second are compared. Redis runs as it ships, without an
append-only file; the embedded server of a project has one, which is measured too.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

T0 = datetime(2024, 5, 1, tzinfo=UTC)
END = T0 + timedelta(hours=2)
FEATURES = [f"f{number}" for number in range(10)]
TARGETS = {
    "newest-wins rule": 12.0,
    "first load": 14.0,
    "first load, packed": 20.0,
    "Feast's materialize with ArrowComputeEngine": 8.0,
}


def write_history(file: Path, entities: int) -> None:
    """One row for each entity, and a correction for 2 % of them."""
    random = np.random.default_rng(5)
    frame = pl.DataFrame(
        {"driver_id": random.permutation(entities)}
        | {
            name: random.random(entities) if place % 2 else random.integers(0, 1_000_000, entities)
            for place, name in enumerate(FEATURES)
        }
    ).with_columns(
        (pl.lit(T0) + pl.duration(seconds=pl.Series(random.integers(0, 3_600, entities)))).alias("event_timestamp")
    )
    frame = frame.with_columns(pl.col("event_timestamp").alias("created"))
    fixed = frame.sample(fraction=0.02, seed=5).with_columns(
        pl.col("created") + pl.duration(minutes=30), pl.col("f1") + 1
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.concat([frame, fixed]).sort("event_timestamp").write_parquet(file, row_group_size=100_000)


def make_catalog():
    from tidemill.definitions import Catalog, Entity, Feature, Projection, Service, Source, ValueType, View

    features = tuple(
        Feature(name=name, dtype=ValueType.DOUBLE if place % 2 else ValueType.INT64)
        for place, name in enumerate(FEATURES)
    )
    return Catalog(
        project="bench",
        entities=(Entity(name="driver", join_key="driver_id", dtype=ValueType.INT64),),
        sources=(Source(name="stats", path="stats.parquet", timestamp_field="event_timestamp", known_field="created"),),
        views=(View(name="stats", entities=("driver",), join_keys=("driver_id",), features=features, source="stats"),),
        services=(Service(name="all", projections=(Projection(view="stats", features=tuple(FEATURES)),)),),
    )


def open_project(root: Path, address: str, **settings: Any):
    from tidemill.clock import ManualClock
    from tidemill.project import Project
    from tidemill.settings import Settings

    (root / "feature_store.yaml").write_text("project: bench\n")
    project = Project(root, settings=Settings(redis_url=address, **settings), name="bench", clock=ManualClock(END))
    project.catalogs.add(make_catalog(), at=END)
    return project


def with_rule(root: Path, address: str) -> int:
    return _materialized(open_project(root, address))


def _materialized(project: Any) -> int:
    project.offline, project.online, project.ledger.runs()  # opened, as Feast's store is before its clock starts
    began = time.perf_counter()
    (report,) = project.materializer.materialize(until=END, at=END)
    _Timer.seconds = time.perf_counter() - began
    assert report.state == "succeeded", report.error
    return report.rows_written


def first_load(root: Path, address: str, **settings: Any) -> int:
    project = open_project(root, address, **settings)
    offline, online = project.offline, project.online
    began = time.perf_counter()
    found = offline.latest_rows("stats", start=None, end=END)
    written = online.write("stats", found.frame, first_load=True, learned=END).written
    _Timer.seconds = time.perf_counter() - began
    return written


def packed(root: Path, address: str) -> int:
    return first_load(root, address, online_layout="packed")


def limited(root: Path, address: str) -> int:
    return _materialized(open_project(root, address, memory_limit="1gb"))


def _feast(root: Path, address: str, *, ours: bool) -> int:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    plain: dict[str, Any] = {
        "online_store": {"type": "redis", "connection_string": f"none:0,unix_socket_path={address[7:]}"},
        "offline_store": {"type": "file"},
    }
    if ours:
        (root / "feature_store.yaml").write_text(f"project: bench\ntidemill:\n  redis_url: {address}\n")
        plain = {
            "online_store": {"type": "tidemill.feast.online.TidemillRedisOnlineStore"},
            "offline_store": {"type": "tidemill.feast.offline.PolarsOfflineStore"},
            "batch_engine": {"type": "tidemill.feast.engine.ArrowComputeEngine"},
        }
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(root / f"registry_{ours}.db"),
        entity_key_serialization_version=3,
        repo_path=root,
        **plain,
    )
    store = FeatureStore(config=config)
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    table = FeatureView(
        name="stats",
        entities=[driver],
        ttl=timedelta(0),
        schema=[Field(name="driver_id", dtype=Int64)]
        + [Field(name=name, dtype=Float64 if place % 2 else Int64) for place, name in enumerate(FEATURES)],
        source=FileSource(
            name="stats",
            path=str(root / "stats.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        ),
    )
    store.apply([driver, table])
    began = time.perf_counter()
    store.materialize(T0 - timedelta(hours=1), END)
    _Timer.seconds = time.perf_counter() - began  # its import and apply are not what is compared
    return pl.scan_parquet(root / "stats.parquet").select(pl.col("driver_id").n_unique()).collect().item()


def feast(root: Path, address: str) -> int:
    return _feast(root, address, ours=False)


def feast_with_engine(root: Path, address: str) -> int:
    return _feast(root, address, ours=True)


class _Timer:
    seconds: float | None = None


WITH_LOG = "newest-wins rule, append-only file on"
ENGINES: dict[str, Callable[[Path, str], int]] = {
    "Feast's materialize": feast,
    "newest-wins rule": with_rule,
    WITH_LOG: with_rule,
    "first load": first_load,
    "first load, packed": packed,
    "newest-wins rule, memory limit 1 GB": limited,
    "Feast's materialize with ArrowComputeEngine": feast_with_engine,
}


def run_one(engine: str, root: Path, address: str) -> None:
    """The child: do it, and say how long it took and how much memory."""
    began = time.perf_counter()
    rows = ENGINES[engine](root, address)
    seconds = _Timer.seconds or time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("RESULT " + json.dumps({"rows": rows, "seconds": seconds, "rate": rows / seconds, "peak_gb": peak}))


def in_child(engine: str, root: Path, address: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--engine", engine, "--root", str(root), "--address", address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(f"{engine} failed:\n{done.stderr[-3_000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def sample(root: Path, address: str, entities: int, *, layout: str) -> dict[str, list]:
    project = open_project(root, address, online_layout=layout)
    random = np.random.default_rng(1)
    rows = [{"driver_id": int(entity)} for entity in random.choice(entities, min(1_000, entities), replace=False)]
    found = project.online.read("all", rows).to_dict()
    project.close()
    return found


def run(entities: int, feast_entities: int, repeats: int) -> dict[str, Any]:
    from tidemill.online.embedded import EmbeddedRedis
    from tidemill.online.resp import RespClient

    found: dict[str, Any] = {"machine": platform.platform(), "entities": entities, "engines": {}}
    found["versions"] = {name: version(name) for name in ("feast", "polars", "pyarrow", "redis")}
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedRedis(Path(folder) / "redis", maxmemory="8gb")
        address = server.ensure_started()
        client = RespClient(address, timeout=60)
        try:
            answers: dict[int, dict] = {}
            for engine in ENGINES:
                size = feast_entities if engine == "Feast's materialize" else entities
                runs = []
                for number in range(1 if size == feast_entities and engine.startswith("Feast's m") else repeats):
                    root = Path(folder) / f"{list(ENGINES).index(engine)}_{number}"
                    write_history(root / "stats.parquet", size)
                    client.call("CONFIG", "SET", "appendonly", "yes" if engine == WITH_LOG else "no")
                    client.call("FLUSHALL")
                    runs.append(in_child(engine, root, address))
                found["engines"][engine] = sorted(runs, key=lambda one: one["rate"])[len(runs) // 2]
                read = sample(root, address, size, layout="packed" if "packed" in engine else "feast")
                assert answers.setdefault(size, read) == read, f"{engine} left other values"
            if feast_entities != entities:  # the same comparison on Feast's smaller data
                root = Path(folder) / "small"
                write_history(root / "stats.parquet", feast_entities)
                client.call("FLUSHALL")
                in_child("newest-wins rule", root, address)
                assert sample(root, address, feast_entities, layout="feast") == answers[feast_entities]
            found["incremental"] = _incremental(Path(folder) / "incremental", address, client, entities)
            found["readers"] = _readers(Path(folder) / "readers", address, client, entities)
        finally:
            client.close()
            server.stop()
    base = found["engines"]["Feast's materialize"]["rate"]
    found["ratios"] = {engine: one["rate"] / base for engine, one in found["engines"].items()}
    return found


def _incremental(root: Path, address: str, client: Any, entities: int) -> dict[str, float]:
    """A second run in which 1 % changed, against the first."""
    root.mkdir()
    write_history(root / "stats.parquet", entities)
    client.call("FLUSHALL")
    project = open_project(root, address)
    (first,) = project.materializer.materialize(until=END, at=END)
    folder = root / "stats.parquet"
    frame = pl.read_parquet(folder)
    changed = frame.sample(fraction=0.01, seed=9).with_columns(
        (pl.col("event_timestamp") + timedelta(hours=3)), (pl.col("created") + timedelta(hours=3))
    )
    pl.concat([frame, changed]).write_parquet(folder, row_group_size=100_000)
    later = END + timedelta(hours=3)
    (second,) = project.materializer.materialize(until=later, at=later)
    project.close()
    return {"first": first.seconds, "second": second.seconds, "rows": second.rows_written}


def _readers(root: Path, address: str, client: Any, entities: int) -> dict[str, float]:
    """A reader's p99 alone, and while a run is under way."""
    root.mkdir()
    write_history(root / "stats.parquet", entities)
    client.call("FLUSHALL")
    in_child("newest-wins rule", root, address)
    project = open_project(root, address)
    rows = [{"driver_id": 1}]

    def read_until(over: Callable[[], bool]) -> list[float]:
        times = []
        while not over():
            began = time.perf_counter()
            project.online.read("all", rows)
            times.append((time.perf_counter() - began) * 1e6)
            time.sleep(0.0005)
        return times

    deadline = time.monotonic() + 5
    alone = read_until(lambda: time.monotonic() > deadline)
    again = Path(str(root) + "_again")
    write_history(again / "stats.parquet", entities)
    child = threading.Thread(target=in_child, args=("newest-wins rule", again, address))
    child.start()
    during = read_until(lambda: not child.is_alive())
    project.close()
    return {
        "p50_alone": float(np.median(alone)),
        "p99_alone": float(np.percentile(alone, 99)),
        "p50_during": float(np.median(during)),
        "p99_during": float(np.percentile(during, 99)),
    }


def report(found: dict[str, Any]) -> None:
    print(f"{found['machine']}, {found['versions']}")
    print(f"\n{found['entities']:,} entities x {len(FEATURES)} features from Parquet into Redis")
    for engine, one in found["engines"].items():
        ratio, target = found["ratios"][engine], TARGETS.get(engine)
        held = "" if target is None else f"  at least {target:g}  {'held' if ratio >= target else 'MISSED'}"
        rate, rows = f"{one['rate']:,.0f}", f"{one['rows']:,}"
        print(f"  {engine:46} {rows:>10} rows {rate:>9}/s {one['peak_gb']:6.2f} GB  x{ratio:6.1f}{held}")
    one = found["incremental"]
    print(f"\n1 % changed: {one['second']:.2f} s for {one['rows']:,} rows, after {one['first']:.2f} s for all")
    one = found["readers"]
    print(
        f"a reader, microseconds: alone p50 {one['p50_alone']:,.0f} p99 {one['p99_alone']:,.0f}; "
        f"during a run p50 {one['p50_during']:,.0f} p99 {one['p99_during']:,.0f} "
        f"(x{one['p99_during'] / one['p99_alone']:.1f}, at most 3)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--feast-entities", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--engine")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--address")
    options = parser.parse_args()
    if options.engine:
        run_one(options.engine, options.root, options.address)
        sys.exit(0)
    outcome = run(options.entities, options.feast_entities, options.repeats)
    report(outcome)
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2))
