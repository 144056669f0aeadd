# ruff: noqa: S608 - the queries are put together from this file's own names
"""Windowed aggregations beside their peers: `python tests/benchmarks/bench_windows.py [--rounds 3] [--slow]`.

Three windows (1 hour, 24 hours, 7 days) x sum, count, mean and max, for keys that are even and keys that are skewed.
The trailing edge moves with every microsecond here (`hop` 1 us), so that the engines, which know no hops, are asked the
very same question; a further line gives our own time with the usual hops. Every engine reads the same Parquet files in
a process of its own; answers are compared before anything is printed. DuckDB's range join, which goes through every
event of every window, joins in with `--slow`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import machine
import numpy as np
import polars as pl
from machine import peak_gb

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Catalog, Entity, Field, Source, Stream, View
from tidemill.definitions.types import ValueType

WINDOWS = {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
FUNCTIONS = (AggregationFunction.SUM, AggregationFunction.COUNT, AggregationFunction.MEAN, AggregationFunction.MAX)
USUAL_HOPS = {"1h": timedelta(minutes=5), "24h": timedelta(hours=1), "7d": timedelta(hours=1)}
SPAN = 90 * 86_400 * 10**6
START = 1_380_585_600_000_000
SKEW = {"even": 1.0, "skewed": 3.5}
COLUMNS = [f"value_{function}_{window}" for window in WINDOWS for function in FUNCTIONS]
PEERS = ("duckdb window", "polars rolling")
TARGETS = {"over the best peer": ("at least", 2.5), "skewed over even": ("at most", 1.5), "peak GB": ("at most", 1.5)}


def main() -> None:
    options = _options()
    if options.engine:
        _run_here(options.engine, Path(options.data), options.rounds)
        return
    engines = ("tidemill", "tidemill, usual hops", *PEERS, *(("duckdb range join",) if options.slow else ()))
    report: dict[str, Any] = {"machine": machine.describe(), "targets": TARGETS, "keys": {}}
    with tempfile.TemporaryDirectory() as folder:
        for keys in SKEW:
            data = Path(options.data or folder) / keys
            make(data, keys, events=options.events, labels=options.labels)
            report["keys"][keys] = _measure(data, keys, engines, options.rounds)
    _print_ratios(report)
    print(f"\n{machine.in_words(report['machine'])}\n")
    print("\n".join(_table(report["keys"])))
    Path(options.json).write_text(json.dumps(report, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10**7)
    parser.add_argument("--labels", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow", action="store_true", help="also DuckDB's range join")
    parser.add_argument("--data", default="", help="keep the generated files here")
    parser.add_argument("--json", default="bench_windows.json")
    parser.add_argument("--engine", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def make(folder: Path, keys: str, *, events: int, labels: int, seed: int = 7) -> None:
    """Events in order of time and labels for the keys of as many events, about 20 (skewed: 2,200) events in 7 days."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "labels.parquet").exists():
        return
    random = np.random.default_rng(seed)
    entities = max(events // 257, 1)
    key = (entities * random.random(events) ** SKEW[keys]).astype(np.int64)
    frame = pl.DataFrame(
        {
            "key": key,
            "event": START + np.sort(random.integers(0, SPAN, events)),
            "value": random.normal(10.0, 40.0, events),
        }
    )
    instant = pl.Datetime("us", "UTC")
    frame.with_columns(pl.col("event").cast(instant)).write_parquet(folder / "events.parquet", row_group_size=1_000_000)
    asked = pl.DataFrame(
        {
            "label": np.arange(labels),
            "key": key[random.integers(0, events, labels)],
            "moment": START + random.integers(0, SPAN, labels),
        }
    )
    asked.with_columns(pl.col("moment").cast(instant)).write_parquet(folder / "labels.parquet")


def _measure(data: Path, keys: str, engines: tuple[str, ...], rounds: int) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {engine: {"seconds": [], "processor": [], "peak_gb": []} for engine in engines}
    for _ in range(rounds):
        for engine in engines:
            answer = _run(engine, data)
            for kind, numbers in found[engine].items():
                numbers.append(answer[kind])
    _compare(data, [engine for engine in engines if engine != "tidemill, usual hops"])
    print(f"\n{keys} keys: answers equal")
    for engine, numbers in found.items():
        numbers["median"], numbers["peak"] = statistics.median(numbers["seconds"]), max(numbers["peak_gb"])
        numbers["median_processor"] = statistics.median(numbers["processor"])
        numbers["ratio"] = numbers["median"] / found["tidemill"]["median"]
        print(
            f"  {engine:22} {numbers['median']:7.2f} s {numbers['median_processor']:7.2f} s cpu "
            f"{numbers['peak']:6.2f} GB   x {numbers['ratio']:.2f}",
            flush=True,
        )
    return found


def _run(engine: str, data: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--engine", engine, "--data", str(data), "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{engine} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _compare(data: Path, engines: list[str]) -> None:
    """Counts equal, floats within 1e-9 of the largest value of their column."""
    first = pl.read_parquet(data / f"{engines[0]}.parquet")
    for engine in engines[1:]:
        other = pl.read_parquet(data / f"{engine}.parquet")
        for name in COLUMNS:
            mine, theirs = first[name], other[name]
            if mine.dtype.is_integer():
                same = (mine == theirs.cast(mine.dtype)).all()
            else:
                close = ((mine - theirs).abs() <= 1e-9 * pl.Series(mine.abs().fill_null(0)).clip(1.0)).fill_null(True)
                same = close.all() and (mine.is_null() == theirs.is_null()).all()
            if not same:
                raise SystemExit(f"{data.name}: {engine} differs from {engines[0]} in {name}.")


def _run_here(engine: str, data: Path, _rounds: int) -> None:
    import duckdb  # noqa: F401 - what an engine imports is not its work
    import scipy.sparse  # noqa: F401

    import tidemill.offline.store
    import tidemill.offline.windows  # noqa: F401

    compute = ENGINES[engine]
    start, used = time.perf_counter(), time.process_time()
    answer = compute(data)
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    peak = peak_gb()
    answer.select(COLUMNS).write_parquet(data / f"{engine}.parquet")
    print(json.dumps({"seconds": seconds, "processor": processor, "peak_gb": peak}))


def _tidemill(data: Path, hops: dict[str, timedelta]) -> pl.DataFrame:
    from tidemill.offline.store import OfflineStore

    store = OfflineStore(root=data, catalog=_catalog(hops), ledger=None, settings=None)
    spine = data / "labels.parquet"
    return store.training_set([f"windows:{name}" for name in COLUMNS], spine, time_column="moment").collect()


def _catalog(hops: dict[str, timedelta]) -> Catalog:
    function = AggregationFunction
    aggregations = tuple(
        Aggregation(name=f"value_{one}_{name}", function=one, column="value", window=window, hop=hops[name])
        for name, window in WINDOWS.items()
        for one in FUNCTIONS
    )
    view = View(
        name="windows",
        entities=("key",),
        join_keys=("key",),
        features=tuple(
            Field(name=item.name, dtype=ValueType.INT64 if item.function is function.COUNT else ValueType.DOUBLE)
            for item in aggregations
        ),
        source="events",
        stream="pushed",
        aggregations=aggregations,
    )
    return Catalog(
        project="bench",
        entities=(Entity(name="key", join_key="key", dtype=ValueType.INT64),),
        sources=(Source(name="events", path="events.parquet", timestamp_field="event"),),
        streams=(Stream(name="pushed", kind="push", source="events"),),
        views=(view,),
    )


def _duckdb_window(data: Path) -> pl.DataFrame:
    """Labels and events in one table, windows over ranges of time: what DuckDB does best whatever the keys are."""
    frames = ", ".join(
        f"w{name} AS (PARTITION BY key ORDER BY moment RANGE BETWEEN INTERVAL {_seconds(name)} SECONDS PRECEDING "
        "AND CURRENT ROW)"
        for name in WINDOWS
    )
    wanted = ", ".join(_sql(function, name, f"OVER w{name}") for name in WINDOWS for function in FUNCTIONS)
    return _duckdb(f"""
        WITH all_rows AS (
            SELECT key, event AS moment, value, NULL AS label FROM '{data}/events.parquet'
            UNION ALL SELECT key, moment, NULL AS value, label FROM '{data}/labels.parquet'
        ), answered AS (SELECT label, {wanted} FROM all_rows WINDOW {frames})
        SELECT * FROM answered WHERE label IS NOT NULL ORDER BY label
    """)


def _duckdb_range_join(data: Path) -> pl.DataFrame:
    def inside(name: str) -> str:
        return f"FILTER (WHERE event >= moment - INTERVAL {_seconds(name)} SECONDS)"

    wanted = ", ".join(_sql(function, name, inside(name)) for name in WINDOWS for function in FUNCTIONS)
    return _duckdb(f"""
        SELECT label, {wanted} FROM '{data}/labels.parquet' AS labels LEFT JOIN '{data}/events.parquet' AS events
        ON labels.key = events.key AND event <= moment AND event >= moment - INTERVAL {_seconds("7d")} SECONDS
        GROUP BY label ORDER BY label
    """)


def _duckdb(query: str) -> pl.DataFrame:
    import duckdb

    with duckdb.connect() as connection:
        return pl.DataFrame(pl.from_arrow(connection.execute(query).to_arrow_table()))


def _sql(function: str, window: str, over: str) -> str:
    name = {"mean": "avg"}.get(function, function)
    return f"{name}(value) {over} AS value_{function}_{window}"


def _polars_rolling(data: Path) -> pl.DataFrame:
    """Labels and events in one frame, in order of time, rolled up for each key."""
    events = (
        pl.scan_parquet(data / "events.parquet").rename({"event": "moment"}).with_columns(label=pl.lit(None, pl.Int64))
    )
    labels = pl.scan_parquet(data / "labels.parquet").with_columns(value=pl.lit(None, pl.Float64))
    columns = ["key", "moment", "value", "label"]
    rows = pl.concat([events.select(columns), labels.select(columns)]).sort("key", "moment")
    value = pl.col("value")
    functions = {"sum": value.sum(), "count": value.count(), "mean": value.mean(), "max": value.max()}
    answers = []
    for name in WINDOWS:
        rolled = rows.rolling("moment", period=f"{_seconds(name)}s", closed="both", group_by="key").agg(
            pl.col("label").last().alias("own"),
            *(expression.alias(f"value_{function}_{name}") for function, expression in functions.items()),
        )
        answers.append(rolled.drop("key", "moment", "own"))
    joined = pl.concat([rows.select("label"), *answers], how="horizontal").filter(pl.col("label").is_not_null())
    empty = [
        pl.when(pl.col(f"value_count_{name}") > 0).then(pl.col(f"value_sum_{name}")).alias(f"value_sum_{name}")
        for name in WINDOWS
    ]
    return joined.with_columns(empty).sort("label").collect()


def _seconds(window: str) -> int:
    return int(WINDOWS[window].total_seconds())


ENGINES: dict[str, Callable[[Path], pl.DataFrame]] = {
    "tidemill": lambda data: _tidemill(data, dict.fromkeys(WINDOWS, timedelta(microseconds=1))),
    "tidemill, usual hops": lambda data: _tidemill(data, USUAL_HOPS),
    "duckdb window": _duckdb_window,
    "duckdb range join": _duckdb_range_join,
    "polars rolling": _polars_rolling,
}


def _print_ratios(report: dict[str, Any]) -> None:
    even, skewed = report["keys"]["even"], report["keys"]["skewed"]
    best = min(PEERS, key=lambda peer: max(even[peer]["median"], skewed[peer]["median"]))
    ratios = {
        f"{keys}: over the best peer ({best})": found[best]["median"] / found["tidemill"]["median"]
        for keys, found in report["keys"].items()
    }
    ratios["skewed over even"] = skewed["tidemill"]["median"] / even["tidemill"]["median"]
    ratios["skewed over even, processor seconds"] = (
        skewed["tidemill"]["median_processor"] / even["tidemill"]["median_processor"]
    )
    ratios["peak GB"] = max(found["tidemill"]["peak"] for found in (even, skewed))
    report["ratios"] = ratios
    print()
    for name, ratio in ratios.items():
        kind, target = next(target for key, target in TARGETS.items() if key in name)
        print(f"  {name:40} {ratio:6.2f}   ({kind} {target})")


def _table(keys: dict[str, Any]) -> list[str]:
    """The rows of the published page."""
    lines = ["| keys | Tidemill | DuckDB, window function | Polars, rolling |", "|---|---|---|---|"]
    for name, found in keys.items():
        cells = [name]
        for engine in ("tidemill", *PEERS):
            numbers = found[engine]
            cell = f"{numbers['median']:.1f} s, {numbers['median_processor']:.1f} cpu s, {numbers['peak']:.1f} GB"
            cells.append(cell if engine == "tidemill" else f"{cell} ({numbers['ratio']:.1f}x)")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
