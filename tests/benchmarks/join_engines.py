# ruff: noqa: S608 - the queries are put together from this file's own names
"""One engine, one workload, in a process of its own: `python join_engines.py ENGINE FOLDER WORKLOAD RUNS`.

Prints JSON: seconds of the first run (which imports and warms up) and of each further run, peak memory of the process,
and the digest of the answers in the spine's order. Every engine answers the same question: the newest row of each key
with `event <= t` and `event >= t - ttl`, equal event times resolved by the greater known time. `tidemill` also looks at
`known <= t`, which no asof join can; its answers are compared with those of a window function instead.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from join_data import FEATURES, Workload
from machine import peak_gb

Run = Callable[[], pl.DataFrame]


def columns(workload: Workload) -> list[str]:
    return [f"f{view}{number}" for view in range(workload.views) for number in range(FEATURES)]


def tidemill(folder: Path, workload: Workload, *, filter_known: bool = True, mode: str = "event") -> Run:
    from tidemill.definitions.catalog import Catalog, Entity, Feature, Schedule, Source, View
    from tidemill.definitions.types import ValueType
    from tidemill.offline.store import OfflineStore

    entities, sources, views = [], [], []
    for view in range(workload.views):
        key = workload.key(view)
        dtype = ValueType.STRING if workload.is_text(view) else ValueType.INT64
        entities.append(Entity(name=key, join_key=key, dtype=dtype))
        sources.append(
            Source(name=f"s{view}", path=f"view{view}.parquet", timestamp_field="event", known_field="known")
        )
        features = tuple(Feature(name=f"f{view}{number}", dtype=ValueType.DOUBLE) for number in range(FEATURES))
        views.append(
            View(
                name=f"v{view}",
                entities=(key,),
                join_keys=(key,),
                features=features,
                source=f"s{view}",
                ttl=timedelta(hours=workload.ttl_hours),
                schedule=Schedule(cron="0 * * * *"),
            )
        )
    catalog = Catalog(project="bench", entities=tuple(entities), sources=tuple(sources), views=tuple(views))
    store = OfflineStore(root=folder, catalog=catalog)
    spine = pl.read_parquet(folder / "spine.parquet")
    refs = [f"v{view.name[1:]}:{feature.name}" for view in views for feature in view.features]
    return lambda: store.training_set(refs, spine, mode=mode, filter_known=filter_known).collect()


def polars(folder: Path, workload: Workload) -> Run:
    """Plain lazy `join_asof`; rows sorted so that of equal event times the last is the one known last."""
    spine = pl.read_parquet(folder / "spine.parquet")

    def run() -> pl.DataFrame:
        asked = spine.lazy().sort("event_timestamp")
        for view in range(workload.views):
            rows = pl.scan_parquet(folder / f"view{view}.parquet").sort("event", "known").drop("known")
            rows = rows.rename({"event": f"event{view}"})
            asked = asked.join_asof(
                rows,
                left_on="event_timestamp",
                right_on=f"event{view}",
                by=workload.key(view),
                strategy="backward",
                tolerance=timedelta(hours=workload.ttl_hours),
                check_sortedness=False,
            )
        return asked.collect()

    return run


def duckdb_asof(folder: Path, workload: Workload) -> Run:
    """ASOF join on event and known time packed into one integer; the ttl afterwards."""
    oldest = f"s.event_timestamp - INTERVAL {workload.ttl_hours} HOUR"
    names = ", ".join(
        f"CASE WHEN v{view}.event >= {oldest} THEN v{view}.f{view}{number} END AS f{view}{number}"
        for view in range(workload.views)
        for number in range(FEATURES)
    )
    joins = " ".join(
        f"""ASOF LEFT JOIN (SELECT *, (epoch_us(event) // 1000000 << 24)
            + (epoch_us(known) - epoch_us(event)) // 1000 AS packed
            FROM read_parquet('{folder}/view{view}.parquet')) v{view}
        ON s.{workload.key(view)} = v{view}.{workload.key(view)}
        AND (epoch_us(s.event_timestamp) // 1000000 << 24) + 16777215 >= v{view}.packed"""
        for view in range(workload.views)
    )
    return _duckdb(folder, f"SELECT s.*, {names} FROM spine s {joins}")


def duckdb_window(folder: Path, workload: Workload) -> Run:
    """A range join and a window function: exact with known times, and slow. For comparing answers."""
    text = "SELECT s.*, "
    text += ", ".join(f"v{view}.f{view}{number}" for view in range(workload.views) for number in range(FEATURES))
    text += " FROM spine s"
    for view in range(workload.views):
        key = workload.key(view)
        text += f"""
        LEFT JOIN (SELECT s.label_id, v.* FROM spine s JOIN read_parquet('{folder}/view{view}.parquet') v
            ON s.{key} = v.{key} AND v.event <= s.event_timestamp AND v.known <= s.event_timestamp
            AND v.event >= s.event_timestamp - INTERVAL {workload.ttl_hours} HOUR
            QUALIFY row_number() OVER (PARTITION BY s.label_id ORDER BY v.event DESC, v.known DESC) = 1) v{view}
        ON s.label_id = v{view}.label_id"""
    return _duckdb(folder, text)


def _duckdb(folder: Path, query: str) -> Run:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET temp_directory = '{folder}/spill'")
    spine = pl.read_parquet(folder / "spine.parquet").to_arrow()
    connection.register("spine", spine)
    return lambda: connection.sql(query).pl()


BY_TURNS = "served beside event"
ENGINES: dict[str, Callable[[Path, Workload], Run]] = {
    "tidemill": tidemill,
    "tidemill, known only breaks ties": lambda folder, workload: tidemill(folder, workload, filter_known=False),
    "duckdb asof": duckdb_asof,
    "duckdb window": duckdb_window,
    "polars join_asof": polars,
}


def main() -> None:
    engine, folder, shape, runs = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
    workload = Workload(**{**shape, "text_keys": tuple(shape["text_keys"])})
    print(
        json.dumps(_by_turns(folder, workload, runs) if engine == BY_TURNS else _alone(engine, folder, workload, runs))
    )


def _alone(engine: str, folder: Path, workload: Workload, runs: int) -> dict[str, Any]:
    from tidemill.offline.content import digest_of_frame

    run = ENGINES[engine](folder, workload)
    seconds, processor = [], []
    found: pl.DataFrame | None = None
    for _ in range(runs + 1):
        found = None
        before, used = time.perf_counter(), time.process_time()
        found = run()
        seconds.append(time.perf_counter() - before)
        processor.append(time.process_time() - used)
    peak = peak_gb()
    assert found is not None
    digest = digest_of_frame(found.sort("label_id").select(columns(workload)))
    return {"first": seconds[0], "seconds": seconds[1:], "processor": processor[1:], "peak_gb": peak, "digest": digest}


def _by_turns(folder: Path, workload: Workload, runs: int) -> dict[str, Any]:
    """Event mode and served mode one after the other, after one run of each that does not count."""
    modes = {mode: tidemill(folder, workload, mode=mode) for mode in ("event", "served")}
    found: dict[str, dict[str, list[float]]] = {mode: {"seconds": [], "processor": []} for mode in modes}
    for turn in range(runs + 1):
        for mode, run in modes.items():
            before, used = time.perf_counter(), time.process_time()
            run()
            if turn:
                found[mode]["seconds"].append(time.perf_counter() - before)
                found[mode]["processor"].append(time.process_time() - used)
    return found


if __name__ == "__main__":
    main()
