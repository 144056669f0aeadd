"""A project without extractions is replayed from the history that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from tidemill.clock import SimulatedClock
from tidemill.definitions.catalog import (
    Catalog,
    CodeReference,
    Entity,
    Feature,
    LabelDefinition,
    Model,
    Projection,
    Service,
    Source,
    SpineDefinition,
    Split,
    Stream,
    View,
)
from tidemill.definitions.types import ValueType
from tidemill.materialize.reach import never_loaded
from tidemill.project import open_project
from tidemill.replay.run import Replay

START = datetime(2024, 3, 5, tzinfo=UTC)
CATALOG = Catalog(
    project="shop",
    entities=(Entity(name="user", join_key="user", dtype=ValueType.INT64),),
    sources=(
        Source(name="purchases", path="purchases", timestamp_field="at", known_field="seen"),
        Source(name="sessions", path="sessions", timestamp_field="begun"),
        Source(name="outcomes", path="outcomes", timestamp_field="ended"),
    ),
    streams=(Stream(name="purchase_stream", kind="push", source="purchases"),),
    views=(
        View(
            name="last_purchase",
            entities=("user",),
            join_keys=("user",),
            features=(Feature(name="amount", dtype=ValueType.DOUBLE),),
            source="purchases",
            stream="purchase_stream",
        ),
    ),
    services=(Service(name="all", projections=(Projection(view="last_purchase", features=("amount",)),)),),
    models=(
        Model(
            name="buys",
            service="all",
            spine=SpineDefinition(source="sessions", time_column="begun", id_column="id", keys=(("user", "visitor"),)),
            label=LabelDefinition(source="outcomes", column="bought", id_column="id"),
            estimator=CodeReference(module="estimators", qualname="make", digest="0"),
            split=Split(test=timedelta(days=1)),
            metrics=("roc_auc",),
        ),
    ),
)


class Heard:
    """Notes what it is asked, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []

    def push(self, source: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.calls.append((source, [row["amount"] for row in rows]))

    def predict(self, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.calls.append((model, [dict(row) for row in rows]))


def write(folder: Path, **columns: list[Any]) -> None:
    folder.mkdir()
    pl.DataFrame(columns).write_parquet(folder / "all.parquet")


def minutes(*numbers: float) -> list[datetime]:
    return [START + timedelta(minutes=number) for number in numbers]


def test_events_are_pushed_when_they_became_known_and_requests_asked_in_between(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: shop\n")
    write(
        tmp_path / "purchases",
        user=[1, 1, 2, 2, 1],
        amount=[1.0, 2.0, 3.0, 4.0, 5.0],
        at=minutes(-1, 5, 1, 20, 30),
        seen=minutes(-1, 6, 15, 20, 60),
    )
    write(tmp_path / "sessions", id=["a", "b", "c"], visitor=[1, 2, 1], begun=minutes(10, 20, 60))
    with closing(open_project(tmp_path, clock=SimulatedClock(tmp_path / "clock"))) as project:
        project.catalogs.add(CATALOG, at=START)
        api = Heard()
        assert never_loaded(project, START) == ("last_purchase",)
        report = Replay(project, "buys", api).run(start=START, end=START + timedelta(hours=1))
    assert api.calls == [
        ("purchase_stream", [2.0]),
        ("buys", [{"user": 1, "id": "a"}]),
        ("purchase_stream", [3.0, 4.0]),
        ("buys", [{"user": 2, "id": "b"}]),
    ]
    assert (report.events, report.predictions) == (3, 2)
