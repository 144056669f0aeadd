"""The ways of loading that are compared, each run in a process of its own that tells how long it took."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from materialize_data import END, FEATURES, T0, open_project, write_changes

FEAST = "Feast's materialize"
RULE = "newest-wins rule, new entities"
AGAIN = "newest-wins rule, every entity changed"
WITH_LOG = "newest-wins rule, append-only file on"
PACKED = "newest-wins rule, packed layout"
LIMITED = "newest-wins rule, memory limit 1 GB"
THROUGH_FEAST = "Feast's materialize with ArrowComputeEngine"


def with_rule(root: Path, address: str) -> int:
    return _materialized(open_project(root, address))


def _materialized(project: Any, view: str = "stats") -> int:
    project.offline, project.online, project.ledger.runs()  # opened, as Feast's store is before its clock starts
    began = time.perf_counter()
    (report,) = project.materializer.materialize(until=END, at=END, views=[view])
    _Timer.seconds = time.perf_counter() - began
    assert report.state == "succeeded", report.error
    return report.rows_written


def every_entity_again(root: Path, address: str) -> int:
    """A second run in which every entity has a newer row, over all that the first left."""
    project = open_project(root, address)
    _materialized(project)
    later = write_changes(root, 1.0)
    project.close()
    project = open_project(root, address)
    project.offline, project.online, project.ledger.runs()
    began = time.perf_counter()
    (report,) = project.materializer.materialize(until=later, at=later, views=["stats"])
    _Timer.seconds = time.perf_counter() - began
    assert report.state == "succeeded", report.error
    return report.rows_written


def packed(root: Path, address: str) -> int:
    return _materialized(open_project(root, address, online_layout="packed"))


def limited(root: Path, address: str) -> int:
    return _materialized(open_project(root, address, memory_limit="1gb"))


def windows(root: Path, address: str) -> int:
    return _materialized(open_project(root, address), "windows")


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


ENGINES: dict[str, Callable[[Path, str], int]] = {
    FEAST: feast,
    RULE: with_rule,
    WITH_LOG: with_rule,
    LIMITED: limited,
    PACKED: packed,
    AGAIN: every_entity_again,
    THROUGH_FEAST: feast_with_engine,
}
"""Those that leave the same values, but for `AGAIN`, which is checked by itself."""
OTHERS: dict[str, Callable[[Path, str], int]] = {"windows": windows}


def run_one(engine: str, root: Path, address: str) -> None:
    """The child: do it, and say how long it took and how much memory."""
    began = time.perf_counter()
    rows = (ENGINES | OTHERS)[engine](root, address)
    seconds = _Timer.seconds or time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    found = {"rows": rows, "seconds": seconds, "rate": rows / seconds, "peak_gb": peak}
    print("RESULT " + json.dumps(found | {"cpu": cpu.ru_utime + cpu.ru_stime}))


def in_child(engine: str, root: Path, address: str) -> dict[str, Any]:
    command = [sys.executable, __file__, engine, str(root), address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(f"{engine} failed:\n{done.stderr[-3_000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("engine", "root", "address"):
        parser.add_argument(name)
    asked = parser.parse_args()
    run_one(asked.engine, Path(asked.root), asked.address)
