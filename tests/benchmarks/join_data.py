"""Seeded data for the point-in-time benchmarks: hourly rows of E entities, corrections, and labels that ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.offline.layout import write_rows

START = 1_700_000_000_000_000 // 3_600_000_000 * 3_600_000_000
HOUR = 3_600_000_000
FEATURES = 5
CORRECTED = 0.02


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`labels` x `rows` over `views` views; `order` is how each file lies: by time, or clustered by key."""

    name: str
    labels: int
    rows: int
    views: int = 1
    order: str = "time"
    text_keys: tuple[bool, ...] = (False,)
    runs: int = 3
    ttl_hours: int = 240

    @property
    def entities(self) -> int:
        return max(100, self.rows // 1_000)

    def is_text(self, view: int) -> bool:
        return self.text_keys[view % len(self.text_keys)]

    def key(self, view: int) -> str:
        return f"key{view}"


def make(workload: Workload, folder: Path, *, seed: int = 7) -> Path:
    """Write the workload's files unless they are there; returns their folder."""
    shape = (
        f"{workload.rows}-{workload.labels}-{workload.views}-{workload.order}-{''.join(map(str, workload.text_keys))}"
    )
    where = folder / shape
    if (where / "done").exists():
        return where
    where.mkdir(parents=True, exist_ok=True)
    for view in range(workload.views):
        _write_view(workload, view, where / f"view{view}.parquet", np.random.default_rng([seed, view]))
    _write_spine(workload, where / "spine.parquet", np.random.default_rng([seed, 99]))
    (where / "done").touch()
    return where


def _write_view(workload: Workload, view: int, path: Path, rng: np.random.Generator) -> None:
    """Every entity once an hour; of 2 % a correction, known one to three hours later, lies beside its first version."""
    entities = workload.entities
    regular = int(workload.rows * (1 - CORRECTED))
    hour = np.repeat(np.arange(-(-regular // entities), dtype=np.int64), entities)[:regular]
    key = np.concatenate([rng.permutation(entities) for _ in range(-(-regular // entities))])[:regular]
    again = np.sort(rng.choice(regular, workload.rows - regular, replace=False))
    place = np.sort(np.concatenate([np.arange(regular), again]), kind="stable")
    correction = np.concatenate([[False], place[1:] == place[:-1]])
    hour, key = hour[place], key[place]
    # Whole milliseconds: DuckDB's packed tie-break has to fit event and known time into 64 bits.
    delay = np.where(correction, rng.integers(HOUR, 3 * HOUR, len(hour)), rng.integers(0, HOUR // 6, len(hour)))
    delay = delay // 1_000 * 1_000
    event = START + hour * HOUR
    table = pa.table(
        {
            workload.key(view): _keys(key, workload.is_text(view)),
            "event": pa.array(event).cast(pa.timestamp("us", "UTC")),
            "known": pa.array(event + delay).cast(pa.timestamp("us", "UTC")),
            **{f"f{view}{number}": pa.array(rng.random(len(hour))) for number in range(FEATURES)},
        }
    )
    if workload.order == "clustered":
        # As Tidemill writes a large batch itself.
        write_rows(pl.DataFrame(pl.from_arrow(table)), path, keys=[workload.key(view)], time="event")
    else:
        pq.write_table(table, path, row_group_size=1 << 20)


def _write_spine(workload: Workload, path: Path, rng: np.random.Generator) -> None:
    hours = -(-workload.rows // workload.entities)
    pl.DataFrame(
        {
            "label_id": np.arange(workload.labels),
            "event_timestamp": pl.Series(START + rng.integers(0, hours * HOUR, workload.labels)).cast(
                pl.Datetime("us", "UTC")
            ),
            **{
                workload.key(view): pl.Series(
                    pl.from_arrow(_keys(rng.integers(0, workload.entities, workload.labels), workload.is_text(view)))
                )
                for view in range(workload.views)
            },
            "label": rng.integers(0, 2, workload.labels),
        }
    ).write_parquet(path)


def _keys(numbers: np.ndarray, text: bool) -> pa.Array:
    if not text:
        return pa.array(numbers)
    names = pa.array([f"entity-{number:08d}" for number in range(int(numbers.max(initial=0)) + 1)])
    return names.take(pa.array(numbers))
