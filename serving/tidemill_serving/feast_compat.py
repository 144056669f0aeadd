"""Feast's own feature server protocol, so that a Feast client with `online_store: {type: remote}` works against ours.

Names and shapes are those of Feast 0.67. What differs is meant: an entity that was never written is NOT_FOUND and a
value past its ttl is OUTSIDE_MAX_AGE, where Feast's server says PRESENT.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Request, Response

from tidemill.definitions.catalog import Catalog, Projection
from tidemill.definitions.types import ValueType
from tidemill.definitions.windows import refuse_values
from tidemill_serving.exchange import one_of, parse_object, read_body, text_of
from tidemill_serving.frames import (
    columns_of_frame,
    pushed_types,
    stream_of,
    typed_frame,
    view_types,
)
from tidemill_serving.problems import MalformedBodyError, RejectedRowsError
from tidemill_serving.push import push_frame
from tidemill_serving.rows import Row, RowSchema, row_schema_of_features
from tidemill_serving.state import ServingState, Snapshot
from tidemill_serving.values import plain, writer_of
from tidemill_serving.vectors import projected, status_names

if TYPE_CHECKING:
    from tidemill.online.result import OnlineResult

_TARGETS = {"online": "online", "offline": "offline", "online_and_offline": "both"}
_NO_TIME = "1970-01-01T00:00:00Z"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INFINITE, _MINUS_INFINITE = orjson.Fragment(b"1e999"), orjson.Fragment(b"-1e999")


def feast_router(state: ServingState) -> APIRouter:
    router = APIRouter(tags=["feast"])

    @router.post("/get-online-features", summary="Feast: feature vectors by column")
    async def get_online_features(request: Request) -> Response:
        return _json(await answer_online_features(state, await read_body(request.scope, request.receive, state.limits)))

    @router.post("/push", summary="Feast: push rows to a push source")
    async def push(request: Request) -> Response:
        await answer_push(state, await read_body(request.scope, request.receive, state.limits))
        return Response(status_code=200)

    @router.post("/write-to-online-store", summary="Feast: write rows of one feature view")
    async def write(request: Request) -> Response:
        await answer_write(state, await read_body(request.scope, request.receive, state.limits))
        return _json(b"null")

    return router


async def answer_online_features(state: ServingState, body: bytes) -> bytes:
    """Feast's `GetOnlineFeaturesRequest` to its `OnlineFeaturesResponse`: join keys first, then the features."""
    request = parse_object(body)
    snapshot = state.snapshot
    full_names = bool(request.get("full_feature_names", False))
    entities = request.get("entities")
    if type(entities) is not dict or not all(type(column) is list for column in entities.values()):
        raise MalformedBodyError("`entities` is missing or wrong; an object of arrays was expected.")
    asked = _Asked.of(snapshot, request, full_names=full_names)
    rows = _rows(asked.schema, entities, limit=state.limits.rows)

    async def read() -> OnlineResult:
        if asked.service is not None:
            return await snapshot.online.aread(asked.service, rows, full_feature_names=full_names)
        return await snapshot.online.aread_features(asked.references, rows, full_feature_names=full_names)

    result = await state.reads.submit(read, weight=len(rows), kind=read)
    return orjson.dumps(_document(asked, entities, result), default=plain)


class _Asked:
    """What a request asks for: a service by name or a list of references, with what returns and its types."""

    def __init__(
        self, *, service: str | None, references: Sequence[str], schema: RowSchema, types: Mapping[str, ValueType]
    ) -> None:
        self.service, self.references, self.schema, self.types = service, references, schema, types

    @classmethod
    def of(cls, snapshot: Snapshot, request: Mapping[str, Any], *, full_names: bool) -> _Asked:
        references, catalog = request.get("features") or [], snapshot.catalog
        if request.get("feature_service"):
            service = text_of(request, "feature_service")
            types = _types(catalog, catalog.service(service).projections, full_names=full_names)
            return cls(service=service, references=(), schema=snapshot.schemas[service], types=types)
        if type(references) is not list or not references or not all(type(name) is str for name in references):
            raise MalformedBodyError("Neither `feature_service` nor `features` (an array of `view:feature`) is given.")
        references = [*dict.fromkeys(references)]
        schema = row_schema_of_features(catalog, references)
        pairs = (reference.partition(":") for reference in references)
        projections = [Projection(view=view, features=(feature,)) for view, _, feature in pairs]
        types = _types(catalog, projections, full_names=full_names)
        return cls(service=None, references=references, schema=schema, types=types)


def _types(catalog: Catalog, projections: Sequence[Projection], *, full_names: bool) -> dict[str, ValueType]:
    return {
        f"{projection.name}__{name}" if full_names else name: dtype
        for projection, name, dtype in projected(catalog, projections)
    }


def _rows(schema: RowSchema, entities: Mapping[str, list[Any]], *, limit: int) -> list[Row]:
    lengths = {len(column) for column in entities.values()}
    if len(lengths) != 1:
        raise RejectedRowsError(f"The arrays of `entities` have different lengths: {sorted(lengths)}.")
    wanted = [field.name for field in schema.fields if field.name in entities]
    columns = [entities[name] for name in wanted]
    rows = [dict(zip(wanted, values, strict=True)) for values in zip(*columns, strict=True)]
    return schema.check(rows or [{}] * lengths.pop(), limit=limit)


def _document(asked: _Asked, entities: Mapping[str, list[Any]], result: OnlineResult) -> dict[str, Any]:
    statuses = status_names(result)
    names, results = list(entities), [_entity_vector(column) for column in entities.values()]
    for name in result.names:
        names.append(name)
        results.append(
            {
                "values": _values(asked.types[name], result.values[name]),
                "statuses": statuses[name],
                "event_timestamps": [_timestamp(moment) for moment in result.event_times[name]],
            }
        )
    return {"results": results, "metadata": {"feature_names": names}}


def _entity_vector(column: list[Any]) -> dict[str, Any]:
    rows = len(column)
    return {"values": column, "statuses": ["PRESENT"] * rows, "event_timestamps": [_NO_TIME] * rows}


def _values(dtype: ValueType, column: Sequence[Any]) -> Sequence[Any]:
    """Feast writes an instant as seconds since 1970. Its clients take no text for a number that JSON cannot say."""
    if dtype.element is ValueType.UNIX_TIMESTAMP:
        return [_seconds(value) for value in column]
    if dtype.element in (ValueType.DOUBLE, ValueType.FLOAT):
        return [_number(value) for value in column]
    write = writer_of(dtype)
    return column if write is None else write(column)


def _number(value: Any) -> Any:
    """NaN becomes null, an infinity a number so large that it reads as infinite.

    Feast's server writes the texts "NaN" and "Infinity", on which Feast's remote client fails.
    """
    if isinstance(value, list | tuple | set | frozenset):
        return [_number(item) for item in value]
    if value is None or math.isfinite(value):
        return value
    return None if math.isnan(value) else _INFINITE if value > 0 else _MINUS_INFINITE


def _seconds(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_seconds(item) for item in value]
    return int((value - _EPOCH) // timedelta(seconds=1)) if isinstance(value, datetime) else value


def _timestamp(moment: int | None) -> str:
    """A protobuf Timestamp as protobuf's JSON writes it; Feast's for a missing value is 1970."""
    if moment is None:
        return _NO_TIME
    text = (_EPOCH + timedelta(microseconds=moment - moment % 1_000_000)).strftime("%Y-%m-%dT%H:%M:%S")
    micros = moment % 1_000_000
    if micros == 0:
        return f"{text}Z"
    return f"{text}.{micros // 1_000:03d}Z" if micros % 1_000 == 0 else f"{text}.{micros:06d}Z"


async def answer_push(state: ServingState, body: bytes) -> None:
    """Feast's `PushFeaturesRequest`. Every row must be taken: Feast's answer has no place for some that were not."""
    request = parse_object(body)
    to = one_of(request, "to", [*_TARGETS])
    name = text_of(request, "push_source_name")
    catalog = state.snapshot.catalog
    stream = stream_of(catalog, name)
    columns = columns_of_frame(request.get("df"), limit=state.limits.rows)
    frame = typed_frame(columns, pushed_types(catalog, stream))
    answer = await push_frame(state, stream.name, frame, to=_TARGETS[to])
    if answer["rejected"]:
        raise RejectedRowsError(f"{len(answer['rejected'])} rows were not taken; the first: {answer['rejected'][0]}.")


async def answer_write(state: ServingState, body: bytes) -> None:
    """Feast's `WriteToFeatureStoreRequest`: rows of one view, with their event time and known time."""
    request = parse_object(body)
    name = text_of(request, "feature_view_name")
    snapshot = state.snapshot
    view = snapshot.catalog.view(name)
    refuse_values(view)
    source = snapshot.catalog.source(view.source)
    columns = dict(columns_of_frame(request.get("df"), limit=state.limits.rows))
    columns["__event_time"] = _taken(columns, source.timestamp_field, "event_timestamp")
    columns["__known_time"] = _taken(columns, source.known_field, "created", default=columns["__event_time"])
    types = view_types(snapshot.catalog, view)
    wanted = (*view.join_keys, *(feature.name for feature in view.features), "__event_time", "__known_time")
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise MalformedBodyError(f"`df` lacks the columns: {', '.join(missing)}.")
    instants = dict.fromkeys(("__event_time", "__known_time"), ValueType.UNIX_TIMESTAMP)
    frame = typed_frame({column: columns[column] for column in wanted}, types | instants)
    await state.writes.run(snapshot.online.write, view.name, frame)


def _taken(columns: dict[str, list[Any]], *names: str | None, default: list[Any] | None = None) -> list[Any]:
    """The column of instants under the source's own name or the one Feast's remote client uses."""
    for name in names:
        if name is not None and name in columns:
            found = columns.pop(name)
            return found if default is None else [d if v is None else v for v, d in zip(found, default, strict=True)]
    if default is None:
        raise MalformedBodyError(f"`df` has no column of event times; {names[0]!r} was expected.")
    return default


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
