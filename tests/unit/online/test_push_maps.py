"""Maps in pushed rows: each row's own, online and in history, whether or not the rows' maps are alike."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_parts import T0

from tidemill.clock import ManualClock
from tidemill.definitions import Catalog, Entity, Feature, Source, Stream, ValueType, View
from tidemill.errors import InputError
from tidemill.project import Project
from tidemill.settings import Settings

TYPES = {"tags": ValueType.MAP, "shape": ValueType.STRUCT, "parts": ValueType.MAP_LIST, "price": ValueType.DECIMAL}
CATALOG = Catalog(
    project="shop",
    entities=(Entity(name="item", join_key="id", dtype=ValueType.INT64),),
    sources=(Source(name="items", path="items", timestamp_field="at"),),
    streams=(Stream(name="listed", kind="push", source="items"),),
    views=(
        View(
            name="item",
            entities=("item",),
            join_keys=("id",),
            features=tuple(Feature(name=name, dtype=dtype) for name, dtype in TYPES.items()),
            source="items",
            stream="listed",
        ),
    ),
)
ROWS: list[dict[str, Any]] = [
    {"tags": {"a": 1}, "shape": {"w": 1, "h": 2}, "parts": [{"a": 1}], "price": "12.30"},
    {"tags": {"b": 2, "c": 3}, "shape": {"w": 3}, "parts": [{"b": 2}, {}], "price": None},
    {"tags": None, "shape": None, "parts": [], "price": "1e-3"},
]
GIVEN = [{"id": number, "at": T0} | row for number, row in enumerate(ROWS)]
_NUMBERS = pa.map_(pa.string(), pa.int64())


@pytest.fixture(params=["feast", "packed"])
def shop(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> Iterator[Project]:
    settings = Settings(redis_url=address, online_layout=request.param)  # pyright: ignore[reportArgumentType]
    project = Project(tmp_path, settings=settings, name="shop", clock=ManualClock(T0))
    project.catalogs.add(CATALOG, at=T0)
    yield project
    project.close()


def make_source(root: Path) -> None:
    """An empty one, with columns of Parquet's own maps and of records, as other systems write them."""
    fields = {
        "id": pa.int64(), "at": pa.timestamp("us", "UTC"), "tags": _NUMBERS,
        "shape": pa.struct([("w", pa.int64()), ("h", pa.int64())]), "parts": pa.list_(_NUMBERS), "price": pa.string(),
    }  # fmt: skip
    (root / "items").mkdir()
    pq.write_table(pa.schema(list(fields.items())).empty_table(), root / "items" / "first.parquet")


def read(project: Project) -> dict[str, list[Any]]:
    return project.online.read_features([f"item:{name}" for name in TYPES], [{"id": row["id"]} for row in GIVEN]).values


@pytest.mark.parametrize("to", ["online", "both"])
@pytest.mark.parametrize("kind", ["a list", "a frame"])
def test_every_row_keeps_its_own_map(shop: Project, to: str, kind: str) -> None:
    rows: Any = GIVEN
    if kind == "a frame":
        maps = {name: pl.Series([row[name] for row in GIVEN], dtype=pl.Object) for name in ("tags", "shape", "parts")}
        rows = pl.DataFrame({name: [row[name] for row in GIVEN] for name in ("id", "at", "price")} | maps)
    assert shop.push("listed", rows, to=to, at=T0).accepted == 3
    found = read(shop)
    for name in ("tags", "shape", "parts"):
        assert found[name] == [row[name] for row in ROWS]
    assert found["price"] == [Decimal("12.30"), None, Decimal("0.001")]


def test_history_holds_them_as_its_files_do_and_the_same_push_adds_nothing(shop: Project) -> None:
    make_source(shop.root)
    first = shop.push("listed", GIVEN, to="both", at=T0)
    assert shop.push("listed", GIVEN, to="both", at=T0).path == first.path
    stored = shop.offline.scan("items").collect().sort("id")
    assert stored["tags"].to_list() == [row["tags"] for row in ROWS]
    assert stored["parts"].to_list() == [row["parts"] for row in ROWS]
    assert stored["shape"].to_list() == [{"w": 1, "h": 2}, {"w": 3, "h": None}, None]


def test_without_files_they_are_records_with_all_fields(shop: Project) -> None:
    shop.push("listed", GIVEN, to="offline", at=T0)
    stored = shop.offline.scan("items").collect().sort("id")
    assert stored["tags"].to_list()[:2] == [{"a": 1, "b": None, "c": None}, {"a": None, "b": 2, "c": 3}]


def test_fields_that_history_does_not_have_are_refused_before_anything_is_written(shop: Project) -> None:
    make_source(shop.root)
    odd = [GIVEN[0], GIVEN[1] | {"shape": {"depth": 3}}]
    with pytest.raises(InputError, match="'shape' for source 'items' holds maps that do not fit"):
        shop.push("listed", odd, to="both", at=T0)
    assert read(shop)["shape"] == [None, None, None]
    assert shop.offline.scan("items").collect().is_empty()


def test_maps_may_be_given_as_json(shop: Project) -> None:
    text = {"tags": '{"a": [1, 2]}', "shape": '{"w": {"x": null}}', "parts": '[{"a": 1}, {}]', "price": "1"}
    shop.push("listed", [{"id": 0, "at": T0} | text], at=T0)
    found = read(shop)
    assert (found["tags"][0], found["shape"][0], found["parts"][0]) == (
        {"a": [1, 2]}, {"w": {"x": None}}, [{"a": 1}, {}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [("price", "cheap"), ("tags", "[1]"), ("tags", "{"), ("parts", "[1]"), ("tags", "5")]
)
def test_what_is_no_such_value_is_refused(shop: Project, name: str, value: str) -> None:
    with pytest.raises(InputError, match="not a value of type"):
        shop.push("listed", [{"id": 0, "at": T0} | ROWS[0] | {name: value}], at=T0)


def test_a_result_s_frame_holds_every_map_whole(shop: Project) -> None:
    shop.push("listed", GIVEN, at=T0)
    rows = [{"id": row["id"]} for row in GIVEN]
    assert shop.online.read_features(["item:tags"], rows).frame()["tags"].to_list() == [row["tags"] for row in ROWS]
