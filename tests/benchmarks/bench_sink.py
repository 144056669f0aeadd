"""More feature rows than memory, sunk to Parquet under a limit: `python tests/benchmarks/bench_sink.py [--full]`.

The peak memory of the whole process is printed beside the limit; the answer is compared with a collected sample.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import machine
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from join_data import HOUR, START
from machine import peak_gb

ENTITIES = 100_000
FEATURES = 5


def main() -> None:
    options = _options()
    if options.work:
        _sink(Path(options.work), options.limit)
        return
    with tempfile.TemporaryDirectory(dir=options.data or None) as temporary:
        folder = Path(temporary)
        _write(folder, options.rows, options.labels)
        command = [sys.executable, __file__, "--work", str(folder), "--limit", options.limit]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        differing = _compare(folder)
    print(
        f"{options.rows:,} feature rows, {options.labels:,} labels, limit {options.limit}: {found['seconds']:.1f} s, "
        f"peak {found['peak_gb']:.2f} GB, {differing} of the compared values differ"
    )
    report = {
        "machine": machine.describe(),
        **found,
        "rows": options.rows,
        "labels": options.labels,
        "differ": differing,
    }
    Path(options.json).write_text(json.dumps(report, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=0, help="feature rows; 2x10^7, or 10^8 with --full")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--labels", type=int, default=5 * 10**6)
    parser.add_argument("--limit", default="2gb")
    parser.add_argument("--data", default="")
    parser.add_argument("--json", default="bench_sink.json")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rows = options.rows or (10**8 if options.full else 2 * 10**7)
    return options


def _write(folder: Path, rows: int, labels: int) -> None:
    """Every entity once an hour, an hour at a time, so that generating needs no memory either."""
    schema = pa.schema(
        [
            ("key", pa.int64()),
            ("event", pa.timestamp("us", "UTC")),
            ("known", pa.timestamp("us", "UTC")),
            *((f"f{number}", pa.float64()) for number in range(FEATURES)),
        ]
    )
    rng = np.random.default_rng(5)
    hours = rows // ENTITIES
    with pq.ParquetWriter(folder / "view.parquet", schema) as writer:
        for first in range(0, hours, 10):
            hour = np.repeat(np.arange(first, min(first + 10, hours)), ENTITIES)
            event = START + hour * HOUR
            columns = [
                np.tile(rng.permutation(ENTITIES), len(hour) // ENTITIES),
                event,
                event + rng.integers(0, HOUR // 6, len(hour)),
                *(rng.random(len(hour)) for _ in range(FEATURES)),
            ]
            arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=1 << 20)
    pl.DataFrame(
        {
            "label_id": np.arange(labels),
            "key": rng.integers(0, ENTITIES, labels),
            "event_timestamp": pl.Series(np.sort(START + rng.integers(0, hours * HOUR, labels))).cast(
                pl.Datetime("us", "UTC")
            ),
        }
    ).write_parquet(folder / "spine.parquet")


def _store(folder: Path) -> tuple[Any, list[str]]:
    from tidemill.definitions.catalog import Catalog, Entity, Feature, Source, View
    from tidemill.definitions.types import ValueType
    from tidemill.offline.store import OfflineStore

    view = View(
        name="v",
        entities=("key",),
        join_keys=("key",),
        features=tuple(Feature(name=f"f{number}", dtype=ValueType.DOUBLE) for number in range(FEATURES)),
        source="s",
        ttl=timedelta(days=1),
    )
    source = Source(name="s", path="view.parquet", timestamp_field="event", known_field="known")
    entity = Entity(name="key", join_key="key", dtype=ValueType.INT64)
    catalog = Catalog(project="bench", entities=(entity,), sources=(source,), views=(view,))
    return OfflineStore(root=folder, catalog=catalog), [f"v:f{number}" for number in range(FEATURES)]


def _sink(folder: Path, limit: str) -> None:
    store, references = _store(folder)
    before = time.perf_counter()
    store.training_set(references, "spine.parquet", mode="event").sink(folder / "out", memory_limit=limit)
    print(json.dumps({"seconds": time.perf_counter() - before, "peak_gb": peak_gb(), "limit": limit}))


def _compare(folder: Path) -> int:
    store, references = _store(folder)
    spine = pl.scan_parquet(folder / "spine.parquet").gather_every(997).collect()
    expected = store.training_set(references, spine, mode="event").collect()
    sunk = pl.scan_parquet(folder / "out" / "part-*.parquet").gather_every(997).collect()
    return sum(int(expected[name].ne_missing(sunk[name]).sum()) for name in expected.columns)


if __name__ == "__main__":
    main()
