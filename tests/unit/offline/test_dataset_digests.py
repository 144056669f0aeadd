"""The same inputs have the same digest: in pieces of any size, on any number of threads, in another folder."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from workshop import Workshop, ask, at

from tidemill.definitions.catalog import Aggregation, AggregationFunction, Schedule
from tidemill.definitions.types import ValueType
from tidemill.offline import sinking
from tidemill.offline.content import SEGMENT_ROWS, digest_of_frame
from tidemill.offline.datasets import read_dataset, write_dataset

F = AggregationFunction
FEATURES = ["trips:fare", "trips:zone", *(f"fares:{function}" for function in F)]
DRIVERS, EVENTS = 300, 20_000


def define(workshop: Workshop) -> Workshop:
    """A plain and a windowed view over one source of trips."""
    source = workshop.source("s", path="data/trips", known_field="known")
    keys = {"driver": ValueType.INT64}
    fields = {"fare": ValueType.DOUBLE, "zone": ValueType.STRING}
    workshop.view("trips", source, fields, keys=keys, ttl=timedelta(hours=50), schedule=Schedule(cron="0 * * * *"))
    features = {
        function.value: ValueType.INT64 if function in {F.COUNT, F.COUNT_DISTINCT} else ValueType.DOUBLE
        for function in F
    }
    hop, window = timedelta(minutes=5), timedelta(hours=9)
    parts = [Aggregation(name=name, function=F(name), column="fare", window=window, hop=hop) for name in features]
    workshop.view("fares", source, features, keys=keys, aggregations=tuple(parts))
    return workshop


def fill(workshop: Workshop) -> Workshop:
    """Trips with fares of any size; those of higher drivers are known later and later."""
    rng = np.random.default_rng(5)
    driver = rng.integers(0, DRIVERS, EVENTS)
    event = [at(float(hour)) for hour in np.sort(rng.uniform(0, 90, EVENTS))]
    late = rng.exponential(1.0, EVENTS) * (driver / 60) ** 3 * (driver > 100)
    frame = pl.DataFrame(
        {
            "driver": driver,
            "event": event,
            "known": [moment + timedelta(minutes=float(minutes)) for moment, minutes in zip(event, late, strict=True)],
            "fare": rng.normal(size=EVENTS) * 10.0 ** rng.integers(-5, 6, EVENTS),
            "zone": pl.Series(["north", "south", None]).gather(rng.integers(0, 3, EVENTS)),
        }
    )
    folder = workshop.root / "data" / "trips"
    folder.mkdir(parents=True)
    for part in range(3):
        rows = EVENTS // 3 + 1
        frame.slice(part * rows, rows).write_parquet(folder / f"{part}.parquet", row_group_size=2_000)
    return workshop


def asked(rows: int) -> pl.DataFrame:
    """Who is asked about; the first rows are about drivers without late trips, the next about the latest ones."""
    rng = np.random.default_rng(6)
    driver = rng.integers(0, DRIVERS, rows)
    driver[:SEGMENT_ROWS] %= 100
    driver[SEGMENT_ROWS : 2 * SEGMENT_ROWS] = driver[SEGMENT_ROWS : 2 * SEGMENT_ROWS] % 20 + 280
    micros = int(at(0).timestamp() * 1e6) + rng.integers(0, 100 * 3_600_000_000, rows)
    return pl.DataFrame(
        {"driver": driver, "event_timestamp": pl.Series(micros).cast(pl.Datetime("us", "UTC")), "row": np.arange(rows)}
    )


@pytest.fixture
def made(workshop: Workshop) -> Workshop:
    return fill(define(workshop))


def test_pieces_of_any_size_hold_the_very_same_values(made: Workshop, monkeypatch: pytest.MonkeyPatch):
    spine = asked(2 * SEGMENT_ROWS + 99)
    whole = made.store.training_set(FEATURES, spine)
    monkeypatch.setattr(sinking, "DEFAULT_ROWS", SEGMENT_ROWS)
    folder = made.store.training_set(FEATURES, spine).sink(made.root / "out")
    sunk = read_dataset(folder)

    assert len(sunk.files) == 3
    assert sunk.digest == whole.digest
    found = sunk.scan().collect()
    differing = [
        name for name in found.columns if digest_of_frame(found[[name]]) != digest_of_frame(whole.collect()[[name]])
    ]
    assert differing == []


def digest_elsewhere(root: Path, *, threads: int) -> str:
    """The digest as another process finds it."""
    text = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from workshop import Workshop
from test_dataset_digests import FEATURES, asked, define
workshop = define(Workshop(Path({str(root)!r})))
print(workshop.store.training_set(FEATURES, asked(5_000)).digest)
"""
    environment = {**os.environ, "POLARS_MAX_THREADS": str(threads), "PYTHONHASHSEED": str(threads)}
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, env=environment)
    return run.stdout.strip()


def test_no_number_of_threads_and_no_folder_changes_a_digest(made: Workshop, tmp_path: Path):
    here = made.store.training_set(FEATURES, asked(5_000))
    copied = tmp_path / "moved" / "elsewhere"
    shutil.copytree(made.root / "data", copied / "data")
    there = define(Workshop(copied)).store.training_set(FEATURES, asked(5_000))

    assert digest_elsewhere(made.root, threads=1) == here.digest
    assert digest_elsewhere(made.root, threads=3) == here.digest
    assert there.digest == here.digest
    assert there.manifest() == here.manifest()


# What a manifest says


def test_a_manifest_names_everything_a_dataset_was_made_from(made: Workshop):
    import hashlib

    spine = asked(500)
    snapshot = write_dataset(made.store.training_set(["trips:fare"], spine, mode="event"), made.root / "datasets")
    manifest: dict[str, Any] = json.loads((snapshot.folder / "manifest.json").read_text())
    files = sorted((made.root / "data" / "trips").iterdir())

    assert manifest["digest"] == snapshot.digest == digest_of_frame(snapshot.scan().collect())
    assert manifest["mode"] == "event"
    assert manifest["time_column"] == "event_timestamp"
    assert manifest["asked"] == ["trips:fare"]
    assert manifest["features"] == ["fare"]
    assert manifest["rows"] == 500
    assert manifest["spine"] == {"rows": 500, "columns": spine.columns, "digest": digest_of_frame(spine)}
    assert manifest["sources"]["s"]["path"] == "data/trips"
    assert manifest["sources"]["s"]["rows"] == EVENTS
    assert [(found["file"], found["sha256"], found["bytes"]) for found in manifest["sources"]["s"]["files"]] == [
        (file.name, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size) for file in files
    ]
    assert manifest["versions"] == {"python": platform.python_version()} | {
        name: version(name) for name in ("tidemill", "polars", "pyarrow", "numpy")
    }
    assert manifest["catalog_digest"] == made.catalog.digest


CHANGES: dict[str, Callable[[Workshop], Any]] = {
    "a row more": lambda workshop: workshop.store.append(
        "s", {"driver": [1], "event": [at(1)], "known": [at(1)], "fare": [1.0], "zone": ["new"]}
    ),
    "a file written again": lambda workshop: (
        pl.read_parquet(workshop.root / "data" / "trips" / "0.parquet")
        .with_columns(pl.col("fare") + 1)
        .write_parquet(workshop.root / "data" / "trips" / "0.parquet")
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_source_changes_its_digest_in_the_manifest(made: Workshop, change: str):
    before = made.store.training_set(["trips:fare"], asked(50)).manifest()
    CHANGES[change](made)
    after = made.store.training_set(["trips:fare"], asked(50)).manifest()

    assert after["sources"]["s"]["digest"] != before["sources"]["s"]["digest"]
    assert after["definitions_digest"] == before["definitions_digest"]
    assert after["spine"] == before["spine"]


def test_a_changed_definition_or_spine_shows_in_the_manifest(made: Workshop):
    from dataclasses import replace

    before = made.store.training_set(["trips:fare"], asked(50)).manifest()
    spine = asked(50).with_columns(pl.col("row") + 1)
    assert made.store.training_set(["trips:fare"], spine).manifest()["spine"] != before["spine"]
    assert made.store.training_set(["trips:fare"], asked(50), mode="event").manifest()["mode"] != before["mode"]
    made.views[0] = replace(made.views[0], ttl=timedelta(hours=1))
    after = made.store.training_set(["trips:fare"], asked(50)).manifest()
    assert after["definitions_digest"] != before["definitions_digest"]


def test_the_same_inputs_have_the_same_digest_in_another_process(workshop: Workshop):
    workshop.simple({"id": [1, 2], "event": [at(0)] * 2, "x": [10, None]})
    ask((1, at(1)), (2, at(1))).write_parquet(workshop.root / "spine.parquet")
    here = workshop.store.training_set("v:x", "spine.parquet", mode="event").digest
    text = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from workshop import Workshop
from tidemill.definitions.types import ValueType
w = Workshop(Path({str(workshop.root)!r}))
w.view("v", w.source("s"), {{"x": ValueType.INT64}})
print(w.store.training_set("v:x", "spine.parquet", mode="event").digest)
"""
    run = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
    )
    assert run.stdout.strip() == here


def test_the_digest_tells_null_from_nan_from_zero_and_order(workshop: Workshop):
    frames = [
        pl.DataFrame({"x": values}, schema={"x": pl.Float64})
        for values in ([1.0, None], [1.0, float("nan")], [1.0, 0.0], [0.0, 1.0])
    ]
    assert len({digest_of_frame(frame) for frame in frames}) == len(frames)
    assert digest_of_frame(frames[2]) == digest_of_frame(pl.DataFrame({"x": [1.0, -0.0]}))
    lists = pl.DataFrame({"x": [[1, 2], [3]]}), pl.DataFrame({"x": [[1], [2, 3]]})
    assert digest_of_frame(lists[0]) != digest_of_frame(lists[1])
