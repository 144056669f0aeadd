"""POST /v1/push/{source}: events into the online store, the offline store, or both.

Few events for the online store are written from the event loop: those that arrive while Redis works on others go
together in the next script (see `tidemill.online.push_together`). Everything else is written beside the loop, in the
threads of the write lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from tidemill.clock import to_micros
from tidemill_serving.batching import Batcher
from tidemill_serving.exchange import one_of, parse_object
from tidemill_serving.features import check_fields
from tidemill_serving.frames import columns_of_rows, pushed_types, stream_of, typed_frame
from tidemill_serving.problems import RejectedRowsError
from tidemill_serving.state import ServingState
from tidemill_serving.values import plain

if TYPE_CHECKING:
    from tidemill.online.push import StreamWriter
    from tidemill.online.push_together import Waiting
    from tidemill.online.store import OnlineStore

TARGETS = ("online", "offline", "both")
_FIELDS = {"rows", "to"}
_MOST_TOGETHER = 64  # rows: what Redis does in a millisecond or two, while nobody else is served


class PushEndpoint:
    """Answers the pushes to one stream."""

    def __init__(self, state: ServingState, stream: str) -> None:
        self._state, self._stream = state, stream
        self._checks: tuple[OnlineStore, StreamWriter] | None = None
        limits = state.limits
        self._together: Batcher[tuple[OnlineStore, Waiting], int] = Batcher(
            self._write_together,
            largest=_MOST_TOGETHER,
            pending=limits.pending,
            seconds=limits.request_seconds,
            finishes=True,
        )
        state.metrics.pending.labels("push", stream).set_function(lambda: self._together.pending)

    async def answer(self, body: bytes) -> bytes:
        """The answer to a request; see `answer_push`."""
        request = parse_object(body)
        rows = request.get("rows")
        usual = type(rows) is list and len(rows) <= self._state.limits.rows and _FIELDS.issuperset(request)
        if usual and request.get("to", "online") == "online":
            at, online = self._state.project.clock.now(), self._state.snapshot.online
            few = self._check_of(online).few_rows(rows, at)
            if few is not None:
                from tidemill.online.push_together import Waiting

                waiting = Waiting(few, to_micros(at))
                duplicates = await self._together.submit((online, waiting), weight=len(few), kind=online)
                return orjson.dumps(
                    _answer(self._state, self._stream, len(few) - duplicates, duplicates, [], few.ignored)
                )
        return await answer_push(self._state, self._stream, body)

    def _check_of(self, online: OnlineStore) -> StreamWriter:
        """What checks rows for a store; whether windows expire makes no difference to that."""
        if self._checks is None or self._checks[0] is not online:
            from tidemill.online.push import writer_of  # takes PyArrow along, which a server never pushed to can spare

            self._checks = (online, writer_of(online, self._stream))
        return self._checks[1]

    async def _write_together(self, batch: list[tuple[OnlineStore, Waiting]]) -> list[int]:
        """How many rows of each request were repeats."""
        from tidemill.online.push import writer_of

        waiting = [one for _, one in batch]
        await writer_of(batch[0][0], self._stream).write_waiting(waiting)
        return [one.repeated for one in waiting]


async def answer_push(state: ServingState, source: str, body: bytes) -> bytes:
    """Push the rows; the answer counts what was accepted, what was a repetition, and lists what was rejected."""
    request = parse_object(body)
    check_fields(request, _FIELDS)
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
    answer = _answer(state, stream, result.accepted, result.duplicates, rejected, result.ignored)
    if rejected and not result.accepted and not result.duplicates:
        raise RejectedRowsError(f"None of {frame.height:,} rows was taken; the first: {rejected[0]}.")
    return answer


def _answer(
    state: ServingState, stream: str, accepted: int, duplicates: int, rejected: list[Any], ignored: Sequence[str]
) -> dict[str, Any]:
    """What became of a push, which is counted."""
    pushed = state.metrics.pushed
    pushed.add((stream, "accepted"), accepted)
    pushed.add((stream, "duplicate"), duplicates)
    pushed.add((stream, "rejected"), len(rejected))
    return {"accepted": accepted, "duplicates": duplicates, "rejected": rejected, "ignored": list(ignored)}


def vars_of(row: Any) -> dict[str, Any]:
    """The fields of a frozen dataclass as they are."""
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
