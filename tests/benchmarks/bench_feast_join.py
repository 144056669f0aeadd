"""The same join through Feast's SDK: `get_historical_features(...).to_arrow()` with our store beside its own stores.

Needs `ibis-framework[duckdb]` for Feast's duckdb store; an engine that cannot be imported is named and left out. Each
engine runs in a process of its own. The ttl is a day, since Feast's own stores slow down and swell with a longer one.
Rows that an engine loses are counted; values are compared on the rows it keeps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import machine
import polars as pl
from join_data import FEATURES, Workload, make
from machine import peak_gb

STORES = {
    "tidemill": "tidemill.feast.offline.PolarsOfflineStore",
    "feast duckdb": "duckdb",
    "feast dask": "dask",
}
SMALL = Workload(name="10^5 x 10^6 through Feast", labels=10**5, rows=10**6, ttl_hours=24)
MAIN = Workload(name="10^6 x 10^7 through Feast", labels=10**6, rows=10**7, ttl_hours=24)


def main() -> None:
    options = _options()
    if options.engine:
        _run_here(options.engine, Path(options.data), Workload(**json.loads(options.workload)), Path(options.out))
        return
    report: dict[str, Any] = {"machine": machine.describe((*machine.LIBRARIES, "feast", "dask"))}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.data or temporary)
        for workload, engines in ((SMALL, tuple(STORES)), (MAIN, ("tidemill", "feast duckdb"))):
            if options.only in workload.name:
                report[workload.name] = _measure(workload, make(workload, folder), engines, options.rounds)
    print(f"\n{machine.in_words(report['machine'])}")
    Path(options.json).write_text(json.dumps(report, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default="")
    parser.add_argument("--json", default="bench_feast_join.json")
    parser.add_argument("--engine", default="", help=argparse.SUPPRESS)
    parser.add_argument("--workload", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(workload: Workload, folder: Path, engines: tuple[str, ...], rounds: int) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    answers: dict[str, pl.DataFrame] = {}
    for _ in range(rounds):
        for engine in engines:
            answer = _start(engine, folder, workload)
            if answer is None:
                continue
            numbers = found.setdefault(engine, {"seconds": [], "peak_gb": []})
            numbers["seconds"] += answer["seconds"]
            numbers["peak_gb"].append(answer["peak_gb"])
            answers[engine] = pl.read_parquet(answer["out"])
    print(f"\n{workload.name}")
    for engine, numbers in found.items():
        numbers["median"], numbers["peak"] = statistics.median(numbers["seconds"]), max(numbers["peak_gb"])
        numbers["rows_lost"] = workload.labels - answers[engine].height
        numbers["values_that_differ"] = _differences(answers["tidemill"], answers[engine])
        numbers["ratio"] = numbers["median"] / found["tidemill"]["median"]
        print(
            f"  {engine:14} {numbers['median']:8.2f} s {numbers['peak']:6.2f} GB  x {numbers['ratio']:.2f}  "
            f"{numbers['rows_lost']:,} rows lost, {numbers['values_that_differ']:,} values differ"
        )
    return found


def _start(engine: str, folder: Path, workload: Workload) -> dict[str, Any] | None:
    out = folder / f"answer-{engine.replace(' ', '-')}.parquet"
    shape = json.dumps(asdict(workload))
    command = [
        sys.executable,
        __file__,
        "--engine",
        engine,
        "--data",
        str(folder),
        "--workload",
        shape,
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  {engine} did not end: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'killed'}")
        return None
    return {**json.loads(done.stdout.splitlines()[-1]), "out": str(out)}


def _differences(ours: pl.DataFrame, theirs: pl.DataFrame) -> int:
    """Cells that differ on the rows that both have."""
    joined = theirs.unique("label_id").join(ours, on="label_id", suffix="_ours")
    names = [name for name in theirs.columns if name.startswith("f")]
    return sum(int(joined[name].ne_missing(joined[f"{name}_ours"]).sum()) for name in names)


def _run_here(engine: str, folder: Path, workload: Workload, out: Path) -> None:
    import pandas as pd
    from feast import FeatureStore

    repository = folder / f"repository-{engine.replace(' ', '-')}"
    repository.mkdir(exist_ok=True)
    (repository / "feature_store.yaml").write_text(
        "project: bench\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        f"offline_store:\n  type: {STORES[engine]}\nonline_store:\n  type: sqlite\n  path: online.db\n"
    )
    store = FeatureStore(repo_path=str(repository))
    features = _define(store, folder, workload)
    spine: pd.DataFrame = pl.read_parquet(folder / "spine.parquet").to_pandas()
    seconds = []
    table = None
    for _ in range(2):
        before = time.perf_counter()
        table = store.get_historical_features(entity_df=spine, features=features).to_arrow()
        seconds.append(time.perf_counter() - before)
    peak = peak_gb()
    assert table is not None
    names = [f"f{view}{number}" for view in range(workload.views) for number in range(FEATURES)]
    pl.DataFrame(pl.from_arrow(table)).select("label_id", *names).write_parquet(out)
    print(json.dumps({"seconds": seconds, "peak_gb": peak}))


def _define(store: Any, folder: Path, workload: Workload) -> list[str]:
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, Int64

    references, objects = [], []
    for view in range(workload.views):
        key = workload.key(view)
        entity = Entity(name=key, join_keys=[key], value_type=ValueType.INT64)
        source = FileSource(
            name=f"s{view}",
            path=str(folder / f"view{view}.parquet"),
            timestamp_field="event",
            created_timestamp_column="known",
        )
        names = [f"f{view}{number}" for number in range(FEATURES)]
        schema = [Field(name=key, dtype=Int64), *(Field(name=name, dtype=Float64) for name in names)]
        objects += [
            entity,
            FeatureView(
                name=f"v{view}",
                entities=[entity],
                schema=schema,
                source=source,
                ttl=timedelta(hours=workload.ttl_hours),
            ),
        ]
        references += [f"v{view}:{name}" for name in names]
    store.apply(objects)
    return references


if __name__ == "__main__":
    main()
