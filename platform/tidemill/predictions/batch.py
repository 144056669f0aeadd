"""Predictions that were made together, written as one line of the log: by column, as they were read.

Whoever answers has the columns already, and encodes each once; a line for each row would cost four times as much, and
the answer waits for it. Whoever reads the log gets rows all the same (`columns_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import orjson

PREFIX = b'{"rows":'
"""How the line of a batch begins; the line of a single record begins with another field."""

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class PredictionBatch:
    """Answered rows of one version of a model, at one instant: microseconds since 1970-01-01 UTC.

    Everything else has one entry for each row: `keys`, `request` and `features` are columns of values that orjson can
    write, `statuses` columns of names, or None where every feature of every row was PRESENT.
    """

    model: str
    version: int
    service: str
    catalog_digest: str
    at: int
    prediction_ids: Sequence[str]
    ids: Sequence[str | None]
    keys: Columns
    request: Columns
    features: Columns
    statuses: Columns | None
    predictions: Sequence[float]

    def line(self) -> bytes:
        """The batch as a line of JSON."""
        document = {
            "rows": len(self.prediction_ids),
            "model": self.model,
            "version": self.version,
            "service": self.service,
            "catalog_digest": self.catalog_digest,
            "at": self.at,
            "prediction_id": self.prediction_ids,
            "id": self.ids,
            "keys": self.keys,
            "request": self.request,
            "features": self.features,
            "statuses": self.statuses,
            "prediction": self.predictions,
        }
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def columns_of(lines: Iterable[bytes], *, model: str | None = None) -> dict[str, list[Any]]:
    """The rows of batches (of one model, or of all) as columns named like the fields of a `PredictionRecord`."""
    columns: dict[str, list[Any]] = {name: [] for name in _FIELDS}
    for line in lines:
        batch = orjson.loads(line)
        if model is None or batch["model"] == model:
            for name, values in zip(_FIELDS, _rows_of(batch), strict=True):
                columns[name].extend(values)
    return columns


_SHARED = ("model", "version", "service", "catalog_digest", "at")
_OF_ROWS = ("prediction_id", "id", "prediction")
_TEXTS = ("keys", "request", "features", "statuses")
_FIELDS = (*_SHARED, *_OF_ROWS, *_TEXTS)


def _rows_of(batch: dict[str, Any]) -> Iterable[Iterable[Any]]:
    """Each of `_FIELDS` for each row."""
    rows = batch["rows"]
    yield from (repeat(batch[name], rows) for name in _SHARED)
    yield from (batch[name] for name in _OF_ROWS)
    yield from (row_texts(batch[name], rows) for name in ("keys", "request", "features"))
    statuses = batch["statuses"]
    yield repeat(_all_present(batch["features"]), rows) if statuses is None else row_texts(statuses, rows)


def row_texts(columns: Columns, rows: int) -> list[str]:
    """One JSON object, as text, for each of so many rows of the columns."""
    if not columns:
        return ["{}"] * rows
    names = tuple(columns)
    return [orjson.dumps(dict(zip(names, row, strict=True))).decode() for row in zip(*columns.values(), strict=True)]


def _all_present(names: Iterable[str]) -> str:
    return orjson.dumps(dict.fromkeys(names, "PRESENT")).decode()
