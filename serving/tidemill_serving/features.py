"""POST /v1/features/{service}: feature vectors, by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from tidemill_serving.batching import Batcher
from tidemill_serving.exchange import parse_object
from tidemill_serving.problems import MalformedBodyError
from tidemill_serving.rows import Row, row_schema_of_features
from tidemill_serving.state import ServingState, Snapshot
from tidemill_serving.values import plain
from tidemill_serving.vectors import (
    VectorWriter,
    reference_types,
    stale_columns,
    status_columns,
    status_names,
)

if TYPE_CHECKING:
    from tidemill.online.result import OnlineResult

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What one request asks for, and the catalog it was checked against and is answered from."""

    rows: list[Row]
    event_times: bool
    snapshot: Snapshot


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """What a read found, ready to be answered in parts: several requests may have shared it. Where all is present,
    `statuses` is empty."""

    head: Mapping[str, Any]
    writer: VectorWriter
    columns: Mapping[str, Sequence[Any]]
    statuses: Mapping[str, Sequence[str]]
    result: OnlineResult
    stale: Mapping[str, Sequence[bool]]
    all_present: bool

    @classmethod
    def of(cls, result: OnlineResult, writer: VectorWriter, head: Mapping[str, Any]) -> Vectors:
        all_present = result.all_present
        return cls(
            head=head,
            writer=writer,
            columns=writer.columns(result),
            statuses={} if all_present else status_names(result),
            result=result,
            stale=stale_columns(result),
            all_present=all_present,
        )

    def whole(self, rows: int, *, event_times: bool) -> bytes:
        return self._encode(self.columns, slice(0, rows), event_times=event_times)

    def part(self, part: slice, *, event_times: bool) -> bytes:
        columns = {name: column[part] for name, column in self.columns.items()}
        return self._encode(columns, part, event_times=event_times)

    def _encode(self, columns: Mapping[str, Any], part: slice, *, event_times: bool) -> bytes:
        document = {
            **self.head,
            "features": columns,
            "statuses": self.writer.all_present(part.stop - part.start)
            if self.all_present
            else status_columns(self.statuses, part),
            "stale": {name: flags[part] for name, flags in self.stale.items() if True in flags[part]},
        }
        if event_times:
            document["event_times"] = {
                name: [None if moment is None else micros_text(moment) for moment in moments[part]]
                for name, moments in self.result.event_times.items()
            }
        return orjson.dumps(document, default=plain, option=orjson.OPT_SERIALIZE_NUMPY)


class FeatureEndpoint:
    """Answers for one feature service. Requests that arrive together share one read of the online store."""

    def __init__(self, state: ServingState, service: str) -> None:
        self._state, self.service = state, service
        self.batcher: Batcher[_Read, bytes] = Batcher.of_requests(self._answer_batch, state.limits)
        self._meter = ("features", service)
        state.metrics.pending.labels("features", service).set_function(lambda: self.batcher.pending)

    async def answer(self, body: bytes) -> bytes:
        request = parse_object(body)
        check_fields(request, {"rows", "event_times"})
        snapshot = self._state.snapshot
        snapshot.catalog.service(self.service)  # a service that is gone since is named with what there is
        schema = snapshot.schemas[self.service]
        rows = schema.check(request.get("rows"), limit=self._state.limits.rows)
        asked = _Read(rows=rows, event_times=flag(request, "event_times"), snapshot=snapshot)
        return await self.batcher.submit(asked, weight=len(rows), kind=id(snapshot))

    async def _answer_batch(self, reads: list[_Read]) -> list[bytes]:
        snapshot = reads[0].snapshot
        rows = reads[0].rows if len(reads) == 1 else [row for read in reads for row in read.rows]
        result = await snapshot.online.aread(self.service, rows, arrays=True)
        head = {"service": self.service, "catalog_version": snapshot.version, "at": micros_text(result.at)}
        vectors = Vectors.of(result, snapshot.writers[self.service], head)
        self._state.metrics.batch_rows.observe(self._meter, len(rows))
        if not vectors.all_present:
            self._state.metrics.not_present(self.service, vectors.statuses)
        self._state.metrics.stale_values(self.service, vectors.stale)
        if len(reads) == 1:
            return [vectors.whole(len(rows), event_times=reads[0].event_times)]
        return _split(vectors, reads)


def _split(vectors: Vectors, reads: list[_Read]) -> list[bytes]:
    answers, first = [], 0
    for read in reads:
        last = first + len(read.rows)
        answers.append(vectors.part(slice(first, last), event_times=read.event_times))
        first = last
    return answers


async def answer_references(state: ServingState, body: bytes) -> bytes:
    """POST /v1/features: features named one by one, as `view:feature`."""
    request = parse_object(body)
    check_fields(request, {"features", "rows", "event_times"})
    references = request.get("features")
    if type(references) is not list or not references or not all(type(name) is str for name in references):
        raise MalformedBodyError("`features` is missing or wrong; an array of `view:feature` texts was expected.")
    references = [*dict.fromkeys(references)]  # a list that says the same over and over must not make a plan as long
    snapshot = state.snapshot
    rows = row_schema_of_features(snapshot.catalog, references).check(request.get("rows"), limit=state.limits.rows)

    async def read() -> OnlineResult:
        return await snapshot.online.aread_features(references, rows, arrays=True)

    result = await state.reads.submit(read, weight=len(rows), kind=read)
    head = {"service": None, "catalog_version": snapshot.version, "at": micros_text(result.at)}
    vectors = Vectors.of(result, VectorWriter.of(reference_types(snapshot.catalog, references)), head)
    return vectors.whole(len(rows), event_times=flag(request, "event_times"))


def check_fields(request: Mapping[str, Any], known: set[str]) -> None:
    """Raise MalformedBodyError for a field that nobody asked for: most often a misspelt one."""
    unknown = request.keys() - known
    if unknown:
        raise MalformedBodyError(
            f"The body has unknown fields: {', '.join(sorted(unknown))}.", hint=f"Known: {', '.join(sorted(known))}."
        )


def flag(request: Mapping[str, Any], name: str) -> bool:
    """An optional true or false of a body, false where it is not given."""
    value = request.get(name, False)
    if type(value) is not bool:
        raise MalformedBodyError(f"`{name}` is neither true nor false.")
    return value


def micros_text(at: int) -> str:
    """Microseconds since 1970 UTC as RFC 3339."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat().replace("+00:00", "Z")
