"""POST /v1/push/{source}: events into the online store, the offline store, or both."""

from __future__ import annotations

from typing import Any

import orjson
import polars as pl

from tidemill_serving.exchange import one_of, parse_object
from tidemill_serving.features import check_fields
from tidemill_serving.frames import columns_of_rows, pushed_types, stream_of, typed_frame
from tidemill_serving.problems import RejectedRowsError
from tidemill_serving.state import ServingState
from tidemill_serving.values import plain

TARGETS = ("online", "offline", "both")


async def answer_push(state: ServingState, source: str, body: bytes) -> bytes:
    """Push the rows; the answer counts what was accepted, what was a repetition, and lists what was rejected."""
    request = parse_object(body)
    check_fields(request, {"rows", "to"})
    to = one_of(request, "to", TARGETS)
    columns = columns_of_rows(request.get("rows"), limit=state.limits.rows)
    catalog = state.snapshot.catalog
    stream = stream_of(catalog, source)
    frame = typed_frame(columns, pushed_types(catalog, stream))
    return orjson.dumps(await push_frame(state, stream.name, frame, to=to))


async def push_frame(state: ServingState, stream: str, frame: pl.DataFrame, *, to: str) -> dict[str, Any]:
    """Push beside the event loop. Raises RejectedRowsError where not a single row was taken."""
    at = state.project.clock.now()
    result = await state.writes.run(state.project.push, stream, frame, to=to, at=at)
    rejected = [plain(vars_of(row)) for row in result.rejected]
    for outcome, count in (
        ("accepted", result.accepted),
        ("duplicate", result.duplicates),
        ("rejected", len(rejected)),
    ):
        state.metrics.pushed.labels(stream, outcome).inc(count)
    if rejected and not result.accepted and not result.duplicates:
        raise RejectedRowsError(f"None of {frame.height:,} rows was taken; the first: {rejected[0]}.")
    return {
        "accepted": result.accepted,
        "duplicates": result.duplicates,
        "rejected": rejected,
        "ignored": list(result.ignored),
    }


def vars_of(row: Any) -> dict[str, Any]:
    """The fields of a frozen dataclass as they are."""
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
