"""POST /v1/models/{model}/predict: read the features, predict, log, answer. In that order, for a batch at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from tidemill.errors import InputError, UnavailableError
from tidemill.predictions.log import PredictionLog, PredictionRecord
from tidemill_serving.batching import Batcher
from tidemill_serving.exchange import parse_object
from tidemill_serving.features import check_fields, flag, micros_text
from tidemill_serving.models import ServedModel
from tidemill_serving.problems import MalformedBodyError, NotDeployedError
from tidemill_serving.rows import Row, RowSchema, row_schema
from tidemill_serving.state import ServingState, Snapshot
from tidemill_serving.values import plain
from tidemill_serving.vectors import StatusRows, row_texts, stale_columns, stale_rows, status_names

if TYPE_CHECKING:
    from tidemill.online.result import OnlineResult

_LONGEST_ID = 64
REQUEST_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{_LONGEST_ID}}}")


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What one request asks for, with the model and the catalog it was checked against and is answered from.

    `name`, where the client gave one, names its predictions: a request that is repeated is logged as the same.
    """

    rows: list[Row]
    explain: bool
    name: str | None
    served: ServedModel
    snapshot: Snapshot

    def prediction_ids(self, log: PredictionLog) -> list[str]:
        if self.name is None:
            return log.new_ids(len(self.rows))
        return [f"{self.name}-{number:x}" for number in range(len(self.rows))]


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Rows of several requests that are predicted together, at one instant."""

    served: ServedModel
    snapshot: Snapshot
    requests: list[_Request]
    rows: list[Row]


class PredictEndpoint:
    """Answers for one model. Requests that arrive together share a read, a call of the model and a write to the log."""

    def __init__(self, state: ServingState, model: str) -> None:
        self._state, self.model = state, model
        self._statuses = StatusRows()
        self.batcher: Batcher[_Request, bytes] = Batcher.of_requests(self._answer_batch, state.limits)
        metrics = state.metrics
        metrics.pending.labels("predict", model).set_function(lambda: self.batcher.pending)
        self._rows_meter = metrics.batch_rows.labels("predict", model)
        stages = ("read", "predict", "log", "encode")
        self._stage = {name: metrics.stage_seconds.labels(model, name) for name in stages}

    async def answer(self, body: bytes) -> bytes:
        request = parse_object(body)
        check_fields(request, {"rows", "explain", "request_id"})
        snapshot, served = self._state.snapshot, self._served()
        rows = self._schema(snapshot, served).check(request.get("rows"), limit=self._state.limits.rows)
        asked = _Request(
            rows=rows, explain=flag(request, "explain"), name=_name_of(request), served=served, snapshot=snapshot
        )
        return await self.batcher.submit(asked, weight=len(rows), kind=(id(snapshot), id(served)))

    async def _answer_batch(self, requests: list[_Request]) -> list[bytes]:
        state, served = self._state, requests[0].served
        rows = requests[0].rows if len(requests) == 1 else [row for request in requests for row in request.rows]
        batch = _Batch(served=served, snapshot=requests[0].snapshot, requests=requests, rows=rows)
        started = perf_counter()
        result = await batch.snapshot.online.aread(served.service, rows)
        self._stage["read"].observe(perf_counter() - started)
        self._rows_meter.observe(len(rows))
        return await asyncio.get_running_loop().run_in_executor(state.model_thread, self._complete, batch, result)

    def _complete(self, batch: _Batch, result: OnlineResult) -> list[bytes]:
        """Predict, log and only then answer; in the thread of the models."""
        started = perf_counter()
        predictions = _predict(batch.served, result)
        predicted = perf_counter()
        statuses = None if result.all_present else status_names(result)
        rows = self._log(batch, result, statuses, predictions)
        logged = perf_counter()
        if statuses is not None:
            self._state.metrics.not_present(batch.served.service, statuses)
        self._state.metrics.stale_values(batch.served.service, stale_columns(result))
        self._state.metrics.predictions.labels(self.model, str(batch.served.version)).inc(len(batch.rows))
        answers = _answers(batch, rows, result)
        for stage, seconds in (
            ("predict", predicted - started),
            ("log", logged - predicted),
            ("encode", perf_counter() - logged),
        ):
            self._stage[stage].observe(seconds)
        return answers

    def _log(
        self, batch: _Batch, result: OnlineResult, statuses: Mapping[str, Sequence[str]] | None, predictions: np.ndarray
    ) -> list[PredictionRecord]:
        log, served = self._state.project.predictions, batch.served
        columns = batch.snapshot.writers[served.service].columns(result)
        known = self._statuses
        identity = _Identity.of(self._schema(batch.snapshot, served))
        records = [
            PredictionRecord(
                prediction_id=name,
                model=self.model,
                version=served.version,
                service=served.service,
                catalog_digest=batch.snapshot.digest,
                at=result.at,
                id=identity.id_of(row),
                keys=identity.keys_of(row),
                request=identity.request_of(row),
                features=features,
                statuses=status,
                prediction=prediction,
            )
            for name, row, features, status, prediction in zip(
                [name for request in batch.requests for name in request.prediction_ids(log)],
                batch.rows,
                row_texts(columns),
                known.all_present(result.names, len(batch.rows)) if statuses is None else known.texts(statuses),
                predictions.tolist(),
                strict=True,
            )
        ]
        log.append(records)
        return records

    def _served(self) -> ServedModel:
        served = self._state.shelf.served.get(self.model)
        if served is not None:
            return served
        failure = self._state.shelf.failures.get(self.model)
        if failure is not None:
            raise UnavailableError(f"Model {self.model!r} cannot be served: {failure}")
        self._state.snapshot.catalog.model(self.model)
        raise NotDeployedError(
            f"No version of model {self.model!r} is promoted yet.", hint=f"Run `tidemill train {self.model}`."
        )

    def _schema(self, snapshot: Snapshot, served: ServedModel) -> RowSchema:
        """What a row must hold: usually as declared, and as trained where the declaration moved to another service."""
        if served.service == served.model.service and self.model in snapshot.model_schemas:
            return snapshot.model_schemas[self.model]
        service = snapshot.catalog.service(served.service)
        return row_schema(snapshot.catalog, service, id_column=served.model.spine.id_column)


def _name_of(request: Mapping[str, Any]) -> str | None:
    name = request.get("request_id")
    if name is not None and (type(name) is not str or REQUEST_ID.fullmatch(name) is None):
        raise MalformedBodyError(
            f"`request_id` is wrong; up to {_LONGEST_ID} letters, digits, `-`, `_` or `.` were expected."
        )
    return name


@dataclass(frozen=True, kw_only=True)
class _Identity:
    """Which columns of a row are keys, which are request fields, and which one is its name."""

    keys: tuple[str, ...]
    request: tuple[str, ...]
    id_column: str | None

    @classmethod
    def of(cls, schema: RowSchema) -> _Identity:
        return cls(
            keys=tuple(field.name for field in schema.fields if field.is_key),
            request=tuple(field.name for field in schema.fields if not field.is_key),
            id_column=schema.id_column,
        )

    def id_of(self, row: Row) -> str | None:
        name = None if self.id_column is None else row.get(self.id_column)
        return name if name is None or type(name) is str else str(name)

    def keys_of(self, row: Row) -> str:
        return orjson.dumps({name: row[name] for name in self.keys}, default=plain).decode()

    def request_of(self, row: Row) -> str:
        return orjson.dumps({name: row[name] for name in self.request}, default=plain).decode()


def _answers(batch: _Batch, records: list[PredictionRecord], result: OnlineResult) -> list[bytes]:
    stale = stale_rows(result)
    answers, first = [], 0
    for request in batch.requests:
        last = first + len(request.rows)
        part = zip(records[first:last], stale[first:last], strict=True)
        document = {
            "model": batch.served.model.name,
            "version": batch.served.version,
            "at": micros_text(result.at),
            "predictions": [_row_answer(record, stale, explain=request.explain) for record, stale in part],
        }
        answers.append(orjson.dumps(document))
        first = last
    return answers


def _row_answer(record: PredictionRecord, stale: list[str], *, explain: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": record.id,
        "prediction_id": record.prediction_id,
        "prediction": record.prediction,
        "statuses": orjson.Fragment(record.statuses),
        "stale": stale,
    }
    if explain:
        answer["features"] = orjson.Fragment(record.features)
    return answer


def _predict(served: ServedModel, result: OnlineResult) -> np.ndarray:
    try:
        return served.artifact.predict(result.values)
    except InputError as error:  # the request was right; the definitions moved away from the model
        raise UnavailableError(
            f"Model {served.model.name!r} version {served.version} does not fit the features in force: {error}",
            hint="Train it again, or roll back.",
        ) from error
