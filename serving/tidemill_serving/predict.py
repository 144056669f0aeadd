"""POST /v1/models/{model}/predict: read the features, predict, log, answer. In that order, for a batch at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from tidemill.errors import InputError, UnavailableError
from tidemill.predictions import PredictionBatch, PredictionLog
from tidemill_serving.batching import Batcher
from tidemill_serving.exchange import parse_object
from tidemill_serving.features import check_fields, flag, micros_text
from tidemill_serving.models import ServedModel
from tidemill_serving.problems import MalformedBodyError, NotDeployedError
from tidemill_serving.rows import Row, RowSchema, row_schema
from tidemill_serving.state import ServingState, Snapshot
from tidemill_serving.vectors import StatusRows, stale_columns, stale_rows, status_names

if TYPE_CHECKING:
    import numpy as np

    from tidemill.online.result import OnlineResult

_QUICK_ROWS = 64
_QUICK_SECONDS = 0.02
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


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Rows of several requests that are predicted together, at one instant."""

    served: ServedModel
    snapshot: Snapshot
    requests: list[_Request]
    rows: list[Row]

    def prediction_ids(self, log: PredictionLog) -> list[str]:
        """A name for each row: made of the request's, where it has one."""
        fresh = log.new_ids(len(self.rows))
        if all(request.name is None for request in self.requests):
            return fresh
        names = iter(fresh)
        return [
            next(names) if request.name is None else f"{request.name}-{number:x}"
            for request in self.requests
            for number in range(len(request.rows))
        ]


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A batch that is predicted and logged: the answers, and how long each stage took in seconds."""

    answers: list[bytes]
    statuses: Mapping[str, Sequence[str]] | None
    stages: Mapping[str, float]


class PredictEndpoint:
    """Answers for one model. Requests that arrive together share a read, a call of the model and a write to the log.

    Models of plain arrays predict some rows in less time than another thread takes to begin: those are completed in the
    event loop, which also keeps the two from taking turns. Other models, larger batches, and a disk or a model that has
    just been slow are left to the thread of the models.
    """

    def __init__(self, state: ServingState, model: str) -> None:
        self._state, self.model = state, model
        self._statuses = StatusRows()
        self._last_seconds = 0.0
        self._always_beside = state.project.settings.prediction_log_thread
        self.batcher: Batcher[_Request, bytes] = Batcher.of_requests(self._answer_batch, state.limits)
        state.metrics.pending.labels("predict", model).set_function(lambda: self.batcher.pending)

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
        served = requests[0].served
        rows = requests[0].rows if len(requests) == 1 else [row for request in requests for row in request.rows]
        batch = _Batch(served=served, snapshot=requests[0].snapshot, requests=requests, rows=rows)
        started = perf_counter()
        result = await batch.snapshot.online.aread(served.service, rows)
        read = perf_counter()
        if self._is_quick(batch):
            done = self._complete(batch, result)
        else:
            thread = self._state.model_thread
            done = await asyncio.get_running_loop().run_in_executor(thread, self._complete, batch, result)
        self._last_seconds = perf_counter() - read
        self._count(batch, result, done, read_seconds=read - started)
        return done.answers

    def _is_quick(self, batch: _Batch) -> bool:
        return (
            len(batch.rows) <= _QUICK_ROWS
            and self._last_seconds < _QUICK_SECONDS
            and batch.served.artifact.trees is not None
            and not self._always_beside
            and not self._state.project.predictions.sync
        )

    def _complete(self, batch: _Batch, result: OnlineResult) -> _Done:
        """Predict, log and only then answer."""
        started = perf_counter()
        predictions = _predict(batch.served, result).tolist()
        predicted = perf_counter()
        statuses = None if result.all_present else status_names(result)
        logged = self._logged(batch, result, statuses, predictions)
        self._state.project.predictions.append_batch(logged)
        appended = perf_counter()
        answers = _answers(batch, logged, self._status_texts(batch, result, statuses), stale_rows(result))
        stages = {"predict": predicted - started, "log": appended - predicted, "encode": perf_counter() - appended}
        return _Done(answers=answers, statuses=statuses, stages=stages)

    def _count(self, batch: _Batch, result: OnlineResult, done: _Done, *, read_seconds: float) -> None:
        metrics, model = self._state.metrics, self.model
        if done.statuses is not None:
            metrics.not_present(batch.served.service, done.statuses)
        metrics.stale_values(batch.served.service, stale_columns(result))
        metrics.predictions.add((model, str(batch.served.version)), len(batch.rows))
        metrics.batch_rows.observe(("predict", model), len(batch.rows))
        metrics.stage_seconds.observe((model, "read"), read_seconds)
        for stage, seconds in done.stages.items():
            metrics.stage_seconds.observe((model, stage), seconds)

    def _logged(
        self,
        batch: _Batch,
        result: OnlineResult,
        statuses: Mapping[str, Sequence[str]] | None,
        predictions: list[float],
    ) -> PredictionBatch:
        log, served = self._state.project.predictions, batch.served
        parts = self._schema(batch.snapshot, served).parts
        return PredictionBatch(
            model=self.model,
            version=served.version,
            service=served.service,
            catalog_digest=batch.snapshot.digest,
            at=result.at,
            prediction_ids=batch.prediction_ids(log),
            ids=parts.names_of(batch.rows),
            keys=parts.keys_of(batch.rows),
            request=parts.request_of(batch.rows),
            features=batch.snapshot.writers[served.service].columns(result),
            statuses=statuses,
            predictions=predictions,
        )

    def _status_texts(
        self, batch: _Batch, result: OnlineResult, statuses: Mapping[str, Sequence[str]] | None
    ) -> list[str]:
        if statuses is None:
            return self._statuses.all_present(result.names, len(batch.rows))
        return self._statuses.texts(statuses)

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


def _answers(batch: _Batch, logged: PredictionBatch, statuses: list[str], stale: list[list[str]]) -> list[bytes]:
    at = micros_text(logged.at)
    rows = [
        {
            "id": name,
            "prediction_id": prediction_id,
            "prediction": prediction,
            "statuses": orjson.Fragment(status),
            "stale": stale_features,
        }
        for name, prediction_id, prediction, status, stale_features in zip(
            logged.ids, logged.prediction_ids, logged.predictions, statuses, stale, strict=True
        )
    ]
    answers, first = [], 0
    for request in batch.requests:
        last = first + len(request.rows)
        if request.explain:
            for place in range(first, last):
                rows[place]["features"] = {name: column[place] for name, column in logged.features.items()}
        document = {"model": logged.model, "version": logged.version, "at": at, "predictions": rows[first:last]}
        answers.append(orjson.dumps(document))
        first = last
    return answers


def _predict(served: ServedModel, result: OnlineResult) -> np.ndarray:
    try:
        return served.artifact.predict(result.values)
    except InputError as error:  # the request was right; the definitions moved away from the model
        raise UnavailableError(
            f"Model {served.model.name!r} version {served.version} does not fit the features in force: {error}",
            hint="Train it again, or roll back.",
        ) from error
